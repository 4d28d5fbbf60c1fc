"""What quantization-aware training promised, looked up in the file: weights of 4 bits, zeros, clusters."""

import collections
import math

import numpy as np

from tfdistill.bridge.adopt.adopt import AdoptedModel
from tfdistill.bridge.integer.rounding import FLOAT
from tfdistill.bridge.wrappers.quantization import is_quantized_layer
from tfdistill.errors import ExportError, InvariantError, ModelError
from tfdistill.tflite.inspection.weights import IntegerWeights, integer_weights


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


def check_preserved_structure(path, model):
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
