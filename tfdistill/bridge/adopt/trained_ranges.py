"""Whether quantization-aware training has moved the ranges of a model, and left it finite."""

import numpy as np

from tfdistill.bridge import imports
from tfdistill.bridge.adopt import introspection
from tfdistill.bridge.adopt.adopt import AdoptedModel
from tfdistill.bridge.adopt.layers import named_layers
from tfdistill.bridge.wrappers.quantization import is_quantized_layer
from tfdistill.bridge.wrappers.quantization_settings import are_floats
from tfdistill.errors import InvariantError
from tfdistill.graph.layers import all_layers
from tfdistill.utils.finite import is_finite


def quantized_layers(legacy):
    """Lists the quantization wrappers in a tf_keras model, this library's and TFMOT's."""
    return [layer for layer in all_layers(legacy) if introspection.is_quantized(layer)]


def float_layers(legacy):
    """Lists the names of the layers of a tf_keras model with quantizers that have a part in float by the user's choice, in the file too."""
    layers = [layer for layer in all_layers(legacy) if is_quantized_layer(layer)]
    return [layer.layer.name for layer in layers if are_floats(layer.quantization)]


def wide_layers(legacy):
    """Lists the names of the layers of a tf_keras model with quantizers whose activations have 16 bits."""
    layers = [layer for layer in all_layers(legacy) if is_quantized_layer(layer)]
    return [layer.layer.name for layer in layers if layer.quantization.wide]


def wrong_ranges(layer):
    """Yields a text for every range of a quantization wrapper that was never trained: it starts at -6 to 6, and the first batch of training moves it."""
    for what, low, high in introspection.ranges_of(layer):
        if np.all(low.numpy() == -6) and np.all(high.numpy() == 6):
            yield f"'{layer.layer.name}' {what} is -6 to 6, as it began"


def not_finite(legacy):
    """Yields what is NaN or infinite in a tf_keras model with quantizers: ranges in the order of the layers, of which the first is the cause, then weights.

    A batch that turns NaN in one layer makes ranges NaN behind it alone, but by its gradients all weights.
    """
    layers = named_layers(legacy, inputs=True)
    for path, layer in layers.items():
        if introspection.is_input_quantizer(layer):
            if not _finite(layer.weights):
                yield f"the input '{layer.name.removeprefix('quantize_')}'"
        elif introspection.is_quantized(layer):
            yield from (f"'{path}' ({what})" for what, *pair in introspection.ranges_of(layer) if not _finite(pair))
    for path, layer in layers.items():
        if (
            not introspection.is_input_quantizer(layer)
            and not isinstance(layer, imports.tf_keras().Model)
            and not _finite(introspection.weights_of(layer))
        ):
            yield f"the weights of '{path}'"


def _finite(variables):
    return all(is_finite(variable.numpy()) for variable in variables if variable.dtype.is_floating)


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


def require_trained_ranges(model):
    """Checks that training has set every range of a quantization-aware model.

    Args:
        model: A Keras model; one without quantizers has no ranges and passes.

    Raises:
        InvariantError: naming every range that is as it began, or what is NaN or infinite.
    """
    layers = quantized_layers(model.legacy) if isinstance(model, AdoptedModel) else []
    if layers:
        require_finite(model)
    wrong = [text for layer in layers for text in wrong_ranges(layer)]
    if wrong:
        raise InvariantError(
            f"Ranges of '{model.name}' were never trained: {'; '.join(wrong)}.",
            "ranges that training has seen data for",
            "train the model with fit",
        )
