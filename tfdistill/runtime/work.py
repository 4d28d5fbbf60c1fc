"""Counts what one run of an opened .tflite file computes and moves, at the shapes that it runs at."""

import collections
import dataclasses
import math

import numpy as np

from tfdistill.runtime.delegated import DELEGATE, operation_nodes

# Operations that multiply and accumulate -> place of the kernel among their inputs.
KERNELS = {"CONV_2D": 1, "DEPTHWISE_CONV_2D": 1, "FULLY_CONNECTED": 1, "TRANSPOSE_CONV": 1, "CONV_3D": 1, "BATCH_MATMUL": 1}
# Operations whose multiply-accumulates depend on more than the shapes of their tensors.
UNCOUNTED = {
    "UNIDIRECTIONAL_SEQUENCE_LSTM",
    "UNIDIRECTIONAL_SEQUENCE_RNN",
    "BIDIRECTIONAL_SEQUENCE_LSTM",
    "LSTM",
    "RNN",
    "SVDF",
    "WHILE",
    "IF",
}


@dataclasses.dataclass(frozen=True)
class Work:
    """What one run does.

    Attributes:
        macs: Multiply-accumulates of convolutions and products of matrices; None if an operation is there that is not counted.
        moved_bytes: Size of all tensors that operations read and write, constants included: what would be moved if nothing stayed in a cache.
        compute_type: Type of the inputs of most multiply-accumulates, such as `int8`; None without any.
    """

    macs: int | None
    moved_bytes: int
    compute_type: str | None


def work_of(interpreter):
    """Counts the work of one run.

    Args:
        interpreter: An `Interpreter` of any engine whose tensors are allocated.

    Returns:
        A `Work`; None in an old runtime, which cannot list its operations.
    """
    nodes = operation_nodes(interpreter)
    if nodes is None:
        return None
    tensors = {int(detail["index"]): detail for detail in interpreter.get_tensor_details()}
    macs, moved, unknown = collections.Counter(), 0, False
    for node in nodes:
        name = node["op_name"]
        if name == DELEGATE:
            continue
        inputs, outputs = ([int(i) for i in node[side]] for side in ("inputs", "outputs"))
        moved += sum(_bytes(tensors[i]) for i in {*inputs, *outputs} if i in tensors)
        unknown |= name in UNCOUNTED or name.startswith("CUSTOM") or name == "CUSTOM"
        if name in KERNELS:
            macs[_type(tensors[inputs[_data(name)]])] += macs_of(
                name, [_shape(tensors.get(i)) for i in inputs], _shape(tensors[outputs[0]])
            )
    return Work(None if unknown else sum(macs.values()), moved, max(macs, key=macs.get) if macs else None)


def macs_of(name, inputs, output):
    """Multiply-accumulates of one operation.

    Args:
        name: One of `KERNELS`.
        inputs: Shapes of its inputs.
        output: Shape of its first output.
    """
    kernel, made = inputs[KERNELS[name]], math.prod(output)
    if name == "TRANSPOSE_CONV":
        return math.prod(inputs[2]) * math.prod(kernel[:3])
    if name == "BATCH_MATMUL":
        # Whichever operand is transposed, rows x inner of the first and rows x columns of the output give the inner size.
        batches = math.prod(inputs[0][:-2])
        return made * (math.prod(inputs[0]) // batches // output[-2]) if batches and output[-2] else 0
    if name == "DEPTHWISE_CONV_2D":
        return made * math.prod(kernel[1:3])
    if name == "CONV_3D":
        return made * math.prod(kernel[:4])
    return made * math.prod(kernel[1:])


def _data(name):
    return 2 if name == "TRANSPOSE_CONV" else 0


def _shape(detail):
    return () if detail is None else tuple(int(size) for size in detail["shape"])


def _type(detail):
    return np.dtype(detail["dtype"]).name


def _bytes(detail):
    try:
        return math.prod(_shape(detail)) * np.dtype(detail["dtype"]).itemsize
    except TypeError:  # strings and resources have no fixed size
        return 0
