"""The bridge's own check: amplified rounding passes, however large it grows; a wrong layer or connection does not, whatever surrounds it."""

import keras
import numpy as np
import pytest
from keras import layers

from tfdistill.bridge import check_parity, to_keras, to_tf_keras
from tfdistill.bridge.parity.check import within
from tfdistill.errors import BridgeError

LOOSE = 1e-5  # ten times what the outputs may differ by without a look at the layers


def faint(x, name, channels=4):
    """A convolution whose channels hardly differ from 1, and a normalization that amplifies these differences: mostly rounding."""
    x = layers.Conv2D(
        channels, 1, bias_initializer="ones", kernel_initializer=keras.initializers.RandomNormal(0.0, 1e-4), name=f"conv_{name}"
    )(x)
    tiny = keras.initializers.Constant(1e-8)
    return layers.BatchNormalization(epsilon=1e-8, moving_mean_initializer="ones", moving_variance_initializer=tiny, name=f"bn_{name}")(x)


def image(name="image"):
    return keras.Input((4, 4, 4), name=name)


def inner(name):
    x = image()
    return keras.Model(x, faint(x, "inside"), name=name)


def chain(wrong=False):
    x = first = image()
    for name in "abc":
        before, x = x, faint(x, name)
    x = layers.Concatenate(name="join")([x, first if wrong else before])
    return keras.Model(first, x, name="chain")


def sequential():
    x = chain()
    return keras.Sequential([keras.Input((4, 4, 4)), *x.layers[1:-1], layers.Flatten(), layers.Dense(2)], name="sequential")


def around_nested(wrong=False):
    x = image()
    one, two = faint(x, "one"), faint(x, "two")
    return keras.Model(x, [layers.Add(name="sum")([one, two]), inner("core")(one if wrong else two)], name="around_nested")


def shared(wrong=False):
    x = image()
    every = inner("every")
    once = every(x)
    twice = every(once)
    thrice = every(once if wrong else twice)
    return keras.Model(x, layers.Concatenate(name="join")([thrice, twice]), name="shared")


def two_in_two_out(wrong=False):
    left, right = image("left"), image("right")
    one, two = faint(left, "left"), faint(right, "right")
    difference = layers.Subtract(name="less")([two, one] if wrong else [one, two])
    return keras.Model({"left": left, "right": right}, {"less": difference, "two": two}, name="two_in_two_out")


def swapped(wrong=False):
    x = image()
    one = faint(x, "one")
    two = faint(one, "two")
    return keras.Model(x, [two, one] if wrong else [one, two], name="swapped")


def masked(wrong=False):
    tokens = keras.Input((6,), dtype="int32", name="tokens")
    x = layers.Embedding(9, 4, mask_zero=not wrong, name="embed", embeddings_initializer="normal")(tokens)
    x = layers.GlobalAveragePooling1D(name="mean")(layers.Dropout(0.5, name="drop")(x))
    return keras.Model(tokens, faint(layers.Reshape((1, 1, 4), name="shape")(x), "last"), name="masked")


class Own(keras.Model):
    """A subclassed model, which the bridge traces."""

    def __init__(self):
        super().__init__(name="own")
        self.part = inner("part")

    def call(self, inputs):
        return self.part(self.part(inputs))


def around_subclassed():
    x = image()
    return keras.Model(x, Own()(x), name="around_subclassed")


@pytest.mark.parametrize(
    "make", [chain, sequential, around_nested, shared, two_in_two_out, swapped, masked, around_subclassed], ids=lambda make: make.__name__
)
def test_rounding_that_is_multiplied_passes(make):
    model = make()
    record = check_parity(model, to_tf_keras(model))
    assert not within(record.max_abs_error, record.output_scale, LOOSE)
    assert record.layer.startswith(f"{model.name}/")
    assert "bn_" in record.layer
    assert 0.0 < record.layer_error < 1e-2
    assert type(record).from_dict(record.to_dict()) == record


def test_to_keras_passes_too():
    model = chain()
    fresh = to_keras(to_tf_keras(model), model)
    np.testing.assert_array_equal(fresh.get_layer("conv_b").kernel, model.get_layer("conv_b").kernel)


def test_no_layer_is_named_where_the_outputs_agree():
    x = image()
    model = keras.Model(x, layers.Conv2D(3, 1)(x))
    record = check_parity(model, to_tf_keras(model))
    assert (record.layer, record.layer_error) == (None, None)


def moved(layer, weight, index, by):
    def change(model):
        variable = getattr(model.get_layer(layer), weight)
        value = variable.numpy()
        value[index] *= by
        variable.assign(value)

    return change


def other_epsilon(model):
    model.get_layer("bn_b").epsilon *= 1.1


def inside(change):
    return lambda model: change(model.get_layer("core"))


WRONG = {
    "a weight at the start": (chain, moved("conv_a", "kernel", (0, 0, 1, 2), 1.1), r"'chain/conv_a' \(.*Conv2D\)"),
    "a weight after the noise": (chain, moved("conv_c", "kernel", (0, 0, 1, 2), 1.1), r"'chain/conv_c' \(.*Conv2D\)"),
    "a bias": (chain, moved("conv_b", "bias", 3, 1 + 1e-5), r"'chain/conv_b' \(.*Conv2D\)"),
    "a setting": (chain, other_epsilon, r"'chain/bn_b' \(.*BatchNormalization\)"),
    "a statistic": (chain, moved("bn_c", "moving_mean", 0, 1 + 1e-4), r"'chain/bn_c' \(.*BatchNormalization\)"),
    "inside a nested model": (
        around_nested,
        inside(moved("conv_inside", "bias", 0, 1 + 1e-5)),
        r"'around_nested/core/conv_inside' \(.*Conv2D\)",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_one_wrong_number_is_found_amid_rounding(name):
    make, change, words = WRONG[name]
    model = make()
    rebuilt = to_tf_keras(model)
    change(rebuilt)
    with pytest.raises(BridgeError, match=f"first layer that differs is {words}"):
        check_parity(model, rebuilt)


def test_a_wrong_number_in_a_quiet_channel_is_found():
    x = image()
    quiet = layers.Conv2D(4, 1, use_bias=False, name="quiet")(x)
    model = keras.Model(x, faint(layers.BatchNormalization(epsilon=1e-13, name="loud")(quiet), "last"), name="model")
    kernel = model.get_layer("quiet").kernel
    kernel.assign(kernel * np.array([1.0, 1.0, 1.0, 1e-6], "float32"))
    model.get_layer("loud").moving_variance.assign([1.0, 1.0, 1.0, 1e-12])
    rebuilt = to_tf_keras(model)
    moved("quiet", "kernel", (0, 0, 0, 3), 1.01)(rebuilt)  # a hundred-millionth of the layer's largest output
    with pytest.raises(BridgeError, match="'model/quiet'"):
        check_parity(model, rebuilt)


WIRES = {
    "another layer's output": (chain, r"'chain/join'.*reads the outputs of 'image'"),
    "a nested model's input": (around_nested, r"'around_nested/core'.*reads the outputs of 'bn_one'"),
    "another call of the same layer": (shared, r"'shared/join'"),
    "the order of two inputs": (two_in_two_out, r"'two_in_two_out/less'"),
    "the order of two outputs": (swapped, r"'swapped' agree, but its outputs"),
    "a mask": (masked, r"'masked/mean'"),
}


@pytest.mark.parametrize("name", WIRES)
def test_a_wrong_connection_of_right_layers_is_found(name):
    make, words = WIRES[name]
    model, other = make(), make(wrong=True)
    for layer in model.layers:
        other.get_layer(layer.name).set_weights(layer.get_weights())
    with pytest.raises(BridgeError, match=words):
        check_parity(model, to_tf_keras(other))


def test_randomness_is_not_taken_for_rounding():
    x = image()
    model = keras.Model(x, layers.Dropout(0.5, name="drop")(x))
    with pytest.raises(BridgeError, match="/drop'"):
        check_parity(model, to_tf_keras(model), training=True)


def test_a_tf_keras_model_without_a_graph_is_still_compared():
    model = chain()
    rebuilt = to_tf_keras(model)

    class Subclassed(type(rebuilt).__mro__[1]):
        def call(self, inputs):
            return rebuilt(inputs)

    with pytest.raises(BridgeError, match="no single layer"):
        check_parity(model, Subclassed())


@pytest.mark.slow
def test_a_deep_net_with_dead_channels():
    keras.utils.set_random_seed(0)
    model = keras.applications.EfficientNetV2B0(weights=None, input_shape=(32, 32, 3))
    # Statistics of one batch, with dropout: without it no channel is dead.
    for layer in model._flatten_layers():
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = 0.0
    model(np.random.default_rng(0).uniform(0.0, 255.0, (32, 32, 32, 3)).astype("float32"), training=True)
    record = check_parity(model, to_tf_keras(model))
    assert not within(record.max_abs_error, record.output_scale, 1e-3)
    assert record.layer_error < 1e-6
