"""Keras 3 -> tf_keras -> Keras 3: equal outputs, equal names, equal weights."""

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from zoo_models import FAMILIES, SMALL, family, randomize

from tfdistill.legacy import check_parity, to_keras, to_tf_keras
from tfdistill.legacy.graph import as_functional, is_sequential
from tfdistill.legacy.parity import random_inputs
from tfdistill.legacy.tracing import open_model

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


def round_trip(model):
    """Goes there and back; returns the largest difference."""
    weights = [w.numpy() for w in model.weights]
    opened = model if is_sequential(model) else open_model(model)
    rebuilt = to_tf_keras(model)
    error = check_parity(opened, rebuilt).max_abs_error
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
    assert [w.name for w in fresh.weights] == [w.name for w in model.weights]
    assert [layer.name for layer in fresh.layers] == [layer.name for layer in model.layers]
    return error


@pytest.mark.parametrize("name", SMALL)
def test_small_models(name):
    assert round_trip(randomize(SMALL[name]())) <= BOUND


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_families(name):
    assert round_trip(family(name)) <= BOUND


@pytest.mark.parametrize("name", ["two_in_two_out", "nested", "siamese"])
def test_structures_and_predictions_agree(name):
    model = randomize(SMALL[name]())
    inputs = random_inputs(as_functional(model), seed=3, batch_size=5)
    ours, theirs = model(inputs), to_tf_keras(model)(inputs)
    assert type(ours) is type(theirs) or not isinstance(ours, dict)
    keras.tree.map_structure(lambda a, b: np.testing.assert_allclose(a, b, atol=BOUND, rtol=0), ours, theirs)


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
    assert check_parity(model, to_tf_keras(model, check=False), seed=seed).max_abs_error <= BOUND
