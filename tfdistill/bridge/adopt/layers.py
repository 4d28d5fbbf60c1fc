"""Layers of a tf_keras model under the names that the user gave them, wrapped by TFMOT or not."""

from tfdistill.bridge import imports
from tfdistill.bridge.adopt import introspection


def named_layers(legacy, inputs=False):
    """Lists the layers of a live tf_keras model as `AdoptedModel.named_layers` does.

    Args:
        legacy: `tf_keras.Model`.
        inputs: Whether TFMOT's quantizers of its inputs are listed too, first and under their own names.

    Returns:
        Dict of path to layer.
    """
    quantizers = input_quantizers(legacy) if inputs else []
    return {**{layer.name: layer for layer in quantizers}, **dict(walk(legacy))}


def input_quantizers(legacy):
    """Lists the layers by which TFMOT quantizes the inputs of a tf_keras model."""
    return [layer for layer in legacy.layers if introspection.is_input_quantizer(layer)]


def walk(model, prefix=""):
    """Yields (path that the user gave, layer) of every layer of a tf_keras model, nested models' layers after them; quantizers of inputs are left out."""
    for layer in model.layers:
        if introspection.is_input_quantizer(layer):
            continue
        inner = introspection.unwrap(layer)
        yield prefix + inner.name, layer
        if isinstance(inner, imports.tf_keras().Model):
            yield from walk(inner, f"{prefix}{inner.name}/")
