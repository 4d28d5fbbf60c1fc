"""Checks what a quantization step returned: that training has kept the zeros and clusters of the weights."""

import numpy as np

from tfdistill.bridge.adopt import introspection
from tfdistill.bridge.adopt.adopt import AdoptedModel
from tfdistill.bridge.adopt.trained_ranges import quantized_layers, require_trained_ranges
from tfdistill.bridge.wrappers.base import variable_at
from tfdistill.bridge.wrappers.quantization import is_quantized_layer
from tfdistill.compress import kernels
from tfdistill.errors import InvariantError


def check_quantized(model, step):
    """Checks that a model trains or computes quantized, with ranges, and has kept the zeros and clusters of its weights.

    Args:
        model: The model.
        step: Name of the step whose result it should be.

    Raises:
        InvariantError: if it is not quantized, or has lost zeros or clusters.
    """
    layers = quantized_layers(model.legacy) if isinstance(model, AdoptedModel) else []
    if not layers:
        raise InvariantError(f"The model '{model.name}' holds no quantizers.", f"the model that {step}.apply returned, or its checkpoint")
    require_trained_ranges(model)
    if wrong := [text for layer in layers for text in wrong_structure(layer)]:
        raise InvariantError(
            f"Sparsity or clusters were not kept: {'; '.join(wrong)}.", "zeros that stay zero, and one value for each cluster"
        )


def wrong_structure(layer):
    """Yields a text for each mask and each weight whose zeros or clusters a quantization wrapper has not kept."""
    for weight, mask in introspection.masks_of(layer):
        lost = int(np.sum((np.asarray(mask) == 0) & (np.asarray(weight) != 0)))
        if lost:
            yield f"'{layer.layer.name}' lost {lost} of {kernels.zeros(np.asarray(mask))} zeros"
    if is_quantized_layer(layer):
        for path, members in layer.members.items():
            apart = _count_apart(np.asarray(variable_at(layer.layer, path)), np.asarray(members))
            if apart:
                yield f"'{layer.layer.name}' {path} has {apart} clusters whose members moved apart"


def _count_apart(value, members):
    """Counts the clusters whose members differ by more than rounding."""
    flat, index = value.reshape(-1).astype("float64"), members.reshape(-1)
    low, high = np.full(index.max() + 1, np.inf), np.full(index.max() + 1, -np.inf)
    np.minimum.at(low, index, flat)
    np.maximum.at(high, index, flat)
    held = np.isfinite(low)
    return int(np.sum(high[held] - low[held] > 1e-4 * np.abs(flat).max()))
