"""Takes out of a .tflite file the many operations that cut a tensor of integers to pieces, as the gates of a recurrent layer are in every step: one does it.

The edit is exact: the file computes the same integers.
"""

import collections

import numpy as np

from tfdistill.convert.packing import content_of
from tfdistill.convert.parsed_file import listed

# Delegates have SPLIT of up to so many pieces.
_MOST_PIECES = 4
# The version of SPLIT for 8-bit integers, and the first runtime that has it.
_INTEGER_SPLIT, _ITS_RUNTIME = 2, "1.14.0"


def split_once(file, graph):
    """Makes one SPLIT of STRIDED_SLICEs that cut a tensor to equal pieces.

    Args:
        file: `ParsedFile`.
        graph: One of its graphs; it is changed.

    Returns:
        Whether anything was changed.
    """
    cuts = collections.defaultdict(list)
    for operator in graph.operators:
        if (piece := _piece(file, graph, operator)) is not None:
            cuts[int(operator.inputs[0])].append((piece, operator))
    changed = False
    for source, found in cuts.items():
        tensor, count = graph.tensors[source], len(found)
        size = int(tensor.shape[-1]) // count
        found.sort(key=lambda cut: cut[0])
        if tensor.type != file.classes.TensorType.INT8 or not 1 < count <= _MOST_PIECES:
            continue
        if [piece for piece, _ in found] != [(i * size, (i + 1) * size) for i in range(count)] or count * size != tensor.shape[-1]:
            continue
        like = graph.tensors[int(found[0][1].inputs[1])]
        made = file.classes.OperatorT()
        made.opcodeIndex = file.code("SPLIT", _INTEGER_SPLIT)
        made.inputs = np.array([file.add_constant(graph, len(tensor.shape) - 1, like), source], np.int32)
        made.outputs = np.array([int(operator.outputs[0]) for _, operator in found], np.int32)
        made.builtinOptionsType, made.builtinOptions = file.classes.BuiltinOptions.SplitOptions, file.classes.SplitOptionsT()
        made.builtinOptions.numSplits = count
        file.require_runtime(_ITS_RUNTIME)
        _replace(graph, [operator for _, operator in found], [made])
        changed = True
    return changed


def _piece(file, graph, operator):
    """Returns (start, end) of a STRIDED_SLICE that cuts the last axis alone; None for any other operation."""
    if file.name_of(operator) != "STRIDED_SLICE":
        return None
    source, target = (graph.tensors[int(index)] for index in (operator.inputs[0], operator.outputs[0]))
    starts, ends, strides = (file.constant(graph, int(index)) for index in listed(operator.inputs)[1:])
    options, sizes = operator.builtinOptions, listed(source.shape)
    if any(values is None or len(values) != len(sizes) for values in (starts, ends, strides)) or not sizes:
        return None
    if options.ellipsisMask or options.newAxisMask or options.shrinkAxisMask or options.offset or set(listed(strides)) != {1}:
        return None
    if any(size < 0 for tensor in (source, target) for size in listed(tensor.shapeSignature)):
        return None
    if content_of((source.type, source.quantization)) != content_of((target.type, target.quantization)):
        return None
    # As NumPy has it, a negative number counts from the end; a mask says that there is no number.
    bounds = [
        slice(
            None if options.beginMask >> axis & 1 else int(starts[axis]), None if options.endMask >> axis & 1 else int(ends[axis])
        ).indices(size)[:2]
        for axis, size in enumerate(sizes)
    ]
    whole = bounds[:-1] == [(0, size) for size in sizes[:-1]]
    return bounds[-1] if whole and bounds[-1][0] < bounds[-1][1] else None


def _replace(graph, gone, made):
    """Puts operations in the place of the first of others."""
    ids = {id(operator) for operator in gone}
    place = next(i for i, operator in enumerate(graph.operators) if id(operator) in ids)
    graph.operators = [o for o in [*graph.operators[:place], *made, *graph.operators[place:]] if id(o) not in ids]
