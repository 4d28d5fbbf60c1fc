"""The integer steps in which a file reads its inputs."""

from tfdistill.errors import ExportError
from tfdistill.runtime.probe import probe
from tfdistill.runtime.schema import schema


def input_steps(file, opened, counted, trusted=False):
    """Finds the integer steps of a file's inputs, also where an input is float and the file's first operation quantizes it.

    Args:
        file: The `ModelFile`.
        opened: The same file, opened.
        counted: Its `CensusRecord`.
        trusted: Whether this process may read the file itself, because it wrote it.

    Returns:
        Dict of input name -> (step, zero point, NumPy name of the integer type); float inputs are missing.

    Raises:
        ExportError: if the file cannot be read.
    """
    found = {name: (info.scale, info.zero_point, info.dtype) for name, info in opened.inputs.items() if info.scale is not None}
    rest = {name: info.index for name, info in opened.inputs.items() if name not in found and info.dtype.startswith("float")}
    if not rest or not any(op.name == "QUANTIZE" for op in counted.ops):
        return found

    def refused(cause, said="", fix=None):
        return ExportError(f"The inputs of '{file.path}' cannot be read: {cause}", "a whole .tflite file", fix or "write it again")

    job = "tfdistill.tflite.verification.input_steps:quantized_inputs"
    indices = sorted(rest.values())
    read = quantized_inputs(file.content, indices) if trusted else probe(file, job, indices, refused)
    return found | {name: tuple(read[str(index)]) for name, index in rest.items() if str(index) in read}


def quantized_inputs(content, indices):
    """Reads the quantization that follows float inputs; may run in another process.

    Args:
        content: The file as bytes.
        indices: The inputs' tensor indices.

    Returns:
        Dict of index (as text) -> list of step, zero point and type.
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
