"""Compares a model without some channels with the original in which these channels are zero."""

import math

import keras
import numpy as np

from tfdistill.bridge.parity.run import arrays, difference, run_keras
from tfdistill.errors import InvariantError
from tfdistill.graph.flat import Value
from tfdistill.graph.functional import index_bounds

# Largest difference of the outputs, as a share of the largest value of the original's.
TOLERANCE = 1e-4
# Examples that are compared, as long as their activations take no more than so many numbers; else one.
_EXAMPLES, _MOST_NUMBERS = 4, 16_000_000


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
    graph = trace.graph
    tensors = {id(value): keras.ops.convert_to_tensor(x, value.dtype) for value, x in zip(graph.inputs.values(), inputs, strict=True)}
    last = {id(value): number for number, call in enumerate(graph.calls) for value in call.values()}
    last.update((id(value), len(graph.calls)) for value in graph.outputs)
    for number, call in enumerate(graph.calls):
        args, kwargs = keras.tree.map_structure(lambda x: tensors[id(x)] if isinstance(x, Value) else x, (call.args, call.kwargs))
        axes = [trace.axes[id(value)] for value in call.outputs]
        if made is not None and id(call.operation) in trace.normalized:
            outputs = [_over_what_is_left(made[id(call.operation)], removal, trace.axes[id(call.values()[0])], args, kwargs)]
        else:
            with keras.StatelessScope(state_mapping=_zeroed_weights(trace, removal, call.operation)):
                outputs = keras.tree.flatten(call.operation(*args, **kwargs))
        for value, output, labels in zip(call.outputs, outputs, axes, strict=True):
            tensors[id(value)] = _zeroed(output, labels, removal)
        if watch is not None:
            watch(call, [tensors[id(value)] for value in call.outputs])
        # What nothing reads any more is let go.
        for key in [key for key in tensors if last.get(key, -1) <= number]:
            del tensors[key]
    return [tensors[id(value)] for value in graph.outputs]


def _over_what_is_left(layer, removal, axes, args, kwargs):
    x, *rest = args
    stays = [np.arange(n) if labels is None else removal.stay(labels) for labels, n in zip(axes, x.shape, strict=True)]
    left = keras.ops.convert_to_numpy(x)[np.ix_(*stays)]
    whole = np.zeros(x.shape, left.dtype)
    whole[np.ix_(*stays)] = keras.ops.convert_to_numpy(layer(keras.ops.convert_to_tensor(left), *rest, **kwargs))
    found = keras.ops.convert_to_tensor(whole)
    mask = getattr(x, "_keras_mask", None)
    if mask is not None:
        found._keras_mask = mask
    return found


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
    found = _masked(tensor, axes, removal)
    mask = getattr(tensor, "_keras_mask", None)
    if mask is not None:
        found._keras_mask = mask
    return found


def _masked(tensor, axes, removal):
    for axis, labels in enumerate(axes):
        if labels is not None:
            shape = [1] * len(axes)
            shape[axis] = len(labels)
            # Not a product: what is infinite or no number in a removed channel must not stay so.
            tensor = keras.ops.where(removal.mask(labels).reshape(shape), tensor, keras.ops.zeros_like(tensor))
    return tensor


def random_inputs(graph, view, seed=0):
    """Returns random arrays for the inputs of a model, in their order: of a small size where one is free, whole numbers where they are indices.

    Args:
        graph: `FlatGraph`.
        view: Functional view of the model.
        seed: Seed of the numbers.
    """
    rng, bounds, found = np.random.default_rng(seed), index_bounds(view), []
    numbers = sum(math.prod(n or 1 for n in value.shape) for call in graph.calls for value in call.outputs)
    examples = _EXAMPLES if _EXAMPLES * numbers <= _MOST_NUMBERS else 1
    for place, value in enumerate(graph.inputs.values()):
        free = 64 if len(value.shape) > 3 else 8
        shape = (value.shape[0] or examples, *(n or free for n in value.shape[1:]))
        if place in bounds:
            found.append(rng.integers(0, bounds[place], shape).astype(value.dtype))
        elif keras.backend.is_float_dtype(value.dtype):
            found.append(rng.normal(size=shape).astype("float32"))
        else:
            found.append(rng.integers(0, 2, shape).astype(value.dtype))
    return found


def require_equal(model, trace, removal, resized):
    """Compares the outputs of a pruned model with those of `zeroed_outputs` on random input.

    Raises:
        InvariantError: if they differ.
    """
    view = trace.graph.views[id(model)]
    inputs = random_inputs(trace.graph, view)
    expected = arrays(zeroed_outputs(trace, removal, inputs, resized.made))
    structure = keras.tree.pack_sequence_as(view.input, inputs) if not isinstance(view.input, keras.KerasTensor) else inputs[0]
    got = arrays(run_keras(resized.model, structure, False))
    coarse = {x.dtype for call in trace.graph.calls for x in call.outputs} & {"float16", "bfloat16"}
    tolerance = max(TOLERANCE, 0.05 if coarse else 0.0)
    for place, (ours, theirs) in enumerate(zip(got, expected, strict=True)):
        far, largest = difference(theirs, ours)
        if not far <= tolerance * max(largest, 1e-6):
            raise InvariantError(
                f"Without the removed channels, output {place} of '{model.name}' differs by {far:.3g} from the model's with these channels zero"
                f" (largest value {largest:.3g}).",
                f"a difference of at most {tolerance:g} of it",
                "if a rule of register_channels is yours, look at what it says; else exclude layers until the model passes, and tell the authors which",
            )
