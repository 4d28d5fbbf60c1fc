"""What must hold after quantization-aware training, in the model and in its file."""

import numpy as np

from tfdistill.compress import kernels
from tfdistill.errors import InvariantError
from tfdistill.legacy import adopt_scope as scope
from tfdistill.legacy import door
from tfdistill.legacy.adopt import named_layers
from tfdistill.legacy.adopt_quantizing import is_quantized_layer
from tfdistill.legacy.adopt_wrapping import variable_at


def quantized_layers(legacy):
    """Lists the quantization wrappers in a tf_keras model, this library's and TFMOT's."""
    return [layer for layer in legacy._flatten_layers() if scope.is_quantized(layer)]


def wrong_ranges(layer):
    """Yields what is wrong with the ranges of a quantization wrapper: every range starts at -6 to 6, and training moves it with the first batch."""
    for what, low, high in scope.ranges_of(layer):
        if np.all(np.asarray(low) == -6) and np.all(np.asarray(high) == 6):
            yield f"'{layer.layer.name}' {what} is -6 to 6, as it began"


def not_finite(legacy):
    """Yields what is NaN or infinite in a tf_keras model with quantizers: ranges in the order of the layers, of which the first is the cause, then weights.

    A batch that turns NaN in one layer makes ranges NaN behind it alone, but by its gradients all weights.
    """
    layers = named_layers(legacy, inputs=True)
    for path, layer in layers.items():
        if scope.is_input_quantizer(layer):
            if not _finite(layer.weights):
                yield f"the input '{layer.name.removeprefix('quantize_')}'"
        elif scope.is_quantized(layer):
            yield from (f"'{path}' ({what})" for what, *pair in scope.ranges_of(layer) if not _finite(pair))
    for path, layer in layers.items():
        if not scope.is_input_quantizer(layer) and not isinstance(layer, door.tf_keras().Model) and not _finite(scope.weights_of(layer)):
            yield f"the weights of '{path}'"


def _finite(variables):
    return all(np.isfinite(np.asarray(variable)).all() for variable in variables if variable.dtype.is_floating)


def require_finite(model, when=""):
    """Refuses an adopted model with quantizers whose weights or ranges are NaN or infinite.

    Args:
        model: `AdoptedModel`.
        when: When that was found, for the error: `" in epoch 1, after batch 3"`.

    Raises:
        InvariantError: naming the first places.
    """
    found = list(not_finite(model.legacy))
    if found:
        more = f" and {len(found) - 3} more behind it" if len(found) > 3 else ""
        raise InvariantError(
            f"The quantization-aware model '{model.name}' turned NaN or infinite{when}. First of all {'; then '.join(found[:3])}{more}.",
            "finite data, weights and activations",
            "look at the data if it is an input; else begin again from the model that `apply` was given, with a lower learning rate, "
            "or leave the layer named first out: QuantizeAware(exclude=...)",
        )


def wrong_structure(layer):
    """Yields what a quantization wrapper has lost of its zeros and clusters."""
    for weight, mask in scope.masks_of(layer):
        lost = int(np.sum((np.asarray(mask) == 0) & (np.asarray(weight) != 0)))
        if lost:
            yield f"'{layer.layer.name}' lost {lost} of {kernels.zeros(np.asarray(mask))} zeros"
    if is_quantized_layer(layer):
        for path, members in layer.members.items():
            apart = _apart(np.asarray(variable_at(layer.layer, path)), np.asarray(members))
            if apart:
                yield f"'{layer.layer.name}' {path} has {apart} clusters whose members moved apart"


def _apart(value, members):
    """Counts the clusters whose members differ by more than rounding."""
    flat, index = value.reshape(-1).astype("float64"), members.reshape(-1)
    low, high = np.full(index.max() + 1, np.inf), np.full(index.max() + 1, -np.inf)
    np.minimum.at(low, index, flat)
    np.maximum.at(high, index, flat)
    held = np.isfinite(low)
    return int(np.sum(high[held] - low[held] > 1e-4 * np.abs(flat).max()))
