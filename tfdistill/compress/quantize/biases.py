"""The biases of a model that is quantized without training: what rounding shifts the mean of a channel by is taken back.

Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction" (2019), section 4.2 and appendix D (from data),
https://arxiv.org/abs/1906.04721.
"""

import contextlib

import numpy as np

from tfdistill.bridge.adopt import introspection
from tfdistill.bridge.adopt.layers import named_layers
from tfdistill.bridge.adopt.trained_ranges import quantized_layers
from tfdistill.bridge.integer.recognize import Watched
from tfdistill.compress.quantize.output_error import output_error
from tfdistill.convert.samples import MIN_CALIBRATION_SAMPLES

# Layers with one sum for each output channel and an activation function behind it.
CORRECTABLE = {
    *("Dense", "EinsumDense", "Conv1D", "Conv2D", "Conv1DTranspose", "Conv2DTranspose"),
    *("DepthwiseConv1D", "DepthwiseConv2D", "SeparableConv1D", "SeparableConv2D"),
}
# Samples that the means are taken over.
_SAMPLES = 128
# The biases stay as they were if the error of the outputs grows by more than this share, and by more than half a step of 8 bits of their range: a smaller change on these
# samples says nothing of others. Neither does any change on fewer samples than calibration needs, as there are in one batch of a model of a fixed, small batch.
_WORSE, _HALF_STEP = 0.1, 0.5 / 256


def biases_of(layer):
    """Lists the variables of a live layer that are biases of channels."""
    return [
        weight for weight in introspection.weights_of(layer) if weight.name.rpartition("/")[2].startswith("bias") and weight.shape.rank == 1
    ]


def make_biases_unequal(model):
    """Moves one bias of each layer whose biases are all one number other than 0 by the last bit of it.

    The converter keeps such biases as a single number, and rounds that by the scale of the first channel where each channel has its own.

    Args:
        model: `AdoptedModel` with quantizers.
    """
    for layer in quantized_layers(model.legacy):
        for bias in biases_of(layer):
            values = np.array(bias)
            if len(values) > 1 and values[0] != 0 and (values == values[0]).all():
                values[0] = np.nextafter(values[0], np.inf, dtype=values.dtype)
                bias.assign(values)


def corrected_by(places, decided):
    """Finds the weight by which the output of each layer can be shifted: its own bias, or the mean of the BatchNormalization that is folded into it.

    Args:
        places: Dict of path to `Place`.
        decided: Dict of path to `LayerQuantization`.

    Returns:
        Dict of path to a pair (path of the layer that has the weight, name of its attribute), without layers that have none or are called several times.
    """
    folded = {id(place.layer): path for path, place in places.items() if introspection.kind_of(place.layer) == "BatchNormalization"}
    found = {}
    for path, place in places.items():
        quantization = decided[path].quantization
        rounded = decided[path].done and quantization is not None and quantization.weights
        if not rounded or place.runs != 1 or introspection.kind_of(place.layer) not in CORRECTABLE:
            continue
        if place.layer.use_bias if hasattr(place.layer, "use_bias") else place.layer.bias is not None:
            found[path] = (path, "bias")
        elif id(place.reader) in folded:
            found[path] = (folded[id(place.reader)], "moving_mean")
    return found


def correct_biases(model, float_model, signature, samples, corrected, multiplied):
    """Shifts biases so that the mean of every channel, before the activation, is that of the float model. Layer by layer: each sees its predecessors corrected.

    Where a few samples are far from the others, their clipped values decide the means, and all others would be shifted by what those few lack. Then the outputs are
    further from the float model than before, and nothing is shifted.

    Args:
        model: `AdoptedModel` with measured ranges.
        float_model: The tf_keras model without quantizers.
        signature: `ModelSignature` of the samples.
        samples: Calibration `Samples`.
        corrected: What `corrected_by` returned.
        multiplied: Dict of path to the numbers by which the channels of a layer were multiplied since, (channels,).

    Returns:
        List of sentences to warn the user by: empty, or that nothing was shifted.
    """
    kept = np.linspace(0, samples.count - 1, min(samples.count, _SAMPLES)).round().astype(int)
    if size := signature.inputs[0].batch:
        kept = np.resize(kept, size)
    inputs = signature.pack({name: array[kept] for name, array in samples.inputs.items()})
    means = {}
    with _activations_seen_by(float_model, corrected, lambda path, x: means.setdefault(path, _channel_means(x))):
        expected = float_model(inputs, training=False)
    layers = named_layers(model.legacy)
    variables = [getattr(introspection.unwrap(layers[holder]), attribute) for holder, attribute in corrected.values()]
    original = [np.array(variable) for variable in variables]
    before = output_error(expected, model.legacy(inputs, training=False))

    def correct(path, x):
        shift = _channel_means(x) - means[path] * multiplied.get(path, 1.0)
        holder, attribute = corrected[path]
        variable = getattr(introspection.unwrap(layers[holder]), attribute)
        if attribute == "moving_mean":
            variable.assign(np.asarray(variable) + shift)
            return x  # the normalization behind it subtracts the new mean
        # The bias of an EinsumDense may have several axes, or one that is not the last.
        ahead = len(variable.shape)
        whole = np.broadcast_to(shift, x.shape[-ahead:])
        kept = tuple(axis for axis in range(ahead) if variable.shape[axis] == 1)
        moved = whole.mean(kept, keepdims=True)
        variable.assign(np.asarray(variable) - moved)
        return x - moved

    with _activations_seen_by(model.legacy, corrected, correct):
        after = output_error(expected, model.legacy(inputs, training=False))
    if after <= (1 + _WORSE) * before or after - before <= _HALF_STEP or len(kept) < MIN_CALIBRATION_SAMPLES:
        return []
    for variable, values in zip(variables, original, strict=True):
        variable.assign(values)
    return [
        f"The biases were not corrected: that would have raised the mean error of the outputs on {len(kept)} calibration samples from {before:.1%} to {after:.1%} of their "
        "range, as a few samples far from the others decide the means. Quantize(bias_correction=False) leaves the correction out from the start."
    ]


def _channel_means(x):
    x = np.asarray(x, "float32")
    return x.mean(tuple(range(x.ndim - 1)), dtype="float64").astype("float32")


@contextlib.contextmanager
def _activations_seen_by(legacy, paths, look):
    """While open, `look(path, x)` sees what goes into the activation of each of these layers; what it returns for a quantized model takes its place."""
    layers = named_layers(legacy)
    with contextlib.ExitStack() as restored:
        for path in paths:
            wrapper = layers[path]
            inner, changes = introspection.unwrap(wrapper), introspection.is_wrapper(wrapper)
            function = inner.activation

            def seen(x, path=path, changes=changes):
                found = look(path, x)
                return found if changes else x

            # Past tf_keras's attribute setter, as the layer's own function comes back at once.
            vars(inner)["activation"] = Watched(function, seen)
            restored.callback(vars(inner).__setitem__, "activation", function)
        yield
