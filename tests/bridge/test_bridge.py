"""Keras 3 -> tf_keras -> Keras 3: equal outputs, equal names, equal weights."""

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from zoo_models import FAMILIES, SMALL, Subclassed, family, randomize

from tfdistill.bridge import check_parity, to_keras, to_tf_keras
from tfdistill.bridge.parity.check import random_inputs
from tfdistill.graph.functional import as_functional, is_sequential
from tfdistill.graph.tracing import open_model

# Two Keras of the same TensorFlow kernels: equal to the bit, but for float32 added up in another order.
BOUND = 1e-6


def names(model):
    """Lists the names of layers that Keras 3 shows, nested ones by path."""
    found = []
    for layer in model.layers:
        found.append(layer.name)
        if hasattr(layer, "layers"):
            found.extend(f"{layer.name}/{name}" for name in names(layer))
    return found


def named(model):
    """Lists names of weights; those that were never given one are numbered by Keras."""
    return ["variable" if w.name.startswith("variable") else w.name for w in model.weights]


def round_trip(model, check=True):
    """Converts a model to tf_keras and back; returns the largest difference, that of a layer where the net amplifies rounding.

    Without `check`, the two are compared once, here, and not by the conversion before.
    """
    weights = [w.numpy() for w in model.weights]
    opened = model if is_sequential(model) else open_model(model)
    rebuilt = to_tf_keras(model, check=check)
    found = check_parity(opened, rebuilt)
    assert set(names(opened)) <= set(names(rebuilt))
    assert rebuilt.name == model.name
    for weight in rebuilt.weights:  # a change there must come back, and must not reach `model`
        weight.assign_add(np.full(weight.shape, 0.01, "float32"))
    fresh = to_keras(rebuilt, model)
    for before, after in zip(weights, model.weights, strict=True):
        np.testing.assert_array_equal(before, after.numpy())
    learned = {w.path for layer in opened.layers if isinstance(layer, keras.layers.Normalization) for w in layer.weights}
    for old, before, after in zip(model.weights, weights, fresh.weights, strict=True):
        step = np.float32(0.0 if old.path in learned else 0.01)  # data statistics are settings there, not weights
        np.testing.assert_array_equal(before + step, after.numpy())
    assert fresh.name == model.name
    assert type(fresh) is type(model)
    assert named(fresh) == named(model)
    assert [layer.name for layer in fresh.layers] == [layer.name for layer in model.layers]
    return found.max_abs_error if found.layer is None else found.layer_error


@pytest.mark.parametrize("name", SMALL)
def test_small_models(name):
    assert round_trip(randomize(SMALL[name]())) <= BOUND


# Hundreds of layers of kinds that the others have, too.
# One of each kind of block; `make zoo` takes all of them through more.
FEW = ("VGG16", "MobileNetV3Small", "EfficientNetB0", "ResNet50V2", "ConvNeXtTiny")


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow if name in FEW else pytest.mark.release) for name in FAMILIES])
def test_families(name):
    keras.utils.set_random_seed(0)
    assert round_trip(family(name), check=False) <= BOUND


@pytest.mark.parametrize("name", ["two_in_two_out", "nested", "siamese"])
def test_structures_and_predictions_agree(name):
    model = randomize(SMALL[name]())
    inputs = random_inputs(as_functional(model), seed=3, batch_size=5)
    ours, theirs = model(inputs), to_tf_keras(model)(inputs)
    assert type(ours) is type(theirs) or not isinstance(ours, dict)
    keras.tree.map_structure(lambda a, b: np.testing.assert_allclose(a, b, atol=BOUND, rtol=0), ours, theirs)


def shared_across():
    """A layer used inside a nested model and outside, and a nested model inside a layer that repeats it."""
    dense = keras.layers.Dense(6, name="shared")
    inner = keras.Sequential([keras.Input((6,)), dense, keras.layers.ReLU()], name="inner")
    inputs = keras.Input((4, 6), name="steps")
    x = keras.layers.TimeDistributed(inner, name="each")(inputs)
    return keras.Model(inputs, dense(keras.layers.Flatten()(x)[:, :6]), name="shared_across")


def subclassed_inside():
    inputs = keras.Input((7,), name="x")
    inner = Subclassed(name="own")
    return keras.Model(inputs, keras.layers.Dense(2, name="last")(inner(keras.layers.Dense(7, name="first")(inputs))), name="outer")


def dict_inside():
    inner_in = keras.Input((5,), name="a")
    inner = keras.Model(
        {"a": inner_in}, {"z": keras.layers.Dense(3, name="z")(inner_in), "b": keras.layers.Dense(4, name="b")(inner_in)}, name="inner"
    )
    inputs = keras.Input((5,), name="x")
    out = inner({"a": inputs * 2.0})
    return keras.Model(inputs, [out["z"], keras.layers.Dense(1, name="last")(out["b"])], name="dicts")


def cut_from_another():
    """A model whose input is another model's inner tensor."""
    whole = SMALL["conv1d_net"]()
    return keras.Model(whole.layers[2].output, whole.output, name="tail")


@pytest.mark.parametrize("make", [shared_across, subclassed_inside, dict_inside, cut_from_another])
def test_structures(make):
    assert round_trip(randomize(make())) <= BOUND


def test_a_shared_layer_stays_one_layer():
    model = shared_across()
    rebuilt = to_tf_keras(model)
    assert len(rebuilt.weights) == len(to_keras(rebuilt, model).weights) == len(model.weights) == 2


def test_a_subclass_without_config_comes_back_functional():
    class Bare(keras.Model):
        def __init__(self, width):
            super().__init__(name="bare")
            self.dense = keras.layers.Dense(width, name="dense")

        def call(self, inputs):
            return self.dense(inputs) * 2.0

    model = Bare(3)
    model(np.zeros((1, 4), "float32"))
    fresh = to_keras(to_tf_keras(randomize(model)), model)
    assert isinstance(fresh, keras.Function)
    np.testing.assert_array_equal(fresh(np.ones((2, 4), "float32")), model(np.ones((2, 4), "float32")))


# Layers that keep an image's size and number of channels, so that any two can follow each other or be merged.
KEEPERS = (
    lambda x: keras.layers.Conv2D(4, 3, padding="same", activation="relu")(x),
    lambda x: keras.layers.DepthwiseConv2D(3, padding="same")(x),
    lambda x: keras.layers.BatchNormalization()(x),
    lambda x: keras.layers.GroupNormalization(2)(x),
    lambda x: keras.layers.ReLU(6.0)(x),
    lambda x: keras.layers.Dropout(0.5)(x),
    lambda x: x * keras.ops.mean(x, axis=(1, 2), keepdims=True),
    lambda x: 1.0 - keras.ops.sigmoid(x),
)


@given(st.lists(st.tuples(st.integers(0, len(KEEPERS) - 1), st.integers(0, 20)), min_size=1, max_size=6), st.integers(0, 2**16))
@settings(max_examples=12, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_graph(steps, seed):
    """Each step applies a layer to any earlier tensor and, every second time, adds the newest one."""
    inputs = keras.Input((6, 6, 4), name="image")
    made = [inputs]
    for i, (kind, source) in enumerate(steps):
        x = KEEPERS[kind](made[source % len(made)])
        made.append(keras.layers.Add()([x, made[-1]]) if i % 2 else x)
    model = randomize(keras.Model(inputs, [made[-1], keras.layers.GlobalAveragePooling2D()(made[-1])]), seed)
    found = check_parity(model, to_tf_keras(model, check=False), seed=seed)
    # One rounding of a float32 of 16 is 1e-6 already, and kernels of other TensorFlow versions round otherwise.
    assert found.max_abs_error <= BOUND * max(found.output_scale, 1.0)


class OfTwo(keras.Model):
    """Its call takes two tensors."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(3, name="both")

    def call(self, x, y):
        return self.dense(x) + self.dense(y)


class OfWholeNumbers(keras.Model):
    """Its call works on whole numbers only, which Keras keeps no record of."""

    def __init__(self):
        super().__init__()
        self.embedding = keras.layers.Embedding(8, 4)

    def call(self, inputs):
        if not keras.backend.is_int_dtype(inputs.dtype):
            raise TypeError(f"{inputs.dtype} is no type of whole numbers")
        return keras.ops.mean(self.embedding(inputs), axis=1)


def test_a_subclassed_model_inside_has_the_types_of_its_call():
    inputs = keras.Input((5,), dtype="int32")
    assert round_trip(randomize(keras.Model(inputs, OfWholeNumbers()(inputs)))) <= BOUND


def test_a_subclassed_model_inside_whose_call_takes_two_is_opened_in_place():
    inputs = [keras.Input((6,), name="x"), keras.Input((6,), name="y")]
    model = randomize(keras.Model(inputs, keras.layers.Dense(2)(OfTwo(name="two")(*inputs))))
    rebuilt = to_tf_keras(model)
    assert "two/both" in names(rebuilt)
    for weight in rebuilt.weights:
        weight.assign_add(np.full(weight.shape, 0.01, "float32"))
    fresh, x = to_keras(rebuilt, model), [np.ones((3, 6), "float32"), np.zeros((3, 6), "float32")]
    assert type(fresh.get_layer("two")) is OfTwo
    np.testing.assert_allclose(fresh(x), rebuilt(x), atol=BOUND)
