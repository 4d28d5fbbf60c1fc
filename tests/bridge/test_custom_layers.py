"""Layers that the bridge does not know are opened, or run as they are: outputs, training and the way back."""

import custom_layers
import keras
import numpy as np
import pytest

from tfdistill.bridge import check_parity, to_keras, to_tf_keras
from tfdistill.bridge.parity.check import random_inputs
from tfdistill.graph.functional import as_functional
from tfdistill.graph.tracing import open_model

ROWS = custom_layers.MODELS


def inputs_of(model):
    return random_inputs(as_functional(open_model(model)), seed=5, batch_size=3)


def outputs(model, x):
    return [np.asarray(y) for y in keras.tree.flatten(model(x, training=False))]


SLOW = (
    "called twice",
    "layer scale",
    "lists and dicts of layers",
    "private layers without a config",
    "squeeze and excite",
    "in two places",
)
SLOW += ("own RMS normalization", "gated MLP", "a block called twice", "nested", "convolution and normalization", "own dense layer")


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else []) for name in ROWS])
def test_the_copy_computes_the_same_has_paths_and_goes_back(name):
    model = custom_layers.build(name)
    x, before = inputs_of(model), [np.array(v) for v in model.variables]
    shapes = [weight.shape for weight in model.weights]
    rebuilt = to_tf_keras(model)
    assert check_parity(as_functional(open_model(model)), rebuilt).max_abs_error <= 1e-5
    for ours, theirs in zip(outputs(model, x), outputs(rebuilt, x), strict=True):
        np.testing.assert_allclose(theirs, ours, atol=1e-5)
    assert set(ROWS[name][1]) <= {layer.name for layer in rebuilt.layers}
    assert len(rebuilt.trainable_weights) == len(model.trainable_weights)
    assert sum(np.prod(w.shape) for w in rebuilt.weights) == sum(np.prod(w.shape) for w in model.weights)
    for weight in rebuilt.weights:
        weight.assign_add(np.full(weight.shape, 0.05, weight.dtype.name))
    back = to_keras(rebuilt, model)
    assert [type(layer).__name__ for layer in back.layers] == [type(layer).__name__ for layer in model.layers]
    for ours, theirs in zip(outputs(rebuilt, x), outputs(back, x), strict=True):
        np.testing.assert_allclose(theirs, ours, atol=1e-5)
    assert [weight.shape for weight in back.weights] == shapes
    for one, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(one, value)
