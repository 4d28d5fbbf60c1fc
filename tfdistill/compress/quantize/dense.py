"""Dense layers whose weights have one scale: smaller files, which older kernels of microcontrollers run too.

TFLite's integer dense layers had one scale for all their weights until 2024; a scale for each output rounds finer and takes 8 to 24 bytes of each output, which in
a net of small dense layers is a tenth of the file.
"""

import numpy as np
import tensorflow as tf

from tfdistill.bridge.adopt import introspection
from tfdistill.bridge.adopt.layers import named_layers
from tfdistill.compress.quantize.fusion import folds
from tfdistill.errors import ModelError

DENSE = "Dense"
# Neighbouring float32 numbers on either side that are tried as a variance.
_NEIGHBOURS = 16


def one_scale(layer, decision):
    """Gives the 8-bit kernel of a dense layer one scale; other layers keep theirs.

    Args:
        layer: The tf_keras layer.
        decision: Its `LayerQuantization`.

    Returns:
        A `LayerQuantization`.
    """
    if (
        decision.quantization is None
        or introspection.kind_of(layer) != DENSE
        or not any(w.bits == 8 for w in decision.quantization.weights)
    ):
        return decision
    weights = tuple(w._replace(axes=()) if w.bits == 8 else w for w in decision.quantization.weights)
    reason = f"{decision.reason}, weights with one scale"
    return decision._replace(reason=reason, quantization=decision.quantization._replace(weights=weights))


def fold_normalizations(model, places, decided):
    """Multiplies the factors of the BatchNormalizations behind dense layers of one scale into the kernels, as the file will have them.

    Where the file folds a normalization, it multiplies the kernel by a factor for each output: rounded to one scale before, it would have many after. The model
    computes the same. Such a normalization is frozen, as its factors are no longer apart from the kernel.

    Args:
        model: `AdoptedModel` with quantizers.
        places: Dict of path to `Place` in the model without quantizers.
        decided: Dict of path to `LayerQuantization`.

    Returns:
        Dict of path of a dense layer to the factors by which its outputs were multiplied, an array (units,).

    Raises:
        ModelError: if such a kernel is clustered: times a factor for each output, its few values are many.
    """
    layers, known = named_layers(model.legacy), {id(place.layer): place for place in places.values()}
    paths, bits = {id(place.layer): path for path, place in places.items()}, dict.fromkeys(places, 8)
    found = {}
    for path, place in places.items():
        quantization = decided[path].quantization
        if introspection.kind_of(place.layer) != DENSE or quantization is None or not folds(place, known, bits):
            continue
        if any(weight.bits == 8 and not weight.axes for weight in quantization.weights):
            if any(weight.clusters for weight in quantization.weights):
                raise ModelError(
                    f"per_channel_dense=False, but the kernel of '{path}' is clustered, and the BatchNormalization behind it is folded into it: with a factor "
                    "for each output, its few values are many.",
                    "dense layers without clusters in front of a BatchNormalization",
                    "leave out per_channel_dense=False",
                )
            found[path] = _fold(introspection.unwrap(layers[path]), introspection.unwrap(layers[paths[id(place.reader)]]))
    return found


def _fold(dense, normalization):
    variance, epsilon = np.asarray(normalization.moving_variance), np.float32(normalization.epsilon)
    factor = 1.0 / np.sqrt(variance + epsilon)
    if normalization.gamma is not None:
        factor = factor * np.asarray(normalization.gamma)
        normalization.gamma.assign(np.ones_like(factor))
    dense.kernel.assign(np.asarray(dense.kernel) * factor)
    if dense.use_bias:
        dense.bias.assign(np.asarray(dense.bias) * factor)
    normalization.moving_mean.assign(np.asarray(normalization.moving_mean) * factor)
    normalization.moving_variance.assign(_variances_of_one(variance.shape, epsilon))
    normalization.trainable = False
    return factor


def _variances_of_one(shape, epsilon):
    """Returns the variances by which a normalization without gamma multiplies by exactly 1, which the converter leaves out.

    Kernels of some processors compute the reciprocal square root by an approximation that is one bit off at 1, and in whole vectors only, so that the right variance
    depends on the place in the array: it is sought with the operation itself.

    Args:
        shape: Shape of the moving variance.
        epsilon: The normalization's epsilon, float32.
    """
    nearest = np.float32(1.0) - epsilon
    tried = [nearest]
    for end in (np.float32(0.0), np.float32(2.0)):
        value = nearest
        for _ in range(_NEIGHBOURS):
            value = np.nextafter(value, end)
            tried.append(value)
    found, exact = np.full(shape, nearest), np.zeros(shape, bool)
    for value in tried:
        ones = np.asarray(tf.math.rsqrt(tf.fill(shape, value) + epsilon)) == 1.0
        found, exact = np.where(ones & ~exact, value, found), exact | ones
    return found
