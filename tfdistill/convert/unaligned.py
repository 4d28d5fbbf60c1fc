"""Finds the operations of a file whose channels leave a part of a vector register empty."""

from tfdistill.convert.parsed_file import listed

# Channel counts that are multiples of this fill the vector registers of phones.
ALIGNMENT = 8
# Operations whose result has a channel for each filter of their kernel.
_CHANNELS = ("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED")
_KEEP_CHANNELS = ("SOFTMAX", "LOG_SOFTMAX", "LOGISTIC", "TANH", "RELU", "RESHAPE", "SQUEEZE", "QUANTIZE", "DEQUANTIZE")


def unaligned_channels(graph, names):
    """Finds the operations of a graph whose channels are no multiple of `ALIGNMENT`; those whose channels are the graph's outputs are left out.

    Args:
        graph: `SubGraphT`.
        names: List of the names of its operations, in their order.

    Returns:
        Dict of the index of an operation to the number of its channels.
    """
    given, found = _of_outputs(graph, names), {}
    for index, (name, operator) in enumerate(zip(names, graph.operators or [], strict=True)):
        outputs = _indices(operator.outputs)
        sizes = listed(graph.tensors[outputs[0]].shape) if outputs else []
        if name in _CHANNELS and sizes and sizes[-1] % ALIGNMENT and not given & set(outputs):
            found[index] = sizes[-1]
    return found


def next_multiple(channels):
    """Returns the next multiple of `ALIGNMENT`."""
    return -(-channels // ALIGNMENT) * ALIGNMENT


def _of_outputs(graph, names):
    """Tensors whose channels are those of the graph's outputs, which the task decides: nothing but these operations lies between."""
    found, waiting = set(), _indices(graph.outputs)
    makers = {i: (name, op) for name, op in zip(names, graph.operators or [], strict=True) for i in _indices(op.outputs)}
    while waiting:
        index = waiting.pop()
        if index not in found:
            found.add(index)
            name, maker = makers.get(index, ("", None))
            if name in _KEEP_CHANNELS:
                waiting += _indices(maker.inputs)[:1]
            elif name == "CONCATENATION":  # of branches that are outputs, too
                waiting += _indices(maker.inputs)
    return found


def _indices(values):
    return [i for i in listed(values) if i >= 0]
