"""Plans the memory of a graph's activations as TensorFlow Lite's interpreter does: largest tensors first, each at the lowest place that is free while it lives."""

import math

import numpy as np

from tfdistill.convert.parsed_file import listed

# Tensors begin at multiples of this many bytes in the arena of the interpreter.
_ALIGNMENT = 64
_BYTES = {"float64": 8, "int64": 8, "uint64": 8, "complex64": 8, "complex128": 16, "float16": 2, "bfloat16": 2, "int16": 2, "uint16": 2}
_ONE_BYTE = ("int8", "uint8", "bool")


def planned_memory(graph, buffers, types):
    """Plans the activations of one graph, all operations run by the interpreter itself (a delegate has memory of its own, kernels need scratch beside it).

    Args:
        graph: `SubGraphT` of the schema.
        buffers: The file's `BufferT`s.
        types: Dict of the schema's number of a type -> its name.

    Returns:
        Dict of `planned_arena_bytes`, the size of the planned arena; `peak_bytes`, the most bytes of tensors that are alive at one time, below which no plan can be; and
        `peak_operation`, the index of the operation at which they are, None for a graph without operations. Sizes that are not fixed count as they stand in
        the file, mostly 1, with which the interpreter begins.
    """
    lives = _lives(graph, buffers)
    sizes = {i: tensor_bytes(graph.tensors[i], types) for i in lives}
    count = len(graph.operators or [])
    alive = [sum(sizes[i] for i, (first, last) in lives.items() if first <= place <= last) for place in range(count)]
    peak = int(np.argmax(alive)) if alive else None
    return {
        "planned_arena_bytes": _planned(lives, sizes),
        "peak_bytes": alive[peak] if alive else sum(sizes.values()),
        "peak_operation": peak,
    }


def tensor_bytes(tensor, types):
    """Returns the bytes of a tensor's elements."""
    kind, count = types[tensor.type], math.prod(listed(tensor.shape))
    if kind == "int4":
        return (count + 1) // 2
    return count * (1 if kind in _ONE_BYTE else _BYTES.get(kind, 4))


def _lives(graph, buffers):
    """Dict of tensor index -> first and last operation that needs it. Inputs and outputs of the graph, and states, live all the time."""
    last_place = len(graph.operators or []) - 1
    lives = {}

    def needs_memory(index):
        data = buffers[graph.tensors[index].buffer].data
        return data is None or not len(data)

    for place, operator in enumerate(graph.operators or []):
        for index in [*listed(operator.inputs), *listed(operator.outputs)]:
            if index >= 0 and needs_memory(index):
                first, _ = lives.get(index, (place, place))
                lives[index] = (first, place)
    for index in listed(graph.inputs):
        if needs_memory(index):
            lives[index] = (0, last_place)
    for index in listed(graph.outputs):
        if needs_memory(index):
            lives[index] = (lives.get(index, (0, 0))[0], last_place)
    for index in [i for i in lives if graph.tensors[i].isVariable]:
        lives[index] = (0, last_place)
    return lives


def _planned(lives, sizes):
    """Returns the bytes of the arena: tensors that live all the time first, then the largest, each in the first gap that is large enough."""
    whole = max((last - first for first, last in lives.values()), default=0)
    order = sorted(lives, key=lambda i: (lives[i][1] - lives[i][0] < whole, -sizes[i], lives[i][0], i))
    placed, end = [], 0
    for index in order:
        first, last = lives[index]
        taken = sorted((begin, stop) for begin, stop, other in placed if lives[other][0] <= last and first <= lives[other][1])
        place = 0
        for begin, stop in taken:
            if begin - place >= sizes[index]:
                break
            place = max(place, -(-stop // _ALIGNMENT) * _ALIGNMENT)
        placed.append((place, place + sizes[index], index))
        end = max(end, place + sizes[index])
    return end
