"""Finds which operations of a .tflite file each layer became, through the scopes that stand in the names of its tensors."""

import re
import typing

from tfdistill.convert.census import FLOAT_TYPES
from tfdistill.convert.parsed_file import ParsedFile, listed
from tfdistill.convert.unaligned import unaligned_channels
from tfdistill.convert.waste import is_whole, remove_waste
from tfdistill.runtime.operations import TYPES
from tfdistill.runtime.schema import schema

_SCOPE = "tfdistill_layer_"
_IN_SCOPE = re.compile(rf"(?<![\w.]){_SCOPE}(\d+)(?:_\d+)?/")
# Operations that are tables of their own where their two inputs have different shapes.
_BROADCASTING = ("ADD", "SUB", "MUL")
# Operations with a kernel -> the position of it among their inputs; the bias stands behind it.
KERNELS = {"CONV_2D": 1, "DEPTHWISE_CONV_2D": 1, "FULLY_CONNECTED": 1, "TRANSPOSE_CONV": 1, "CONV_3D": 1, "BATCH_MATMUL": 1, "GATHER": 0}
# A form of an operation in no table of targets.
DENSE, DENSE_OF_FOUR_BITS = "FULLY_CONNECTED", "FULLY_CONNECTED of int4 with a scale for each output"


class LayerOperation(typing.NamedTuple):
    """One operation of a file.

    Attributes:
        layer: Index of the layer that it comes from; None for one of no layer, such as the QUANTIZE of an input.
        name: Its name in the .tflite schema, or in the tables of targets: `"MUL broadcast"`.
        kind: Type of what it computes with, one of `tfdistill.runtime.operations.TYPES`; None where that is no float and no small integer.
        unaligned: Number of its channels, where that leaves a part of a vector register empty; None elsewhere.
    """

    layer: int | None
    name: str
    kind: str | None
    unaligned: int | None = None


def scope_of(index):
    """Returns the name scope under which the layer of that index has to be called, for its operations to be found again."""
    return f"{_SCOPE}{index}"


def layers_in(text):
    """Lists the indices of the layers whose scopes a text names, in its order. What is fused is named last operation first."""
    return [int(index) for index in _IN_SCOPE.findall(text)]


def layer_operations(content):
    """Lists the operations of a file that was traced with every layer under its `scope_of`.

    What is fused from several layers counts for the first of them, which has the kernel.

    Args:
        content: The file as bytes, as the converter wrote it.

    Returns:
        Tuple of `LayerOperation`, in the order in which they run.
    """
    classes = schema()
    model = classes.ModelT.InitFromObj(classes.Model.GetRootAs(content, 0))
    if is_whole(model):
        remove_waste(model, classes)  # as the exported file has it
    names = {value: name for name, value in vars(classes.BuiltinOperator).items() if isinstance(value, int)}
    types = {value: name.lower() for name, value in vars(classes.TensorType).items() if isinstance(value, int)}
    codes = [names[max(code.builtinCode or 0, code.deprecatedBuiltinCode or 0)] for code in model.operatorCodes]
    found = []
    for graph in model.subgraphs:
        plain = [codes[operator.opcodeIndex] for operator in graph.operators or []]
        channels = unaligned_channels(graph, plain)
        found += [
            _operation(model, graph, operator, name, types)._replace(unaligned=channels.get(index))
            for index, (operator, name) in enumerate(zip(graph.operators or [], plain, strict=True))
        ]
    return tuple(found)


def form_of(model, graph, operator, name):
    """Returns the name of an operation in the tables of targets, where some forms of an operation are one of their own.

    Args:
        model: `ModelT` of the schema.
        graph: Its graph with the operation.
        operator: The operation.
        name: Its name in the .tflite schema.
    """
    inputs = [graph.tensors[index] for index in listed(operator.inputs) if index >= 0]
    if name in _BROADCASTING and len({tuple(listed(tensor.shape)) for tensor in inputs}) > 1:
        return f"{name} broadcast"
    if name == "STRIDED_SLICE":
        strides = ParsedFile(model, schema()).constant(graph, int(operator.inputs[3]))
        if strides is None or set(listed(strides)) != {1}:
            return f"{name} with strides"
        if operator.builtinOptions.shrinkAxisMask:
            return f"{name} without an axis"
    return name


def four_bits_per_channel(name, kernel):
    """Whether an operation is a dense layer whose weights have 4 bits and a scale for each output, which LiteRT computes, and older runtimes and tflite-micro do not.

    Args:
        name: Its name in the .tflite schema.
        kernel: The tensor of its weights, parsed.
    """
    scales = getattr(kernel.quantization, "scale", None)
    return name == DENSE and kernel.type == schema().TensorType.INT4 and scales is not None and len(scales) > 1


def computing_type(name, inputs, outputs):
    """Returns the type that an operation computes with, as the tables of targets have it: `dynamic` for floats with an 8-bit kernel. Else that of its first tensor:
    `int4` where weights of 4 bits become floats, but not where integers are multiplied with them.

    Args:
        name: Its name in the .tflite schema.
        inputs: List of the types of the tensors that it reads.
        outputs: List of the types of the tensors that it writes.
    """
    if name == "DEQUANTIZE" and inputs[:1] == ["int4"]:
        return "int4"
    kinds = outputs if name == "QUANTIZE" else [*inputs[:1], *outputs]
    found = next((kind for kind in kinds if kind in FLOAT_TYPES or kind in ("int8", "int16")), kinds[0] if kinds else "")
    kernel = KERNELS.get(name)
    if found in FLOAT_TYPES and kernel and len(inputs) > kernel and inputs[kernel] in ("int8", "int4"):
        return "dynamic"
    return found


def _operation(model, graph, operator, name, types):
    if operator.outputs is None or not len(operator.outputs):
        return LayerOperation(None, name, None)  # what assigns to a state
    inputs = [graph.tensors[index] for index in operator.inputs if index >= 0]
    outputs = [graph.tensors[index] for index in operator.outputs]
    maker = outputs[0]
    plain, name = name, form_of(model, graph, operator, name)
    if name == "DEQUANTIZE":
        # Its result has the name of what it reads; it is there for the layer that computes on with floats.
        reader = next((other for other in graph.operators if operator.outputs[0] in other.inputs), operator)
        maker = graph.tensors[reader.outputs[0]]
    kind = computing_type(plain, *([types[tensor.type] for tensor in tensors] for tensors in (inputs, outputs)))
    layer = _layer_of(maker.name.decode())
    if layer is None:  # what writes an output has the name of that; its weights have the layer's
        weights = [tensor for tensor in inputs if not _is_empty(model.buffers[tensor.buffer].data)]
        layer = next(filter(lambda found: found is not None, (_layer_of(tensor.name.decode()) for tensor in weights)), None)
    return LayerOperation(layer, name, kind if kind in TYPES else None)


def _is_empty(content):
    return content is None or not len(content)


def _layer_of(name):
    parts = name.split(";")
    # A part about rounding only says which tensor was read.
    computing = [layer for part in parts if "FakeQuant" not in part for layer in layers_in(part)]
    return computing[-1] if computing else next(iter(layers_in(name)), None)
