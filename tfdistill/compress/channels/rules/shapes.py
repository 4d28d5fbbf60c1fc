"""Channels through what moves elements about: flattening, reshaping, permuting, concatenating."""

import math

import numpy as np

from tfdistill.compress.channels.call import LeaveWhole, label_array, tiled
from tfdistill.compress.channels.units import NONE

# Stands for a free size: no product of others.
_FREE = 1_000_003


def reshaped(call, axes, before, after):
    """Returns the axes of a tensor in another shape.

    An axis that several are merged into depends on all their units. An axis that is split keeps channels where each of them has a place on one axis; else the
    elements behind one index of the first axis go together, as the channels of an attention head do.

    Args:
        call: `ChannelCall`.
        axes: Labels of its axes.
        before: Its shape.
        after: Its new shape, with the same number of elements.
    """
    blocks = _blocks(before, after)
    if blocks is None:
        raise LeaveWhole(f"from {before} to {after} its axes cannot be matched")
    found = [None] * len(after)
    for sources, targets in blocks:
        if all(axes[i] is None for i in sources):
            continue
        if any(before[i] is None for i in sources):
            raise LeaveWhole(f"channels and a free size in one axis, from {before} to {after}")
        columns = _merged([axes[i] for i in sources], [before[i] for i in sources])
        for axis, labels in _split(call, columns, [after[j] for j in targets]).items():
            found[targets[axis]] = labels
    return tuple(found)


def _blocks(before, after):
    """Returns pairs of the axes of two shapes that hold the same elements, consecutive and as small as possible; None where they cannot be matched."""
    a, b = ([_FREE if n is None else n for n in shape] for shape in (before, after))
    blocks, i, j = [], 0, 0
    while i < len(a) and j < len(b):
        sources, targets, left, right = [i], [j], a[i], b[j]
        while left != right:
            if left < right:
                i += 1
                if i == len(a):
                    return None
                left *= a[i]
                sources.append(i)
            else:
                j += 1
                if j == len(b):
                    return None
                right *= b[j]
                targets.append(j)
        blocks.append((sources, targets))
        i, j = i + 1, j + 1
    if any(n != 1 for n in (*a[i:], *b[j:])) or not blocks:
        return None
    # What is left are axes of size 1.
    blocks[-1] = ([*blocks[-1][0], *range(i, len(a))], [*blocks[-1][1], *range(j, len(b))])
    return blocks


def _merged(several, sizes):
    """Returns the labels of axes that become one."""
    columns = []
    for place, labels in enumerate(several):
        if labels is not None:
            columns.append(tiled(np.repeat(labels, math.prod(sizes[place + 1 :]), 0), math.prod(sizes[:place])))
    return np.concatenate(columns, 1)


def _split(call, columns, sizes):
    """Returns a dict of axis to labels of one axis that becomes several."""
    found: dict[int, list] = {}
    for column in columns.T:
        grid = call.units.find(column.reshape(sizes))
        varies = [axis for axis, n in enumerate(sizes) if n > 1 and np.any(grid != np.take(grid, [0], axis))]
        lead = varies[0] if varies else max(range(len(sizes)), key=lambda axis: sizes[axis])
        lines = np.moveaxis(grid, lead, 0).reshape(sizes[lead], -1)
        if len(varies) > 1:
            for line in lines:
                if np.any(line == NONE) and np.any(line != NONE):
                    call.keep(line, "go together with elements that stay as they are")
                call.units.join_all(line)
        found.setdefault(lead, []).append(lines.max(1)[:, None])
    return {axis: np.concatenate(several, 1) for axis, several in found.items()}


def flatten(call):
    """A channel becomes as many features as there are places."""
    axes, shape = call.inputs[0], call.input_shapes[0]
    if getattr(call.layer, "data_format", None) == "channels_first" and len(axes) > 2:
        order = (0, *range(2, len(axes)), 1)
        axes, shape = tuple(axes[i] for i in order), tuple(shape[i] for i in order)
    return [(None, *reshaped(call, axes[1:], shape[1:], call.output_shapes[0][1:]))]


def sizes_setting(call, name, axes):
    """Says that an argument is a shape: its numbers follow the axes that get smaller.

    Args:
        call: `ChannelCall`.
        name: Name of the argument.
        axes: Labels of the axes that the argument gives the sizes of, None for those that stay.
    """

    def changed(removal, old):
        return [n if n in (-1, None) else removal.size(labels, n) for n, labels in zip(old, axes, strict=True)]

    call.same_sizes(name, list(axes))
    if any(labels is not None for labels in axes):
        call.set_config(name, changed)


def reshape(call):
    """Axes that are split and merged, as `reshaped` matches them."""
    found = (None, *reshaped(call, call.inputs[0][1:], call.input_shapes[0][1:], call.output_shapes[0][1:]))
    sizes_setting(call, "target_shape", found[1:])
    return [found]


def broadcast_to(call):
    """Axes of size 1 are repeated; the others stay what they are."""
    axes, before, after = call.inputs[0], call.input_shapes[0], call.output_shapes[0]
    found = [None] * len(after)
    for place in range(-len(before), 0):
        if before[place] == after[place]:
            found[place] = axes[place]
        else:
            call.keep(axes[place], "an axis of size 1 that is repeated")
    sizes_setting(call, "shape", found)
    return [tuple(found)]


def permute(call):
    """Axes in another order."""
    axes = call.inputs[0]
    return [(axes[0], *(axes[axis] for axis in call.layer.dims))]


def repeat_vector(call):
    """The features are those of each step."""
    return [(call.inputs[0][0], None, call.inputs[0][1])]


def concatenated(call, tensors, axis):
    """Returns the axes of tensors one after the other.

    Args:
        call: `ChannelCall`.
        tensors: List of pairs (axes, shape).
        axis: Along which axis.
    """
    rank = len(tensors[0][1])
    axis %= rank
    found = []
    for place in range(rank):
        labels = [axes[place] for axes, _ in tensors]
        if place != axis:
            found.append(labels[0])
            for other in labels[1:]:
                found[place] = call.join(found[place], other)
        elif any(one is not None for one in labels):
            parts = [label_array(one, shape[axis]) for one, (_, shape) in zip(labels, tensors, strict=True)]
            width = max(part.shape[1] for part in parts)
            found.append(np.concatenate([np.pad(part, ((0, 0), (0, width - part.shape[1])), constant_values=NONE) for part in parts]))
        else:
            found.append(None)
    return tuple(found)


def concatenate(call):
    """Tensors one behind the other along an axis."""
    return [concatenated(call, list(zip(call.inputs, call.input_shapes, strict=True)), call.layer.axis)]


RULES = {"Flatten": flatten, "Reshape": reshape, "Permute": permute, "RepeatVector": repeat_vector, "Concatenate": concatenate}
