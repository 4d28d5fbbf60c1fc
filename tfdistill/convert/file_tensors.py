"""The inputs and outputs of a .tflite file as a program on a device addresses them: by position, with type, shape and quantization."""

import dataclasses

from tfdistill.records import Record


@dataclasses.dataclass(frozen=True)
class FileTensor(Record):
    """One input or output of a .tflite file. A real value is (integer - zero_point) * scale.

    Attributes:
        index: Position among the inputs or outputs, from 0: what firmware passes to `interpreter.input(index)`.
        name: Name in the file's signature, or the tensor's own name if it has none.
        shape: Shape, batch first.
        dtype: Type, for example `int8`.
        scale: Size of one quantization step; None for a tensor that is not quantized.
        zero_point: The integer that stands for 0.0; None for a tensor that is not quantized.

    Example:
        >>> image = tfdistill.census("student.tflite").inputs[0]
        >>> image.index, image.name, image.shape, image.dtype
        (0, 'image', (1, 8, 8, 1), 'int8')
        >>> image.scale > 0, -128 <= image.zero_point <= 127
        (True, True)
    """

    index: int
    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float | None
    zero_point: int | None


def listed(model, type_names, side):
    """Lists the inputs or outputs of a parsed file's main graph.

    Args:
        model: `ModelT` of the schema.
        type_names: Dict of the schema's number of a type -> its name.
        side: "inputs" or "outputs".

    Returns:
        List of `FileTensor`.
    """
    graph = model.subgraphs[0]
    named = {
        int(entry.tensorIndex): (entry.name or b"").decode("utf-8", errors="replace")
        for signature in model.signatureDefs or []
        if int(signature.subgraphIndex or 0) == 0
        for entry in getattr(signature, side) or []
    }
    found = []
    indices = getattr(graph, side)
    for position, index in enumerate([] if indices is None else indices):
        tensor, quantization = graph.tensors[index], graph.tensors[index].quantization
        scales = None if quantization is None else quantization.scale
        quantized = scales is not None and len(scales) == 1
        zero = quantization.zeroPoint if quantized else None
        found.append(
            FileTensor(
                position,
                named.get(int(index)) or (tensor.name or b"").decode("utf-8", errors="replace"),
                tuple(int(size) for size in ([] if tensor.shape is None else tensor.shape)),
                type_names[tensor.type],
                float(scales[0]) if quantized else None,
                (int(zero[0]) if zero is not None and len(zero) else 0) if quantized else None,
            )
        )
    return found
