"""Compares a model without some channels with the original in which these channels are zero."""

import keras
import numpy as np

from tfdistill.compress.replay import random_inputs, require_outputs, run_calls
from tfdistill.graph.masks import mask_of, with_mask


def zeroed_outputs(trace, removal, inputs, made=None, watch=None):
    """Returns the outputs of the original model with channels set to zero.

    Its layers run one by one with all their weights. Behind each of them the removed channels of its outputs become zero; in its weights, too, so that what is
    removed inside a layer (a head of attention, a unit's own state) counts for nothing. A layer that computes statistics over channels, such as
    LayerNormalization, computes them over the channels that are left.

    Args:
        trace: `ChannelTrace` of the model.
        removal: `Removal`.
        inputs: List of arrays in the order of the model's inputs.
        made: Dict of id of a layer to the new one, for layers with such statistics; None computes them over the zeros, too.
        watch: Function of each `FlatCall` and the list of its outputs, or None.

    Returns:
        List of tensors.
    """

    def compute(call, args, kwargs):
        axes = [trace.axes[id(value)] for value in call.outputs]
        if made is not None and id(call.operation) in trace.normalized:
            outputs = [_over_what_is_left(made[id(call.operation)], removal, trace.axes[id(call.values()[0])], axes[0], args, kwargs)]
        else:
            with keras.StatelessScope(state_mapping=_zeroed_weights(trace, removal, call.operation)):
                outputs = keras.tree.flatten(call.operation(*args, **kwargs))
        found = [_zeroed(output, labels, removal) for output, labels in zip(outputs, axes, strict=True)]
        if watch is not None:
            watch(call, found)
        return found

    return run_calls(trace.graph, inputs, compute)


def _over_what_is_left(layer, removal, axes, outer, args, kwargs):
    """Returns the output of a layer on what is left of its input, zero where channels are missing; `axes` and `outer` are those of its input and output."""
    x, *rest = args
    left = keras.ops.convert_to_numpy(x)[_left(removal, axes, x.shape)]
    made = keras.ops.convert_to_numpy(layer(keras.ops.convert_to_tensor(left), *rest, **kwargs))
    whole = np.zeros([n if labels is None else len(labels) for labels, n in zip(outer, made.shape, strict=True)], made.dtype)
    whole[_left(removal, outer, made.shape)] = made
    return with_mask(keras.ops.convert_to_tensor(whole), mask_of(x))


def _left(removal, axes, shape):
    """Returns the index of what is left of an array, of each axis as far as it has labels."""
    return np.ix_(*(np.arange(n) if labels is None else removal.stay(labels) for labels, n in zip(axes, shape, strict=True)))


def _zeroed_weights(trace, removal, operation):
    """Returns pairs of the weights of a layer that lose something and their values, zero there."""
    found = []
    for variable in getattr(operation, "weights", ()):
        known = trace.weights.get(id(variable))
        if known is not None and any(labels is not None and not removal.mask(labels).all() for labels in known.axes):
            value = _masked(keras.ops.convert_to_tensor(variable.value), known.axes, removal)
            found.append((variable, value))
    return found


def _zeroed(tensor, axes, removal):
    if all(labels is None or removal.mask(labels).all() for labels in axes):
        return tensor
    return with_mask(_masked(tensor, axes, removal), mask_of(tensor))


def _masked(tensor, axes, removal):
    for axis, labels in enumerate(axes):
        if labels is not None:
            shape = [1] * len(axes)
            shape[axis] = len(labels)
            # Not a product: what is infinite or no number in a removed channel must not stay so.
            tensor = keras.ops.where(removal.mask(labels).reshape(shape), tensor, keras.ops.zeros_like(tensor))
    return tensor


def require_equal(model, trace, removal, resized):
    """Compares the outputs of a pruned model with those of `zeroed_outputs` on random input. Returns the largest difference, as a share of the largest value.

    Raises:
        InvariantError: if they differ.
    """
    inputs = random_inputs(trace.graph, trace.graph.views[id(model)], made=resized.model)
    return require_outputs(
        model,
        trace.graph,
        inputs,
        zeroed_outputs(trace, removal, inputs, resized.made),
        resized.model,
        "Without the removed channels,",
        "the model's with these channels zero",
        "if a rule of register_channels is yours, look at what it says; else exclude layers until the model passes, and tell the authors which",
    )
