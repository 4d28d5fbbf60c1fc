"""The precision that the layers of a model compute in."""

import contextlib

import keras

from tfdistill.bridge.adopt.adopt import AdoptedModel
from tfdistill.graph.layers import all_layers

_HALVES = ("float16", "bfloat16")


@contextlib.contextmanager
def in_float32(model):
    """While open, all layers of a model compute in float32, whatever their dtype policies: those of a .tflite file have no other float type.

    Weights stay as they are; a layer casts them as it does in mixed precision.

    Args:
        model: A built Keras 3 model, or an adopted tf_keras model.
    """
    layers = all_layers(model.legacy) if isinstance(model, AdoptedModel) else all_layers(model)
    # A hosted Keras 3 layer is no layer of the one that hosts it.
    hosted = [inner for layer in layers if hasattr(layer, "_hosted") for inner in all_layers(layer._hosted.layer)]
    changed = []
    try:
        for layer in [*layers, *hosted]:
            if layer.compute_dtype in _HALVES:
                changed.append((layer, layer.dtype_policy))
                _set_policy(layer, "float32")
        yield
    finally:
        for layer, policy in changed:
            _set_policy(layer, policy)


def _set_policy(layer, policy):
    if isinstance(layer, keras.layers.Layer):
        layer.dtype_policy = policy
    else:
        layer._set_dtype_policy(policy)  # tf_keras has no public way
