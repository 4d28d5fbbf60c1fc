"""Reads the integer weights of a .tflite file."""

import dataclasses
import math

import numpy as np

from tfdistill.errors import ExportError
from tfdistill.runtime.interpreter import read_file
from tfdistill.runtime.schema import schema
from tfdistill.runtime.structure import check_structure


@dataclasses.dataclass(frozen=True)
class IntegerWeights:
    """A constant tensor of integers with a scale.

    Attributes:
        name: Name in the file.
        bits: 8 or 4.
        values: Its integers minus the zero point, as an array of the tensor's shape.
        channel_axis: The axis that has one scale per index; None for one scale per tensor.
    """

    name: str
    bits: int
    values: np.ndarray
    channel_axis: int | None

    @property
    def channels(self):
        """The integers as an array (channels, weights per channel); one channel for one scale per tensor."""
        if self.channel_axis is None:
            return self.values.reshape(1, -1)
        return np.moveaxis(self.values, self.channel_axis, 0).reshape(self.values.shape[self.channel_axis], -1)


def integer_weights(path):
    """Lists the `IntegerWeights` of a .tflite file; biases are left out.

    Args:
        path: The file.

    Raises:
        ConfigurationError: if there is no such file.
        ExportError: if it is not a complete .tflite file.
    """
    content = read_file(path).content
    try:
        check_structure(content)
        return _integer_weights(content)
    except Exception as error:  # flatbuffers does not validate: a damaged file fails anywhere in the parser
        what = error.happened if isinstance(error, ExportError) else f"It is damaged: {type(error).__name__}: {error}."
        raise ExportError(
            f"'{path}' ({len(content)} bytes) {what.removeprefix('It ')}", "a whole .tflite file", "write it again"
        ) from error


def _integer_weights(content):
    classes = schema()
    model = classes.ModelT.InitFromObj(classes.Model.GetRootAs(content, 0))
    bits = {classes.TensorType.INT8: 8, classes.TensorType.INT4: 4}
    found = []
    for tensor in (tensor for graph in model.subgraphs for tensor in graph.tensors or []):
        content, quantization = model.buffers[tensor.buffer].data, tensor.quantization
        scales = None if quantization is None else quantization.scale
        if tensor.type not in bits or content is None or not len(content) or scales is None or not len(scales):
            continue
        shape = tuple(int(size) for size in tensor.shape)
        values = _unpacked(np.frombuffer(bytes(bytearray(content)), "int8"), bits[tensor.type], math.prod(shape))
        # A constant with one scale, such as an offset, may have a zero point other than 0.
        values = values.reshape(shape).astype("int32") - int(quantization.zeroPoint[0])
        axis = int(quantization.quantizedDimension) if len(scales) > 1 else None
        found.append(IntegerWeights((tensor.name or b"").decode("utf-8", errors="replace"), bits[tensor.type], values, axis))
    return found


def _unpacked(packed, bits, count):
    """Returns the integers of a buffer; two 4-bit integers share a byte, the lower half first."""
    if bits == 8:
        return packed
    low, high = (packed << 4).astype("int8") >> 4, packed >> 4
    return np.stack([low, high], axis=1).reshape(-1)[:count]
