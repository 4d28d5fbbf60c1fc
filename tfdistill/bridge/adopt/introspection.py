"""Finds the user's layer, weights and masks inside wrappers, TFMOT's and this library's.

What a wrapper adds or changes, it says itself: see `tfdistill.bridge.wrappers.base.WrapperState`.
"""

import contextlib
import functools

from tfdistill.bridge.wrappers.base import TransparentWrapper, inside, variable_at
from tfdistill.bridge.wrappers.tfmot import is_from_tfmot, quantize_layer_class, view_of_tfmot
from tfdistill.graph.layers import all_layers


def state_of(layer):
    """Returns the `WrapperState` of a wrapper, None for any other layer. Does not import TFMOT when it was never used."""
    return layer if isinstance(layer, TransparentWrapper) else view_of_tfmot(layer)


def is_wrapper(layer):
    """Whether `layer` wraps a user's layer for pruning, clustering or quantization."""
    return state_of(layer) is not None


def is_wrapper_for(layer, step):
    """Whether `layer` is a wrapper for `"pruning"`, `"clustering"` or `"quantization"`, this library's or TFMOT's."""
    state = state_of(layer)
    return state is not None and state.step == step


def is_pruned(layer):
    """Whether `layer` is a pruning wrapper."""
    return is_wrapper_for(layer, "pruning")


def is_quantized(layer):
    """Whether `layer` is a quantization wrapper."""
    return is_wrapper_for(layer, "quantization")


def is_input_quantizer(layer):
    """Whether `layer` is the quantizer that TFMOT puts behind an input: no layer of the user's."""
    return is_from_tfmot(layer) and isinstance(layer, quantize_layer_class())


def unwrap(layer):
    """Returns the user's own layer inside wrappers, or `layer` itself."""
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
    """Lists the variables that a wrapper or an input quantizer added: masks, thresholds, centroids and ranges; never a weight of the user's."""
    if is_input_quantizer(layer):
        return list(layer.weights)
    state = state_of(layer)
    return [] if state is None else state.own_variables()


def masks_of(layer):
    """Lists the weights of one live layer that a mask keeps sparse: pairs (weight variable, mask variable), from any step."""
    state = state_of(layer)
    return [] if state is None else state.masked_weights()


def effective_values(layer):
    """Returns a dict of id to value of those weights of one live layer that it computes with changed: masked, or clustered."""
    state = state_of(layer)
    return {} if state is None else state.effective_values()


def ranges_of(layer):
    """Lists the quantization ranges of one quantization wrapper: tuples (what, minimum variable, maximum variable)."""
    state = state_of(layer)
    return [] if state is None else state.activation_ranges()


def weights_of(layer):
    """Lists the weights of the user's layer inside the wrappers, those too that a wrapper took out of it."""
    held = [weight for _, weight in _held(layer)]
    known = {id(weight) for weight in held}
    return held + [weight for weight in unwrap(layer).weights if id(weight) not in known]


def weight_named(layer, attribute):
    """Returns the variable behind an attribute such as `"kernel"` or `"cell.kernel"` of a live layer, through all wrappers.

    Where a wrapper took the weight out of the layer, the attribute holds a tensor of the last trace: the variable is the wrapper's then.

    Returns:
        The variable, or None when the layer has none under that attribute.
    """
    last = attribute.rpartition(".")[2]
    for name, weight in _held(layer):
        if name == last:
            return weight
    value = functools.reduce(inside, attribute.split("."), computing_layer(layer))
    hosted = value is not None and computing_layer(layer) is not unwrap(layer)
    return variable_at(unwrap(layer), attribute) if hosted else value


def _held(layer):
    state = state_of(layer)
    return [] if state is None else state.held_weights()


@contextlib.contextmanager
def original_activations(legacy):
    """While open, all layers of a tf_keras model have the activations that the user gave them.

    TFMOT's quantization wrapper puts its own fake-quantizing activation into the layer when it is traced. Written into a config, that would come
    back as a second quantizer in the rebuilt model.
    """
    with contextlib.ExitStack() as opened:
        for state in filter(None, map(state_of, all_layers(legacy))):
            opened.enter_context(state.original_activations())
        yield
