"""Runs a model call by call, on random input too, and compares what a model made anew of it gives."""

import itertools
import math
from typing import Any

import keras
import numpy as np

from tfdistill.bridge.parity.run import arrays, difference, run_keras
from tfdistill.errors import DataError, InvariantError
from tfdistill.graph.flat import Value
from tfdistill.graph.functional import index_bounds
from tfdistill.graph.masks import mask_of, with_mask
from tfdistill.utils.finite import is_finite

# Largest difference of the outputs, as a share of the largest value of the original's; in half precision a larger one.
TOLERANCE, HALF_TOLERANCE = 1e-4, 0.05
# Examples that are compared, as long as their activations take no more than so many numbers; else one.
_EXAMPLES, _MOST_NUMBERS = 4, 16_000_000


def require_usable(**given):
    """Refuses examples that are no arrays, not of one length, empty, or not finite.

    Args:
        given: Name of each setting -> structure of arrays; None is left out.

    Raises:
        DataError: saying what is wrong.
    """
    given = {f"{name}=": structure for name, structure in given.items() if structure is not None}
    settings, several = " and ".join(given), len(given) > 1
    flat = [np.asarray(array) for array in keras.tree.flatten(list(given.values()))]
    if any(array.ndim == 0 for array in flat):
        raise DataError(
            ", ".join(f"{name} is a {type(structure).__name__}" for name, structure in given.items()) + ".",
            "arrays of examples",
            "take them out of a tf.data.Dataset by x, y = next(iter(dataset.unbatch().batch(256)))",
        )
    if not flat or len({len(array) for array in flat}) > 1 or not len(flat[0]):
        raise DataError(
            f"{settings} {'have' if several else 'has'} {[len(array) for array in flat]} examples.", "arrays of one length, not empty"
        )
    if any(array.dtype.kind == "f" and not is_finite(array) for array in flat):
        raise DataError(f"{settings} {'hold' if several else 'holds'} NaN or infinity.", "finite numbers")


def batches_of(structure, size):
    """Yields the parts of a structure of arrays, with so many examples each. None stays None."""
    count = len(next(array for array in keras.tree.flatten(structure) if array is not None))
    for begin in range(0, count, size):
        yield keras.tree.map_structure(
            lambda array, begin=begin: None if array is None else np.asarray(array)[begin : begin + size], structure
        )


def in_order(graph, x):
    """Returns the arrays of a batch in the order of a model's inputs; a dict may name inputs that the model has in a list.

    Args:
        graph: `FlatGraph` of the model.
        x: Structure of arrays.
    """
    if isinstance(x, dict) and set(graph.inputs) <= set(x):
        return [x[name] for name in graph.inputs]
    return keras.tree.flatten(x)


def run_calls(graph, inputs, compute):
    """Runs the calls of a flat graph one by one, in inference mode, and returns the tensors of its outputs.

    Args:
        graph: `FlatGraph`.
        inputs: List of arrays in the order of the model's inputs.
        compute: Function of (`FlatCall`, arguments, keyword arguments) that returns the flat list of what the call gives.
    """
    tensors = {id(value): keras.ops.convert_to_tensor(x, value.dtype) for value, x in zip(graph.inputs.values(), inputs, strict=True)}
    last = {id(value): number for number, call in enumerate(graph.calls) for value in call.values()}
    last.update((id(value), len(graph.calls)) for value in graph.outputs)
    masks: dict[int, Any] = {}
    for number, call in enumerate(graph.calls):
        for value in call.values():
            with_mask(tensors[id(value)], masks.get(id(value)))  # attention takes the masks off the tensors that it reads
        args, kwargs = keras.tree.map_structure(lambda x: tensors[id(x)] if isinstance(x, Value) else x, (call.args, call.kwargs))
        if isinstance(call.operation, keras.layers.Layer):
            kwargs = {**kwargs, "training": False}  # outside of a model, layers that augment data would do so
        for value, output in zip(call.outputs, compute(call, args, kwargs), strict=True):
            tensors[id(value)], masks[id(value)] = output, mask_of(output)
        # What nothing reads any more is let go.
        for key in [key for key in tensors if last.get(key, -1) <= number]:
            del tensors[key]
    return [tensors[id(value)] for value in graph.outputs]


def random_inputs(graph, view, seed=0, examples=None, made=None):
    """Returns random arrays for the inputs of a model, in their order: of a small size where one is free, whole numbers where they are indices.

    Args:
        graph: `FlatGraph`.
        view: Functional view of the model.
        seed: Seed of the numbers.
        examples: Their number where the batch is free; None for as many as take little memory.
        made: Model made anew that is to be run on them, too: their number is none of its widths, or of those of the graph.
    """
    # Where a batch is as large as there are channels, Keras 3 adds a tensor of shape (batch, 1) as one of (1, channels): `keras.ops.add` takes it for a bias.
    values = [value for call in graph.calls for value in (*call.values(), *call.outputs)]
    widths = {n for value in values for n in value.shape} | {n for w in getattr(made, "weights", ()) for n in w.shape}
    rng, bounds, found = np.random.default_rng(seed), index_bounds(view), []
    numbers = sum(math.prod(n or 1 for n in value.shape) for call in graph.calls for value in call.outputs)
    if examples is None:
        examples = next(n for n in itertools.count(_EXAMPLES) if n not in widths) if _EXAMPLES * numbers <= _MOST_NUMBERS else 1
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


def tolerance_of(graph):
    """Returns the largest difference that is allowed, as a share of the largest value."""
    coarse = {x.dtype for call in graph.calls for x in call.outputs} & {"float16", "bfloat16"}
    return HALF_TOLERANCE if coarse else TOLERANCE


def require_outputs(model, graph, inputs, expected, made, said, meant, fix):
    """Compares the outputs of a model made anew with those that are expected of it.

    Args:
        model: The original.
        graph: Its `FlatGraph`.
        inputs: List of arrays in the order of the model's inputs.
        expected: List of tensors.
        made: The new model.
        said: Beginning of the error, to which "output 0 of 'model' differs ..." is added.
        meant: What the output is compared with: `"the model's with these channels zero"`.
        fix: Remedy of the error.

    Returns:
        The largest difference, as a share of the largest value of its output.

    Raises:
        InvariantError: if they differ.
    """
    view = graph.views[id(model)]
    structure = keras.tree.pack_sequence_as(view.input, inputs) if not isinstance(view.input, keras.KerasTensor) else inputs[0]
    tolerance, shares = tolerance_of(graph), []
    for place, (ours, theirs) in enumerate(zip(arrays(run_keras(made, structure, False)), arrays(expected), strict=True)):
        far, largest = difference(theirs, ours)
        if not far <= tolerance * max(largest, 1e-6):
            raise InvariantError(
                f"{said} output {place} of '{model.name}' differs by {far:.3g} from {meant} (largest value {largest:.3g}).",
                f"a difference of at most {tolerance:g} of it",
                fix,
            )
        shares.append(far / max(largest, 1e-6))
    return max(shares)
