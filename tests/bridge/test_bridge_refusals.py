"""What the bridge refuses, its messages, and that its own checks can fail."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops
from zoo_models import SMALL, nested, randomize

from tfdistill.bridge import check_parity, host, register_bridge, to_keras, to_tf_keras
from tfdistill.bridge.convert import layers as convert_layers
from tfdistill.bridge.convert.weights import pair_weights
from tfdistill.bridge.imports import tf_keras
from tfdistill.bridge.parity.check import within
from tfdistill.errors import BridgeError, ModelError


def sequence(*parts, shape=(6,), dtype="float32"):
    return keras.Sequential([keras.Input(shape, dtype=dtype), *parts], name="model")


class Doubled(layers.Dense):
    """Looks like Dense, but is not."""

    def call(self, inputs):
        return 2.0 * super().call(inputs)


class Opaque(layers.Layer):
    """Works on no symbolic tensors, and Keras cannot find it by its name."""

    def call(self, inputs):
        return tf.math.square(inputs)  # the opaque line

    def get_config(self):
        raise NotImplementedError  # or it would run as it is


class Untraceable(keras.Model):
    def __init__(self):
        super().__init__(name="untraceable")
        self.dense = layers.Dense(2)

    def call(self, inputs):
        return self.dense(tf.math.square(inputs))  # the line


class OfMany(keras.Model):
    def __init__(self):
        super().__init__(name="of_many")
        self.dense = layers.Dense(2)

    def call(self, one, other):
        return self.dense(one) + self.dense(other)


class Own(keras.regularizers.Regularizer):
    def __call__(self, x):
        return ops.sum(x)

    def get_config(self):
        return {}


def built(model, *inputs):
    model(*inputs)
    return model


def twice_used_variable():
    variable = keras.Variable(np.ones(6, "float32"), name="shared")
    inputs = keras.Input((6,))
    return keras.Model(inputs, ops.add(inputs, variable) * variable)


def optional_input():
    inputs = keras.Input((6,), name="maybe", optional=True)
    return keras.Model(inputs, layers.Dense(2)(inputs))


def quantized():
    model = sequence(layers.Dense(4, name="eight"))
    model.layers[0].quantize("int8")
    return model


def data():
    return np.zeros((2, 6), "float32")


REFUSALS = {
    "not a model": (lambda: "model.keras", ModelError, ["builtins.str", "built keras.Model"]),
    "a tf_keras model": (lambda: tf_keras().Sequential([tf_keras().layers.Dense(1)]), ModelError, ["tf_keras model needs no bridge"]),
    "unbuilt Sequential": (lambda: keras.Sequential([layers.Dense(2)], name="bare"), ModelError, ["'bare'", "not built", "keras.Input"]),
    "unbuilt subclass": (lambda: Untraceable(), ModelError, ["'untraceable'", "not built"]),
    "a custom layer": (
        lambda: sequence(Opaque(name="own")),
        BridgeError,
        ["'model/own'", "tf.math.square(inputs)  # the opaque line", "register_keras_serializable", "register_bridge(Opaque"],
    ),
    "a custom layer, nested": (
        lambda: sequence(keras.Sequential([keras.Input((6,)), Opaque(name="own")], name="inner")),
        BridgeError,
        ["'model/inner/own'"],
    ),
    "a Lambda": (lambda: sequence(layers.Lambda(lambda x: x * 2, name="fun")), BridgeError, ["'model/fun'", "allow_lambda=True"]),
    "text": (lambda: sequence(layers.StringLookup(vocabulary=["a"], name="words"), dtype="string"), BridgeError, ["text"]),
    "an own regularizer": (lambda: sequence(layers.Dense(2, kernel_regularizer=Own(), name="reg")), BridgeError, ["'model/reg'", "Own"]),
    "quantized already": (quantized, BridgeError, ["'model/eight'", "already quantized"]),
    "an optional input": (optional_input, BridgeError, ["'maybe'", "optional"]),
    "a variable of two operations": (twice_used_variable, BridgeError, ["shared", "add", "multiply"]),
    "not traceable": (lambda: built(Untraceable(), data()), BridgeError, ["tf.math.square(inputs))  # the line", __file__.rsplit("/")[-1]]),
    "several arguments": (lambda: built(OfMany(), data(), data()), BridgeError, ["'of_many'", "one argument"]),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals_name_the_place_and_the_remedy(name):
    make, error, words = REFUSALS[name]
    with pytest.raises(error) as caught:
        to_tf_keras(make())
    for word in words:
        assert word in str(caught.value)
    assert caught.value.happened


def test_parity_names_the_first_layer_that_differs():
    model = randomize(nested())
    rebuilt = to_tf_keras(model)
    weight = rebuilt.get_layer("middle").get_layer("inner").layers[2].beta
    weight.assign_add(np.full(weight.shape, 1e-3, "float32"))
    with pytest.raises(BridgeError, match=r"'nested/middle/inner/batch_normalization\w*'.*BatchNormalization"):
        check_parity(model, rebuilt)


@pytest.mark.parametrize("change", ["inference", "training"])
def test_parity_sees_a_small_change(change):
    model = sequence(layers.BatchNormalization(epsilon=1e-3), layers.Dense(2, name="last"))
    rebuilt = to_tf_keras(model)
    if change == "training":
        rebuilt.layers[0].epsilon = 2e-3
    else:
        rebuilt.layers[1].kernel.assign_add(np.full((6, 2), 1e-4, "float32"))
    with pytest.raises(BridgeError, match="first layer that differs"):
        check_parity(model, rebuilt, training=change == "training")


def test_the_tolerance_is_a_share_of_the_scale():
    assert within(1e-7, 0.0, 1e-6)
    assert within(0.9e-6, 1.0, 1e-6)
    assert not within(1.1e-6, 1.0, 1e-6)
    assert not within(2e-7, 0.01, 1e-6)
    assert not within(float("inf"), 1.0, 1e-6)


def test_parity_changes_neither_model():
    model = randomize(SMALL["conv1d_net"]())
    rebuilt = to_tf_keras(model)
    before = [*model.get_weights(), *rebuilt.get_weights()]
    check_parity(model, rebuilt, training=True)
    for a, b in zip(before, [*model.get_weights(), *rebuilt.get_weights()], strict=True):
        np.testing.assert_array_equal(a, b)


def test_to_keras_names_a_missing_layer():
    model = sequence(layers.Dense(4, name="first"), layers.Dense(2, name="second"))
    rebuilt = to_tf_keras(sequence(layers.Dense(4, name="first"), layers.Dense(2, name="secund")))
    with pytest.raises(BridgeError, match=r"'model/second'.*Nearest: 'secund'"):
        to_keras(rebuilt, model)


def test_functions_of_one_name_stay_apart_and_unregistered_ones_do_not_come_back():
    def power(n):
        def raised(x):
            return x**n

        return raised

    model = sequence(layers.Activation(power(2)), layers.Activation(power(3)))
    rebuilt = to_tf_keras(model)
    np.testing.assert_allclose(rebuilt(np.full((1, 6), 2.0, "float32")), np.full((1, 6), 64.0))
    with pytest.raises(BridgeError, match=r"get_config[\s\S]*register_keras_serializable"):
        to_keras(rebuilt, model)


def test_weights_that_do_not_match():
    model = sequence(layers.Dense(4, name="first"))
    rebuilt = to_tf_keras(sequence(layers.Dense(5, name="first")))
    with pytest.raises(BridgeError, match=r"'model/first'.*do not match"):
        to_keras(rebuilt, model)


def test_weights_pair_by_name_then_by_order():
    def variable(name, value):
        return keras.Variable(np.full(3, value, "float32"), name=name)

    pairs = pair_weights([variable("a", 1), variable("b", 2)], [variable("b", 0), variable("a", 0)], "x")
    assert [(s.name, t.name) for s, t in pairs] == [("b", "b"), ("a", "a")]
    pairs = pair_weights([variable("a", 1), variable("b", 2)], [variable("c", 0), variable("d", 0)], "x")
    assert [(s.name, t.name) for s, t in pairs] == [("a", "c"), ("b", "d")]
    with pytest.raises(BridgeError):
        pair_weights([variable("a", 1)], [variable("a", 0), variable("b", 0)], "x")


@pytest.mark.parametrize("arguments", [(dict, host), (tf_keras().layers.Dense, host), (Doubled, "host")])
def test_what_cannot_be_registered(arguments):
    with pytest.raises(BridgeError):
        register_bridge(*arguments)


class Tripled(Doubled):
    """Registered with a builder that forgets the name."""


def test_a_builder_that_forgets_the_name():
    register_bridge(Tripled, lambda layer, base: tf_keras().layers.Dense(3))
    with pytest.raises(BridgeError, match=r"Tripled[\s\S]*named 'twice'[\s\S]*\*\*base"):
        to_tf_keras(sequence(Tripled(3, name="twice")))


def test_a_registration_does_not_hold_for_subclasses():
    register_bridge(Opaque, host)

    class Again(Opaque):
        pass

    try:
        with pytest.raises(BridgeError, match="Again"):
            to_tf_keras(sequence(Again()))
    finally:
        convert_layers._REGISTERED.pop(Opaque)  # other tests count on its refusal
