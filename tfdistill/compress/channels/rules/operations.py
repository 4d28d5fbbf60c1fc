"""Channels through operations of `keras.ops`."""

import keras
import numpy as np

from tfdistill.compress.channels.call import LeaveWhole
from tfdistill.compress.channels.rules.operation_kinds import BINARY, OVER_AN_AXIS, REDUCED, STATISTICS, SUMS, UNARY
from tfdistill.compress.channels.rules.passing import broadcast, same
from tfdistill.compress.channels.rules.sequences import dot_product_attention
from tfdistill.compress.channels.rules.shapes import broadcast_to, concatenated, reshaped, sizes_setting
from tfdistill.graph.flat import Value


def _operands(call):
    """Lists (axes, shape) of the operands of an operation, constants included."""
    found = []
    for x in [*keras.tree.flatten(call.call.args), *call.call.kwargs.values()]:
        if isinstance(x, Value):
            found.append((call.axes_of(x), x.shape))
        elif isinstance(x, (list, tuple)) or len(getattr(x, "shape", ())):
            shape = tuple(getattr(x, "shape", np.shape(x)))
            found.append(((None,) * len(shape), shape))
    return found


def arithmetic(call):
    """Element by element, with shapes that are broadcast: the operands' channels are coupled."""
    return [broadcast(call, _operands(call))]


def _places(axis, rank):
    axes = range(rank) if axis is None else [axis] if isinstance(axis, int) else axis
    return {place % rank for place in axes}


def reduced(call):
    """Sums are the same without what is zero; other statistics over channels are those over what is left, as in a normalization that is written by hand."""
    operation, axes = call.layer, call.inputs[0]
    places, kind = _places(operation.axis, len(axes)), type(operation).__name__
    for place in places:
        if kind not in (*SUMS, *STATISTICS):
            call.keep(axes[place], f"{kind.lower()} over them")
        elif kind in STATISTICS and axes[place] is not None:
            call.normalizes_over()
    if getattr(operation, "keepdims", False):  # count_nonzero never keeps them
        return [tuple(None if place in places else labels for place, labels in enumerate(axes))]
    return [tuple(labels for place, labels in enumerate(axes) if place not in places)]


def over_an_axis(call):
    """What is computed along an axis depends on all of it."""
    axes = call.inputs[0]
    if len(call.output_shapes[0]) != len(axes):
        raise LeaveWhole("it flattens its input")
    for place in _places(getattr(call.layer, "axis", None), len(axes)):
        call.keep(axes[place], f"{type(call.layer).__name__.lower()} over them")
    return [axes]


def reshape(call):
    """As the layer Reshape, with the batch among the axes."""
    before, after = call.input_shapes[0], call.output_shapes[0]
    if before[0] != after[0]:
        raise LeaveWhole("it changes the batch")
    found = (None, *reshaped(call, call.inputs[0][1:], before[1:], after[1:]))
    sizes_setting(call, "newshape", found)
    return [found]


def transpose(call):
    """Axes in another order."""
    axes = call.inputs[0]
    order = call.layer.axes if call.layer.axes is not None else range(len(axes))[::-1]
    return [tuple(axes[axis] for axis in order)]


def move_axis(call):
    """Axes in another order."""
    rank = len(call.inputs[0])
    order = np.moveaxis(np.zeros(range(1, rank + 1)), call.layer.source, call.layer.destination).shape
    return [tuple(call.inputs[0][n - 1] for n in order)]


def swap_axes(call):
    """Two axes change places."""
    axes = list(call.inputs[0])
    one, other = call.layer.axis1, call.layer.axis2
    axes[one], axes[other] = axes[other], axes[one]
    return [tuple(axes)]


def expand_dims(call):
    """New axes of size 1 depend on nothing."""
    axes = list(call.inputs[0])
    for place in sorted(_places(call.layer.axis, len(call.output_shapes[0]))):
        axes.insert(place, None)
    return [tuple(axes)]


def squeeze(call):
    """Axes of size 1 are dropped."""
    axes, shape = call.inputs[0], call.input_shapes[0]
    places = {i for i, n in enumerate(shape) if n == 1} if call.layer.axis is None else _places(call.layer.axis, len(shape))
    for place in places:
        call.keep(axes[place], "an axis that is dropped")
    return [tuple(labels for place, labels in enumerate(axes) if place not in places)]


def concatenate(call):
    """Tensors one behind the other along an axis."""
    return [concatenated(call, _operands(call), call.layer.axis)]


def stack(call):
    """Tensors one behind the other along a new axis: their channels are coupled."""
    found = list(concatenated(call, [((None, *axes), (1, *shape)) for axes, shape in _operands(call)], 0)[1:])
    found.insert(call.layer.axis % (len(found) + 1), None)
    return [tuple(found)]


def split(call):
    """Each part has its own channels of the axis; where it is cut follows what is left."""
    axes, axis = call.inputs[0], call.layer.axis % len(call.inputs[0])
    labels = axes[axis]
    if labels is None:
        return [axes for _ in call.output_shapes]
    ends = np.cumsum([shape[axis] for shape in call.output_shapes])
    parts = np.split(labels, ends[:-1])
    call.set_config(
        "indices_or_sections", lambda removal, _: [int(n) for n in np.cumsum([removal.size(part, len(part)) for part in parts])[:-1]]
    )
    return [tuple(part if place == axis else one for place, one in enumerate(axes)) for part in parts]


def get_item(call):
    """Axes that are taken whole keep their channels; of others some are picked by number, so they stay."""
    axes = list(call.inputs[0])
    key = call.call.args[1] if len(call.call.args) > 1 else call.call.kwargs["key"]
    key = list(key) if isinstance(key, (tuple, list)) else [key]
    if any(isinstance(part, Value) for part in key):
        raise LeaveWhole("elements are picked by a tensor")
    if Ellipsis not in key:
        key.append(Ellipsis)
    found = []
    for part in key:
        if part is Ellipsis:
            found += [axes.pop(0) for _ in range(len(axes) - sum(p is not None for p in key[key.index(Ellipsis) + 1 :]))]
        elif part is None:
            found.append(None)
        else:
            labels = axes.pop(0)
            whole = isinstance(part, slice) and part == slice(None)
            if not whole:
                call.keep(labels, "some of them are picked")
            if isinstance(part, slice):
                found.append(labels if whole else None)
    return [tuple(found)]


def matrix_product(call):
    """The axis that is summed over couples both factors."""
    (first, one), (second, other) = _operands(call)
    if len(one) < 2 or len(other) < 2:
        raise LeaveWhole("a product with a vector")
    call.join(first[-1], second[-2])
    batch = broadcast(call, [(first[:-2], one[:-2]), (second[:-2], other[:-2])]) if len(one) > 2 or len(other) > 2 else ()
    return [(*batch, first[-2], second[-1])]


def einsum(call):
    """Axes by the letters of the equation: one letter couples all axes that it names."""
    equation = call.layer.subscripts.replace(" ", "")
    operands, arrow, result = equation.partition("->")
    if "." in equation or not arrow:
        raise LeaveWhole("an equation with an ellipsis, or without a result")
    labels = {}
    for letters, (axes, _) in zip(operands.split(","), _operands(call), strict=True):
        for letter, found in zip(letters, axes, strict=True):
            labels[letter] = call.join(labels[letter], found) if letter in labels else found
    lone = [letter for letter in labels if letter not in result and equation.count(letter) == 1]
    for letter in lone:
        call.keep(labels[letter], "summed")
    return [tuple(labels[letter] for letter in result)]


RULES = {
    **dict.fromkeys(UNARY, same),
    **dict.fromkeys(BINARY, arithmetic),
    **dict.fromkeys(REDUCED, reduced),
    **dict.fromkeys(OVER_AN_AXIS, over_an_axis),
    "Reshape": reshape,
    "BroadcastTo": broadcast_to,
    "Transpose": transpose,
    "Moveaxis": move_axis,
    "Swapaxes": swap_axes,
    "ExpandDims": expand_dims,
    "Squeeze": squeeze,
    "Concatenate": concatenate,
    "Stack": stack,
    "Split": split,
    "GetItem": get_item,
    "Matmul": matrix_product,
    "Einsum": einsum,
    "DotProductAttention": dot_product_attention,
}
