"""Gives the output of a state the scale of its input, so that a device carries a state on by copying bytes."""

import copy

import numpy as np

from tfdistill.convert.parsed_file import ParsedFile, listed
from tfdistill.runtime.schema import schema


def with_equal_state_scales(content, pairs):
    """Returns a file in which both tensors of every state have one scale and one zero point.

    Where they differ, one operation more changes the output to the steps of the input.

    Args:
        content: The file as bytes, as the converter wrote it.
        pairs: List of the names of a state's input and output in the file's signature.

    Returns:
        The file as bytes, the same where all scales are equal.
    """
    from tfdistill.convert.packing import pack

    classes = schema()
    parsed = ParsedFile(classes.ModelT.InitFromObj(classes.Model.GetRootAs(content, 0)), classes)
    signature = parsed.model.signatureDefs[0]
    graph = parsed.model.subgraphs[signature.subgraphIndex or 0]
    entries = [{entry.name.decode(): entry for entry in side} for side in (signature.inputs, signature.outputs)]
    changed = False
    for given, gives in pairs:
        source, entry = graph.tensors[entries[0][given].tensorIndex], entries[1][gives]
        wanted, found = source.quantization, graph.tensors[entry.tensorIndex].quantization
        if wanted is None or wanted.scale is None or not len(wanted.scale) or _equal(wanted, found):
            continue
        _change_steps(parsed, graph, entry, wanted)
        changed = True
    return pack(parsed.model, classes) if changed else content


def _equal(a, b):
    return b is not None and b.scale is not None and np.array_equal(a.scale, b.scale) and np.array_equal(a.zeroPoint, b.zeroPoint)


def _change_steps(parsed, graph, entry, wanted):
    classes, before = parsed.classes, int(entry.tensorIndex)
    like = graph.tensors[before]
    after = parsed.add_tensor(graph, like, listed(like.shape))
    graph.tensors[after].quantization = copy.deepcopy(wanted)
    operator = classes.OperatorT()
    operator.opcodeIndex = parsed.code("QUANTIZE", 2 if like.type == classes.TensorType.INT16 else 1)
    operator.inputs, operator.outputs = np.array([before], np.int32), np.array([after], np.int32)
    operator.builtinOptionsType, operator.builtinOptions = classes.BuiltinOptions.QuantizeOptions, classes.QuantizeOptionsT()
    graph.operators.append(operator)
    outputs = listed(graph.outputs)
    # The last of them: the output that a layer gives and its state can be one tensor, of which the state comes last.
    place = len(outputs) - 1 - outputs[::-1].index(before)
    outputs[place] = after
    graph.outputs, entry.tensorIndex = np.array(outputs, np.int32), after
