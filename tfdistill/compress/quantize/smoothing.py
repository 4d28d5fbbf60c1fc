"""Moves a part of the differences between channels from the activations into the weights behind them, where each channel of a kernel has many values beside it.

Xiao et al., "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large Language Models" (2023), section 4.1, https://arxiv.org/abs/2211.10438.

Transformers have channels that are tens of times larger than the others. One range for all of them leaves the others a few steps. The normalization (or dense layer)
that makes the channels is divided by a number for each of them, and the rows of the kernels that read them are multiplied by it: the same function, in float.
"""

import numpy as np

from tfdistill.bridge.adopt import introspection
from tfdistill.bridge.adopt.layers import named_layers
from tfdistill.bridge.wrappers.base import variable_at
from tfdistill.compress import kernels
from tfdistill.compress.quantize.calibration_data import packed_batches
from tfdistill.compress.quantize.consumers import activation_of
from tfdistill.errors import ModelError

_NORMALIZATIONS = {"LayerNormalization": ("gamma", "beta"), "RMSNormalization": ("scale",)}
_ATTENTIONS = ("MultiHeadAttention", "GroupedQueryAttention")
_PROJECTIONS = ("_query_dense.kernel", "_key_dense.kernel", "_value_dense.kernel", "_gate_dense.kernel")
# Layers that hand each number on as it is.
_PASSING = ("Dropout", "SpatialDropout1D", "Identity")
# Functions f with f(x / s) = f(x) / s.
_HOMOGENEOUS = ("linear", "relu")
# Numbers by which a channel is divided stay within this factor of 1.
_MOST = 1e4


def smoothable(places, decided):
    """Finds the layers whose channels can be scaled, because only kernels read them.

    Args:
        places: Dict of path to `Place`.
        decided: Dict of path to `LayerQuantization`.

    Returns:
        Dict of path to a tuple of the paths of the layers whose kernels read it.
    """
    by_layer = {id(place.layer): place for place in places.values()}
    found = {}
    for path, place in places.items():
        if place.calls != 1 or not _scales_channels(place) or not _is_free(decided[path]):
            continue
        readers = _readers(place, by_layer)
        if readers and all(
            reader is not None and _reads_rows(reader, by_layer, place) and _is_free(decided[reader.path]) for reader in readers
        ):
            paths = {reader.path for reader in readers}
            found[path] = tuple(other for other in places if other in paths)
    return found


def require_smoothable(found, smooth, plan):
    """Refuses a model in which there is nothing to smooth.

    Args:
        found: What `smoothable` returned.
        smooth: The setting.
        plan: The `Plan`.

    Raises:
        ModelError: if there is no such layer.
    """
    if not found:
        raise ModelError(
            f"smooth={smooth}, but no layer of '{plan.model}' can be smoothed.",
            "a LayerNormalization, an RMSNormalization, or a Dense layer without activation or with relu, that only Dense layers or attention read",
            "leave smooth= out",
        )


def smooth_channels(model, float_model, signature, samples, smoothed, strength):
    """Scales the channels of layers and the kernels that read them.

    Args:
        model: `AdoptedModel` whose weights are changed.
        float_model: The tf_keras model without quantizers, on which the channels are measured.
        signature: `ModelSignature` of the samples.
        samples: Calibration `Samples`.
        smoothed: What `smoothable` returned.
        strength: Share of the differences that moves into the weights, from 0 to 1.

    Returns:
        Dict of path to the numbers by which the channels were divided, an array (channels,).
    """
    largest = _largest_outputs(float_model, signature, samples, smoothed)
    layers = named_layers(model.legacy)
    found = {}
    for path, readers in smoothed.items():
        variables = [(layers[reader], kernel) for reader in readers for kernel in _read_kernels(introspection.unwrap(layers[reader]))]
        rows = np.max([_rows(kernel, variable_at(introspection.unwrap(layer), kernel.attribute)) for layer, kernel in variables], 0)
        found[path] = scales(largest[path], rows, strength)
        layer = introspection.unwrap(layers[path])
        for name in _variables(layer):
            variable = variable_at(layer, name)
            variable.assign(np.asarray(variable) / found[path])
        for layer, kernel in variables:
            variable = variable_at(introspection.unwrap(layer), kernel.attribute)
            variable.assign(np.asarray(variable) * _along(kernel, found[path]))
    return found


def scales(activations, weights, strength):
    """Returns the numbers by which channels are divided, and the rows of the weights multiplied: max |X| ** a / max |W| ** (1 - a).

    Args:
        activations: Largest magnitude of each channel, (channels,).
        weights: Largest magnitude in each row of the kernels, (channels,).
        strength: a, from 0 to 1.

    Returns:
        float32 array (channels,); 1 for a channel that is always 0 or that no kernel reads.

    Example:
        >>> scales(np.array([16.0, 1.0, 0.0]), np.array([1.0, 1.0, 1.0]), 0.5).tolist()
        [4.0, 1.0, 1.0]
    """
    activations, weights = np.asarray(activations, "float64"), np.asarray(weights, "float64")
    known = (activations > 0) & (weights > 0)
    found = np.where(known, activations, 1.0) ** strength / np.where(known, weights, 1.0) ** (1.0 - strength)
    return np.clip(found, 1.0 / _MOST, _MOST).astype("float32")


def _variables(layer):
    """Lists the paths of the weights by which the channels of a layer can be scaled: the first of them has to be there."""
    names = _NORMALIZATIONS.get(introspection.kind_of(layer), ("kernel", "bias"))
    return [name for name in names if introspection.weight_named(layer, name) is not None]


def _scales_channels(place):
    """Whether the weights of the layer of a `Place` scale each channel of its output."""
    layer, kind = place.layer, introspection.kind_of(place.layer)
    if kind in _NORMALIZATIONS:
        axes = np.atleast_1d(introspection.computing_layer(layer).axis)
        return len(axes) == 1 and axes[0] in (-1, place.rank - 1) and _variables(layer)[:1] == [_NORMALIZATIONS[kind][0]]
    return kind == "Dense" and activation_of(layer) in _HOMOGENEOUS


def _is_free(decision):
    """Whether the weights of a layer may be scaled: clusters would not stay, and what is left out keeps its own."""
    return decision.done and not (decision.quantization and any(weight.clusters for weight in decision.quantization.weights))


def _readers(place, by_layer):
    """Lists the `Place`s that read a layer, dropout passed over; None stands for the model's output or for a layer called several times."""
    found = []
    for reader in place.readers:
        other = None if reader is None else by_layer.get(id(reader))
        if other is None or other.calls != 1:
            found.append(None)
        elif introspection.kind_of(other.layer) in _PASSING:
            found += _readers(other, by_layer)
        else:
            found.append(other)
    return found


def _origin(source, by_layer):
    while source is not None and introspection.kind_of(source) in _PASSING and by_layer[id(source)].source is not None:
        source = by_layer[id(source)].source
    return source


def _reads_rows(reader, by_layer, place):
    """Whether a layer multiplies the channels of another one by the rows of its kernels, and reads nothing else."""
    if any(_origin(source, by_layer) is not place.layer for source in reader.sources):
        return False
    channels = place.layer.output_shape[-1]
    found = _read_kernels(reader.layer)
    return bool(found) and all(_channel_axis(kernel) is not None and kernel.shape[_channel_axis(kernel)] == channels for kernel in found)


def _read_kernels(layer):
    """Lists the kernels whose rows are the channels of a layer's input; empty for a layer of another kind."""
    kind = introspection.kind_of(layer)
    if kind == "Dense":
        return kernels.kernels_of(layer)
    if kind in _ATTENTIONS:
        return [kernel for kernel in kernels.kernels_of(layer) if kernel.attribute in _PROJECTIONS]
    return []


def _channel_axis(kernel):
    return kernel.inputs[0] if len(kernel.inputs) == 1 else None


def _rows(kernel, variable):
    axis = _channel_axis(kernel)
    return np.abs(np.asarray(variable)).max(tuple(other for other in range(len(kernel.shape)) if other != axis))


def _along(kernel, values):
    return values.reshape([-1 if axis == _channel_axis(kernel) else 1 for axis in range(len(kernel.shape))])


def _largest_outputs(float_model, signature, samples, paths):
    """Returns a dict of path to the largest magnitude of each channel of a layer's output on all samples, (channels,)."""
    largest = {}
    layers = {path: introspection.unwrap(layer) for path, layer in named_layers(float_model).items() if path in paths}

    def seen(path, call):
        def look(*args, **kwargs):
            outputs = call(*args, **kwargs)
            found = np.abs(np.asarray(outputs, "float32")).max(tuple(range(len(outputs.shape) - 1)))
            largest[path] = np.maximum(largest.get(path, 0.0), found)
            return outputs

        return look

    try:
        # Past tf_keras's attribute setter, as the layers' own calls come back at once.
        for path, layer in layers.items():
            vars(layer)["call"] = seen(path, layer.call)
        for inputs in packed_batches(signature, samples):
            float_model(inputs, training=False)
    finally:
        for layer in layers.values():
            vars(layer).pop("call", None)
    return largest
