"""The weights of the operations of a .tflite file: how many bits each has."""

import dataclasses
import math
import typing

from tfdistill.convert.parsed_file import listed
from tfdistill.records import Record
from tfdistill.runtime.schema import schema

# Operations with weights -> the positions of these among their inputs.
WEIGHTS = {
    **dict.fromkeys(("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV", "CONV_3D", "EMBEDDING_LOOKUP"), (1,)),
    "BATCH_MATMUL": (0, 1),
    "GATHER": (0,),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": tuple(range(1, 9)),
}
_BITS = {"int2": 2, "int4": 4, "int8": 8, "uint8": 8, "float16": 16, "bfloat16": 16, "int16": 16, "float32": 32}


@dataclasses.dataclass(frozen=True)
class FileKernel(Record):
    """The weights of an operation of a .tflite file: a constant that it multiplies with, or a table that it looks up.

    Attributes:
        name: Name of the constant in the file, which begins with the name of the layer.
        operation: TFLite's name of the first operation that reads it, for example `CONV_2D`.
        dtype: Type in which it is stored, for example `int4`. The operation may read it through a DEQUANTIZE, as floats.
        shape: Shape.

    Example:
        >>> [(kernel.operation, kernel.dtype, kernel.bits) for kernel in tfdistill.census("student.tflite").kernels]
        [('CONV_2D', 'int8', 8), ('FULLY_CONNECTED', 'int8', 8)]
    """

    name: str
    operation: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def bits(self) -> int:
        """Number of bits of a weight: 2, 4, 8, 16 or 32; 64 for types that no weights have."""
        return _BITS.get(self.dtype, 64)

    @property
    def size(self) -> int:
        """Number of weights."""
        return math.prod(self.shape)


class PlacedKernel(typing.NamedTuple):
    """Where weights stand in a parsed file.

    Attributes:
        graph: The graph.
        operator: The first operation that reads them.
        tensor: Index of the constant in the graph.
    """

    graph: typing.Any
    operator: typing.Any
    tensor: int


def placed_kernels(file):
    """Lists the `PlacedKernel`s of a `ParsedFile`, in the order in which they are first read; what DEQUANTIZE makes floats of counts as it is stored."""
    found = []
    for graph in file.model.subgraphs:
        seen = set()
        stored = {
            int(operator.outputs[0]): int(operator.inputs[0])
            for operator in graph.operators or []
            if file.name_of(operator) == "DEQUANTIZE"
        }
        for operator in graph.operators or []:
            inputs = listed(operator.inputs)
            for place in WEIGHTS.get(file.name_of(operator), ()):
                index = inputs[place] if place < len(inputs) else -1
                index = stored.get(index, index)
                if index >= 0 and index not in seen and file.is_constant(graph.tensors[index]):
                    seen.add(index)
                    found.append(PlacedKernel(graph, operator, index))
    return found


def kernels_in(file):
    """Lists the `FileKernel`s of a `ParsedFile`."""
    types = {value: name.lower() for name, value in vars(schema().TensorType).items() if isinstance(value, int)}

    def described(placed):
        tensor = placed.graph.tensors[placed.tensor]
        name = (tensor.name or b"").decode("utf-8", errors="replace")
        return FileKernel(name, file.name_of(placed.operator), types[tensor.type], tuple(listed(tensor.shape)))

    return [described(placed) for placed in placed_kernels(file)]
