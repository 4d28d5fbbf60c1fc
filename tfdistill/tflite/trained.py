"""What quantization-aware training promised, looked up in the file: weights of 4 bits, zeros, clusters."""

import collections
import dataclasses
import math

import numpy as np

from tfdistill.errors import ExportError, InvariantError, ModelError
from tfdistill.legacy.adopt import AdoptedModel
from tfdistill.legacy.adopt_quantizing import is_quantized_layer
from tfdistill.legacy.quantize_rounding import FLOAT
from tfdistill.runtime.interpreter import read_file
from tfdistill.runtime.schema import schema
from tfdistill.runtime.structure import check_structure


@dataclasses.dataclass(frozen=True)
class IntegerWeights:
    """A constant tensor of integers with a scale.

    Attributes:
        name: Its name in the file.
        bits: 8 or 4.
        values: Its integers, zero being 0, as an array of the tensor's shape.
        channel_axis: The axis with a scale for each index; None where one scale is for all.
    """

    name: str
    bits: int
    values: np.ndarray
    channel_axis: int | None

    @property
    def channels(self):
        """Its integers as an array (channels, weights of each); one channel where one scale is for all."""
        if self.channel_axis is None:
            return self.values.reshape(1, -1)
        return np.moveaxis(self.values, self.channel_axis, 0).reshape(self.values.shape[self.channel_axis], -1)


def integer_weights(path):
    """Lists the `IntegerWeights` of a .tflite file: what it multiplies with, without biases.

    Args:
        path: The file.

    Raises:
        ConfigurationError: if there is no such file.
        ExportError: if it is not a whole .tflite file.
    """
    content = read_file(path).content
    try:
        check_structure(content)
        return _integer_weights(content)
    except Exception as error:  # flatbuffers checks nothing ahead: a damaged file fails wherever the reader happens to be
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
        # A constant of one scale, such as an offset, may have another zero than 0.
        values = values.reshape(shape).astype("int32") - int(quantization.zeroPoint[0])
        axis = int(quantization.quantizedDimension) if len(scales) > 1 else None
        found.append(IntegerWeights((tensor.name or b"").decode("utf-8", errors="replace"), bits[tensor.type], values, axis))
    return found


def _unpacked(packed, bits, count):
    """Returns the integers of a buffer: two of 4 bits share a byte, the lower half first."""
    if bits == 8:
        return packed
    low, high = (packed << 4).astype("int8") >> 4, packed >> 4
    return np.stack([low, high], axis=1).reshape(-1)[:count]


def require_trained_bits(path, model):
    """Checks that weights that were trained in 4 bits are in 4 bits in the file.

    Args:
        path: The .tflite file.
        model: The model that it was exported from; any but an `AdoptedModel` promised nothing.

    Raises:
        ExportError: if there are not as many 4-bit tensors of their sizes; names the layers.
    """
    wanted = [(layer.layer.name, weight, layer.quantized(weight)) for layer, weight in _quantized(model) if weight.bits == 4]
    if not wanted:
        return
    there = collections.Counter(weights.values.size for weights in integer_weights(path) if weights.bits == 4)
    missing = []
    for name, weight, value in wanted:
        size = math.prod(value.shape)
        if there[size]:
            there[size] -= 1
        else:
            missing.append(f"'{name}' {weight.path}")
    if missing:
        raise ExportError(
            f"'{path}' should hold weights of 4 bits, but the converter made none of those of {', '.join(missing)}.",
            f"{len(wanted)} tensors of 4-bit integers",
            "train these layers with weight_bits=8",
        )


def check_file(path, model):
    """Asserts that the zeros and clusters that quantization-aware training kept, of all weights that it rounds, are in the .tflite file.

    A weight's tensor is found by its integers, whatever the converter calls it: up to their signs, which a folded normalization may turn, they are those that
    the model computes with.

    Args:
        path: An int8 file of `model`.
        model: The `AdoptedModel` that `QuantizeAware.apply` returned, trained.

    Raises:
        ModelError: if the model keeps no zeros and no clusters.
        InvariantError: if a weight is not in the file, or one of its zeros is not zero there, or it has more integers than the model has values: in the tensor, or in one of its
            channels where these have scales of their own.
    """
    kept = [(layer, weight) for layer, weight in _quantized(model) if weight.sparse or weight.clusters]
    if not kept:
        raise ModelError(f"The model '{getattr(model, 'name', model)}' keeps no zeros and no clusters.", "a PQAT, CQAT or PCQAT model")
    tensors = integer_weights(path)
    wrong = [text for layer, weight in kept for text in _wrong(layer, weight, tensors)]
    if wrong:
        raise InvariantError(
            f"'{path}' has not kept what '{model.name}' has: {'; '.join(wrong)}.",
            "the zeros and clusters of the model",
            "export the model again",
        )


def _quantized(model):
    """Yields every weight of a model that is rounded, with its wrapper; the grid of the others, whose zeros are kept alone, is the converter's own."""
    layers = model.legacy._flatten_layers() if isinstance(model, AdoptedModel) else []
    for layer in layers:
        if is_quantized_layer(layer):
            yield from ((layer, weight) for weight in layer.quantization.weights if weight.bits != FLOAT)


def _wrong(layer, weight, tensors):
    where = f"'{layer.layer.name}' {weight.path}"
    rounded = np.asarray(layer.quantized(weight))
    found = _find(rounded, weight, tensors)
    if found is None:
        yield f"{where} is not there"
        return
    tensor, expected = found
    if weight.sparse:
        lost = int(np.count_nonzero((expected == 0) & (tensor.values.reshape(expected.shape) != 0)))
        if lost:
            yield f"{where} has {lost} zeros that are not zero"
    if weight.clusters:
        ours = IntegerWeights("", weight.bits, expected, tensor.channel_axis).channels
        most = max(len(np.unique(channel)) for channel in ours)
        there = max(len(np.unique(channel)) for channel in tensor.channels)
        if there > most:
            yield f"{where} has {there} integers where there are {most} values"


def _find(rounded, weight, tensors):
    """Returns the tensor of the file that is nearest to a weight, and the weight's integers in its order; None if none is near."""
    others = tuple(axis for axis in range(rounded.ndim) if axis not in weight.axes)
    steps = 2 ** (weight.bits - 1) - 1
    limit = np.abs(rounded).max(others if weight.axes else None, keepdims=True)
    integers = np.round(rounded / np.maximum(limit, 1e-9) * steps).astype("int32")
    best, distance = None, 0.25 * np.abs(integers).mean()
    for tensor in tensors:
        if tensor.values.size != rounded.size:
            continue
        for order in _orders(rounded.ndim):
            turned = np.transpose(integers, order).reshape(tensor.values.shape)
            apart = np.abs(np.abs(turned) - np.abs(tensor.values)).mean()
            if apart <= distance:
                best, distance = (tensor, turned), apart
    return best


def _orders(rank):
    """Yields the orders of axes in which the converter writes a kernel: as it is, its output axes first, or the last but one first."""
    axes = tuple(range(rank))
    yield axes
    for first in range(1, rank):
        yield axes[first:] + axes[:first]
    if rank > 2:
        yield (axes[-2], *axes[:-2], axes[-1])
