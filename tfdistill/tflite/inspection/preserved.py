"""Checks that a .tflite file has what quantization-aware training preserves: 4-bit weights, zeros, clusters."""

import collections
import math

import keras
import numpy as np

from tfdistill.bridge.adopt.adopt import AdoptedModel
from tfdistill.bridge.integer.rounding import FLOAT
from tfdistill.bridge.wrappers.quantization import is_quantized_layer
from tfdistill.errors import ExportError, InvariantError, ModelError
from tfdistill.graph.layers import all_layers
from tfdistill.tflite.inspection.weights import IntegerWeights, integer_weights
from tfdistill.utils.types import PathLike


def require_trained_bits(path, model):
    """Checks that weights that were trained in 4 bits have 4 bits in the file.

    Args:
        path: The .tflite file.
        model: The model that it was exported from. Only an `AdoptedModel` can have 4-bit weights.

    Raises:
        ExportError: if the file has fewer 4-bit tensors of their sizes; the message names the layers.
    """
    required = [(layer.layer.name, weight, layer.quantized(weight)) for layer, weight in _quantized(model) if weight.bits == 4]
    if not required:
        return
    there = collections.Counter(weights.values.size for weights in integer_weights(path) if weights.bits == 4)
    missing = []
    for name, weight, value in required:
        size = math.prod(value.shape)
        if there[size]:
            there[size] -= 1
        else:
            missing.append(f"'{name}' {weight.path}")
    if missing:
        raise ExportError(
            f"'{path}' should hold weights of 4 bits, but the converter made none of those of {', '.join(missing)}.",
            f"{len(required)} tensors of 4-bit integers",
            "train these layers with weight_bits=8",
        )


def require_bits_of_variant(model, variant):
    """Refuses a quantized model without weights of 4 bits for a variant that promises some.

    Args:
        model: An `AdoptedModel` that was trained quantized, or calibrated.
        variant: A `Variant`.

    Raises:
        ModelError: if none of its weights has 4 bits.
    """
    if variant.weight_bits == 4 and not any(weight.bits == 4 for _, weight in _quantized(model)):
        raise ModelError(
            f"No weights of '{model.name}' were trained with 4 bits: rounded to 4 bits now, they would be none that it was trained for.",
            "a model with weights of 4 bits, or one that is not quantized yet",
            "train it again with QuantizeAware(weight_bits=4), or export it as int8",
        )


def check_preserved_structure(path: PathLike, model: keras.Model) -> None:
    """Checks that the zeros and clusters that quantization-aware training preserves are in the .tflite file.

    All weights that the model quantizes are checked. The tensor of a weight is found by its integers, not by its name, because the
    converter renames tensors. Signs are ignored in the search, because a folded normalization may flip them.

    Args:
        path: An int8 file of `model`.
        model: The trained `AdoptedModel` that `QuantizeAware.apply` returned.

    Raises:
        ModelError: if the model preserves no zeros and no clusters.
        InvariantError: if a weight is not in the file, if one of its zeros is not zero there, or if its tensor (or one channel, where each
            channel has its own scale) has more distinct integers than the weight has values.

    Example:
        >>> kernel, bias = student.get_layer("logits").get_weights()
        >>> student.get_layer("logits").set_weights([np.where(abs(kernel) < 0.1, 0, kernel), bias])
        >>> quantized = tfdistill.compress.QuantizeAware(preserve_sparsity=True).apply(student)
        >>> quantized.compile("adam", "mse")
        >>> history = quantized.fit(x, teacher(x), verbose=0)
        >>> record = tfdistill.export_tflite(quantized, "sparse.tflite", variant="int8", verify_on=x)
        >>> tfdistill.tflite.check_preserved_structure("sparse.tflite", quantized)  # no error: its zeros are zeros in the file
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
    """Yields (wrapper, weight) for every weight that the model quantizes. The converter alone quantizes those of `bits == FLOAT`."""
    layers = all_layers(model.legacy) if isinstance(model, AdoptedModel) else []
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
    """Returns the tensor of the file that is nearest to a weight, with the weight's integers in its axis order; None if none is near."""
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
    """Yields the axis orders in which the converter writes a kernel: unchanged, output axes first, or the last but one first."""
    axes = tuple(range(rank))
    yield axes
    for first in range(1, rank):
        yield axes[first:] + axes[:first]
    if rank > 2:
        yield (axes[-2], *axes[:-2], axes[-1])
