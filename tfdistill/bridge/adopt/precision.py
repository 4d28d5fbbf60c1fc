"""The precision that the layers of a model compute in."""

import contextlib

import keras

from tfdistill.bridge.adopt.adopt import AdoptedModel
from tfdistill.graph.layers import all_layers

_HALVES = ("float16", "bfloat16")


class _Float32(keras.DTypePolicy):
    """Computes in float32 with weights of another type, which Keras then casts. Keras has no such policy of its own."""

    def __init__(self, weights):
        super().__init__("float32")
        self._weights = weights

    @property
    def variable_dtype(self):
        return self._weights


@contextlib.contextmanager
def in_float32(model):
    """While open, all layers of a model compute in float32, whatever their dtype policies: those of a .tflite file have no other float type.

    A layer casts its weights as it does in mixed precision; where tf_keras would not, copies in float32 stand in for them.

    Args:
        model: A built Keras 3 model, or an adopted tf_keras model.
    """
    layers = all_layers(model.legacy) if isinstance(model, AdoptedModel) else all_layers(model)
    # A hosted Keras 3 layer is no layer of the one that hosts it.
    hosted = [inner for layer in layers if hasattr(layer, "_hosted") for inner in all_layers(layer._hosted.layer)]
    changed, replaced = [], []
    try:
        for layer in [*layers, *hosted]:
            if layer.compute_dtype in _HALVES:
                changed.append((layer, layer.dtype_policy))
                _set_policy(layer, _Float32(layer.variable_dtype) if isinstance(layer, keras.layers.Layer) else "float32")
                replaced += _replace_halves(layer)
        yield
    finally:
        for layer, policy in changed:
            _set_policy(layer, policy)
        for attributes, name, variable in replaced:
            attributes[name] = variable


def _replace_halves(layer):
    """Puts float32 copies in place of a tf_keras layer's half-precision variables; returns a list of (attributes, name, variable)."""
    import tensorflow as tf

    own = {} if isinstance(layer, keras.layers.Layer) else vars(layer)
    found = [(own, name, value) for name, value in own.items() if isinstance(value, tf.Variable) and value.dtype.name in _HALVES]
    for attributes, name, variable in found:
        attributes[name] = tf.cast(variable, "float32")  # past tf_keras's attribute setter: the variable stays the layer's
    return found


def _set_policy(layer, policy):
    if isinstance(layer, keras.layers.Layer):
        layer.dtype_policy = policy
    else:
        layer._set_dtype_policy(policy)  # tf_keras has no public way
