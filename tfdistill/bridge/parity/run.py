"""Runs models of both Keras without changing them, and measures how far apart two outputs are."""

import contextlib

import keras
import numpy as np

from tfdistill.graph.layers import all_layers

_BLOCK = 2**18  # elements


def run_keras(model, inputs, training):
    """Returns the flat outputs of a functional Keras 3 model, as tensors that carry their masks."""
    if not training:
        with keras.StatelessScope():  # a layer of the user's may assign its weights at inference too
            return keras.tree.flatten(model(inputs, training=False))
    outputs, _ = model.stateless_call(
        [v.value for v in model.trainable_variables], [v.value for v in model.non_trainable_variables], inputs, training=True
    )
    return keras.tree.flatten(outputs)


@contextlib.contextmanager
def statistics_kept(tf_keras_model, training):
    """Puts back what running a tf_keras model in training mode moves."""
    before = [(variable, variable.numpy()) for variable in tf_keras_model.non_trainable_weights] if training else []
    try:
        yield
    finally:
        for variable, value in before:
            variable.assign(value)


@contextlib.contextmanager
def each_call_alone(*models):
    """While open, recurrent layers that carry their state from call to call begin every call without one: a layer that runs more than once is to compute the
    same each time. The states that they have stay as they are."""
    layers = [layer for model in models for layer in all_layers(model) if hasattr(layer, "cell") and getattr(layer, "stateful", False)]
    for layer in layers:
        layer.stateful = False
    try:
        yield
    finally:
        for layer in layers:
            layer.stateful = True


def arrays(tensors):
    """Returns tensors, in any structure, as a flat list of NumPy arrays."""
    return [keras.ops.convert_to_numpy(x) for x in keras.tree.flatten(tensors)]


def difference(ours, theirs):
    """Returns the largest difference and the largest absolute value of two arrays; infinite where shapes or NaNs differ.

    In blocks: in double precision at once, a kernel would need several times its memory.
    """
    if ours.shape != theirs.shape:
        return float("inf"), 0.0
    a, b = np.ravel(ours), np.ravel(theirs)
    found = [_difference_of_block(a[start : start + _BLOCK], b[start : start + _BLOCK]) for start in range(0, a.size, _BLOCK)]
    errors, scales = zip(*found, strict=True) if found else ([0.0], [0.0])
    return (max(errors), max(scales)) if np.inf not in errors else (float("inf"), 0.0)


def _difference_of_block(ours, theirs):
    a, b = (np.asarray(x, dtype="float64") for x in (ours, theirs))
    odd = ~np.isfinite(a) | ~np.isfinite(b)
    if not np.array_equal(a[odd], b[odd], equal_nan=True):
        return float("inf"), 0.0
    a, b = a[~odd], b[~odd]
    return (float(np.abs(a - b).max()), float(np.abs(a).max())) if a.size else (0.0, 0.0)
