"""Finds the user's layer, weights and masks inside TFMOT's wrappers and this library's."""

import functools

import numpy as np

from tfdistill.bridge import imports
from tfdistill.bridge.wrappers.base import variable_at
from tfdistill.bridge.wrappers.clustering import is_clustered
from tfdistill.bridge.wrappers.pruning import is_pruned_layer
from tfdistill.bridge.wrappers.quantization import is_quantized_layer


@functools.cache
def wrapper_classes():
    """Returns the tuple of TFMOT classes that wrap one layer: pruning, clustering, quantization."""
    imports.tfmot()
    from tensorflow_model_optimization.python.core.clustering.keras.cluster_wrapper import ClusterWeights
    from tensorflow_model_optimization.python.core.quantization.keras.quantize_wrapper import QuantizeWrapper
    from tensorflow_model_optimization.python.core.sparsity.keras.pruning_wrapper import PruneLowMagnitude

    return PruneLowMagnitude, ClusterWeights, QuantizeWrapper


@functools.cache
def quantize_layer_class():
    """Returns TFMOT's `QuantizeLayer`, which it puts behind every input."""
    imports.tfmot()
    from tensorflow_model_optimization.python.core.quantization.keras.quantize_layer import QuantizeLayer

    return QuantizeLayer


def _from_tfmot(layer):
    return type(layer).__module__.startswith("tensorflow_model_optimization.")


def is_wrapper(layer):
    """Says whether `layer` wraps a user's layer for pruning, clustering or quantization. Does not import TFMOT when it was never used."""
    own = is_clustered(layer) or is_pruned_layer(layer) or is_quantized_layer(layer)
    return own or (_from_tfmot(layer) and isinstance(layer, wrapper_classes()))


def is_input_quantizer(layer):
    """Says whether `layer` is the quantizer that TFMOT puts behind an input: no layer of the user's."""
    return _from_tfmot(layer) and isinstance(layer, quantize_layer_class())


def is_pruned(layer):
    """Says whether `layer` is a pruning wrapper, this library's or TFMOT's."""
    return is_pruned_layer(layer) or (_from_tfmot(layer) and isinstance(layer, wrapper_classes()[0]))


def is_quantized(layer):
    """Says whether `layer` is a quantization wrapper, this library's or TFMOT's."""
    return is_quantized_layer(layer) or _is_quantized_by_tfmot(layer)


def _is_quantized_by_tfmot(layer):
    return _from_tfmot(layer) and isinstance(layer, wrapper_classes()[2])


def unwrap(layer):
    """Returns the user's own layer inside TFMOT's wrappers, or `layer` itself."""
    while is_wrapper(layer):
        layer = layer.layer
    return layer


def computing_layer(layer):
    """Returns the layer that computes inside the wrappers: the user's own, or the Keras 3 layer itself where tf_keras only hosts it."""
    inner = unwrap(layer)
    return inner._hosted.layer if hasattr(inner, "_hosted") else inner


def kind_of(layer):
    """Returns the name of the class that computes in a layer, whatever wraps or hosts it."""
    return type(computing_layer(layer)).__name__


def own_variables(layer):
    """Returns the variables that a wrapper added around `layer`: masks, thresholds, centroids and ranges; never a weight of the user's."""
    if is_input_quantizer(layer):
        return list(layer.weights)
    if is_clustered(layer):
        return [*layer.centroids.values(), *layer.masks.values()]
    return list(layer._non_trainable_weights) if is_wrapper(layer) else []


def masks_of(layer):
    """Lists the weights of one live layer that a mask holds: pairs of (weight variable, mask variable), from any step."""
    if is_clustered(layer) or is_quantized_layer(layer):
        return [(variable_at(layer.layer, path), mask) for path, mask in layer.masks.items()]
    if is_pruned(layer):
        return [(weight, mask) for weight, mask, _ in layer.pruning_vars]
    return []


def effective_values(layer):
    """Returns a dict of id to value of those weights of one live layer that it computes with changed: masked, or clustered."""
    if is_clustered(layer):
        return {id(variable_at(layer.layer, path)): layer.clustered(path) for path in layer.clusters}
    if is_quantized_layer(layer):
        kept = [weight for weight in layer.quantization.weights if weight.sparse or weight.clusters]
        return {id(variable_at(layer.layer, weight.path)): layer.effective(weight) for weight in kept}
    return {id(weight): np.asarray(weight) * np.asarray(mask) for weight, mask in masks_of(layer)}


def weights_of(layer):
    """Lists the weights of the user's layer inside the wrappers, those too that TFMOT's quantization wrapper keeps in its own hands."""
    held = [weight for weight, _, _ in layer._weight_vars] if _is_quantized_by_tfmot(layer) else []
    known = {id(weight) for weight in held}
    return held + [weight for weight in unwrap(layer).weights if id(weight) not in known]


def weight_named(layer, attribute):
    """Returns the variable behind an attribute such as `"kernel"` or `"cell.kernel"` of a live layer, through TFMOT's wrappers.

    TFMOT's quantization wrapper replaces the attribute by the quantized tensor of its last trace, so there the variable is taken from the wrapper.

    Returns:
        The variable, or None when the layer has none under that attribute.
    """
    if _is_quantized_by_tfmot(layer):
        last = attribute.rpartition(".")[2]
        for weight, _, _ in layer._weight_vars:
            if layer._weight_name(weight.name) == last:
                return weight
    value = computing_layer(layer)
    for part in attribute.split("."):
        value = value[int(part)] if part.isdigit() else getattr(value, part, None)
    hosted = value is not None and computing_layer(layer) is not unwrap(layer)
    return variable_at(unwrap(layer), attribute) if hosted else value


def ranges_of(layer):
    """Lists the quantization ranges of one quantization wrapper: tuples of (what, minimum variable, maximum variable)."""
    if is_quantized_layer(layer):
        return [(what, low, high) for what, (low, high, _) in layer.ranges.items()]
    found = [(layer._weight_name(weight.name), variables) for weight, _, variables in layer._weight_vars]
    for activation in layer._quantize_activations:
        for kind in ("pre_activation", "post_activation"):
            variables = getattr(activation, f"_{kind}_vars", None)
            if variables is not None:
                found.append((kind.replace("_", " "), variables))
    if layer._output_quantizers:
        found.append(("output", layer._output_quantizer_vars))
    return [(what, variables["min_var"], variables["max_var"]) for what, variables in found]
