"""Reads the quantization steps of a file's inputs."""

from tfdistill.errors import ExportError
from tfdistill.runtime.probe import probe
from tfdistill.runtime.schema import schema


def input_steps(file, opened, contents, trusted=False):
    """Finds the quantization steps of a file's inputs, also of a float input that the file's first operation quantizes.

    Args:
        file: The `ModelFile`.
        opened: Its `TFLiteModel`.
        contents: Its `CensusRecord`.
        trusted: Whether to parse the file in this process, because it has just written it.

    Returns:
        Dict of input name -> (step, zero point, NumPy name of the integer type); without the inputs that are not quantized.

    Raises:
        ExportError: if the file cannot be read.
    """
    found = {name: (info.scale, info.zero_point, info.dtype) for name, info in opened.inputs.items() if info.scale is not None}
    rest = {name: info.index for name, info in opened.inputs.items() if name not in found and info.dtype.startswith("float")}
    if not rest or not any(op.name == "QUANTIZE" for op in contents.ops):
        return found

    def make_error(cause, log="", fix=None):
        return ExportError(f"The inputs of '{file.path}' cannot be read: {cause}", "a whole .tflite file", fix or "write it again")

    job = "tfdistill.tflite.verification.input_steps:quantized_inputs"
    indices = sorted(rest.values())
    read = quantized_inputs(file.content, indices) if trusted else probe(file, job, indices, make_error)
    return found | {name: tuple(read[str(index)]) for name, index in rest.items() if str(index) in read}


def quantized_inputs(content, indices):
    """Reads the steps of the QUANTIZE operations that follow float inputs; may run in another process.

    Args:
        content: The file as bytes.
        indices: Tensor indices of the inputs.

    Returns:
        Dict of index (as string) -> list of step, zero point and type.
    """
    classes = schema()
    model = classes.ModelT.InitFromObj(classes.Model.GetRootAs(content, 0))
    graph = model.subgraphs[0]
    kinds = {classes.TensorType.INT8: "int8", classes.TensorType.UINT8: "uint8", classes.TensorType.INT16: "int16"}
    found = {}
    for operator in graph.operators:
        if model.operatorCodes[operator.opcodeIndex].builtinCode != classes.BuiltinOperator.QUANTIZE:
            continue
        index, tensor = int(operator.inputs[0]), graph.tensors[operator.outputs[0]]
        if index in indices and tensor.type in kinds and tensor.quantization is not None and tensor.quantization.scale is not None:
            found[str(index)] = [float(tensor.quantization.scale[0]), int(tensor.quantization.zeroPoint[0]), kinds[tensor.type]]
    return found
