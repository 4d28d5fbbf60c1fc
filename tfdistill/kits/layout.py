"""What a kit must know of a .tflite file beside its operations: names of signatures and tensors, and what its outputs are made by."""

from tfdistill.convert.census import count_content, op_code
from tfdistill.convert.parsed_file import listed
from tfdistill.errors import ExportError
from tfdistill.runtime.schema import schema

# Operations that change neither the order nor the meaning of scores.
_PASSED = frozenset({"QUANTIZE", "DEQUANTIZE", "RESHAPE", "SQUEEZE", "CAST"})
_ACTIVATIONS = {"SOFTMAX": "softmax", "LOGISTIC": "sigmoid"}


def read_layout(content, settings):
    """Reads a file; runs in another process, as it may come from anywhere.

    Args:
        content: The file as bytes.
        settings: Not used.

    Returns:
        Dict of JSON values: `signatures` as model.json has them; `inputs` and `outputs`, lists of dicts of the tensors of the main graph in the order of the
        file. Each has `tensor`, its name; an input has `free_axes`, the axes whose size is not fixed; an output has `activation` ("softmax", "sigmoid" or None), `step`, the scale of the integers that it is made of (None
        for floats), and `logit_step`, the scale of what the softmax reads (None where there is none).

    Raises:
        ExportError: if the file is damaged.
    """
    count_content(content, None)
    classes = schema()
    try:
        model = classes.ModelT.InitFromObj(classes.Model.GetRootAs(content, 0))
        return _layout(model, [op_code(code, classes)[0] for code in model.operatorCodes or []])
    except Exception as error:  # what the indices of signatures mean was not checked
        raise ExportError(f"It is damaged: {type(error).__name__}: {error}.") from error


def warm_up(settings):
    """Imports what `read_layout` needs, before the helper forks."""
    schema()


def _layout(model, codes):
    graph = model.subgraphs[0]
    makers = {int(i): (codes[o.opcodeIndex], o) for o in graph.operators or [] for i in listed(o.outputs)}
    signatures = {}
    for signature in model.signatureDefs or []:
        tensors = model.subgraphs[int(signature.subgraphIndex or 0)].tensors
        signatures[_text(signature.signatureKey)] = {
            side: {_text(entry.name): _text(tensors[entry.tensorIndex].name) for entry in getattr(signature, side) or []}
            for side in ("inputs", "outputs")
        }
    return {
        "signatures": signatures,
        "inputs": [{"tensor": _text(graph.tensors[i].name), "free_axes": _free_axes(graph.tensors[i])} for i in listed(graph.inputs)],
        "outputs": [{"tensor": _text(graph.tensors[i].name), **_made_by(int(i), graph, makers)} for i in listed(graph.outputs)],
    }


def _made_by(index, graph, makers):
    found = {"activation": None, "step": _scale(graph.tensors[index]), "logit_step": None}
    while index in makers:
        name, operator = makers.pop(index)  # a graph with a circle ends, too
        source = int(operator.inputs[0]) if len(listed(operator.inputs)) else -1
        if name in _ACTIVATIONS and source >= 0:
            return {**found, "activation": _ACTIVATIONS[name], "logit_step": _scale(graph.tensors[source])}
        if name not in _PASSED or source < 0:
            break
        index, found["step"] = source, found["step"] or _scale(graph.tensors[source])
    return found


def _free_axes(tensor):
    signature = tensor.shapeSignature
    return [] if signature is None else [axis for axis, size in enumerate(signature) if int(size) < 0]


def _scale(tensor):
    scales = None if tensor.quantization is None else tensor.quantization.scale
    return float(scales[0]) if scales is not None and len(scales) == 1 else None


def _text(name):
    return (name or b"").decode("utf-8", errors="replace")
