"""Layers computed the way an integer file computes them: what is one layer to Keras is several integer tensors there, and each needs a range.

Every form is a function of (layer, quantize, args, kwargs): the tf_keras layer, with rounded weights in place of its own; `quantize(x, what)`, an
`ActivationRounder`, which rounds a tensor to the range that is trained under the name `what`; and what the layer is called with.
"""

import math

from tfdistill.bridge import imports
from tfdistill.bridge.integer.activations import elu
from tfdistill.bridge.integer.attention import attention, grouped_attention
from tfdistill.bridge.integer.recurrent import recurrent


def normalization_alone(layer, quantize, args, kwargs):
    """A BatchNormalization that is folded into no convolution, as a 1 x 1 depthwise convolution.

    As a product and a sum it would be rounded twice, the product on a range that no training has seen; as a convolution it has a scale for each channel, a 32-bit sum
    and one rounding.
    """
    import tensorflow as tf

    if kwargs.get("training") and layer.trainable:
        return layer(*args, **kwargs)
    multiplier = tf.math.rsqrt(layer.moving_variance + layer.epsilon)
    if layer.scale:
        multiplier *= layer.gamma
    offset = -layer.moving_mean * multiplier
    if layer.center:
        offset += layer.beta
    return tf.cast(_per_channel(tf.cast(args[0], "float32"), multiplier, offset), layer.compute_dtype)


def rescaling(layer, quantize, args, kwargs):
    """A Rescaling as such a convolution, for the same reason."""
    import tensorflow as tf

    ones = tf.ones((args[0].shape[-1],))
    return tf.cast(_per_channel(tf.cast(args[0], "float32"), layer.scale * ones, layer.offset * ones), layer.compute_dtype)


def standardization(layer, quantize, args, kwargs):
    """A Normalization (by the mean and variance of the data) as such a convolution."""
    import tensorflow as tf

    ones = tf.ones((args[0].shape[-1],))
    multiplier = tf.reshape(1.0 / tf.maximum(tf.sqrt(layer.variance), imports.tf_keras().backend.epsilon()), (-1,)) * ones
    offset = -tf.reshape(layer.mean, (-1,)) * multiplier
    return tf.cast(_per_channel(tf.cast(args[0], "float32"), multiplier, offset), layer.compute_dtype)


def _per_channel(x, multiplier, offset):
    """Returns `x * multiplier + offset` along the last of at most four axes, as a 1 x 1 depthwise convolution."""
    import tensorflow as tf

    added = list(range(1, 5 - x.shape.rank))
    for axis in added:
        x = tf.expand_dims(x, axis)
    y = tf.nn.bias_add(tf.nn.depthwise_conv2d(x, tf.reshape(multiplier, (1, 1, -1, 1)), (1, 1, 1, 1), "VALID"), offset)
    return tf.squeeze(y, added) if added else y


def layer_normalization(layer, quantize, args, kwargs):
    """A LayerNormalization over the last axis, step by step, ending in a 1 x 1 depthwise convolution by its scale and offset."""
    import tensorflow as tf

    x = tf.cast(args[0], "float32")
    return _scaled(layer, _standardized(x, [-1], layer.epsilon, quantize), quantize)


def group_normalization(layer, quantize, args, kwargs):
    """A GroupNormalization over the last axis, step by step as well."""
    import tensorflow as tf

    x = tf.cast(args[0], "float32")
    places, channels = math.prod(x.shape[1:-1]), x.shape[-1]
    grouped = tf.reshape(x, (-1, places, layer.groups, channels // layer.groups))
    y = _standardized(grouped, [1, 3], layer.epsilon, quantize)
    return _scaled(layer, tf.reshape(y, (-1, *x.shape[1:])), quantize)


def _standardized(x, axes, epsilon, quantize):
    """Returns `x` minus its mean over `axes`, divided by its standard deviation.

    One scale holds the variances of all rows, so that of a quiet row may round to 0: it counts as one step. A row that is constant after rounding is 0
    whatever it is multiplied by: its inverse deviation, the largest of all, does not widen the range that the others are rounded to.
    """
    import tensorflow as tf

    centred = quantize(x - quantize(tf.reduce_mean(x, axes, keepdims=True), "mean"), "centred")
    variance = quantize(tf.reduce_mean(quantize(centred * centred, "squares"), axes, keepdims=True), "variance")
    inverse = tf.math.rsqrt(quantize(variance + epsilon, "variance_and_epsilon", positive=True))
    moving = tf.reduce_any(tf.not_equal(centred, 0.0), axes, keepdims=True)
    return centred * quantize(inverse, "inverse_deviation", counted=moving)


def _scaled(layer, y, quantize):
    import tensorflow as tf

    if layer.scale or layer.center:
        ones = tf.ones((y.shape[-1],))
        y = _per_channel(quantize(y, "normalized"), layer.gamma * ones if layer.scale else ones, layer.beta if layer.center else 0.0 * ones)
    return tf.cast(y, layer.compute_dtype)


def separable(layer, quantize, args, kwargs):
    """SeparableConv1D and SeparableConv2D: a depthwise convolution, its output rounded, and a pointwise one."""
    import tensorflow as tf

    x, depthwise, pointwise = args[0], layer.depthwise_kernel, layer.pointwise_kernel
    strides, dilations, padding = layer.strides, layer.dilation_rate, layer.padding
    flat = layer.rank == 1
    if padding == "causal":
        x, padding = tf.pad(x, layer._compute_causal_padding(x)), "valid"
    if flat:
        x, depthwise, pointwise = tf.expand_dims(x, 1), depthwise[None], pointwise[None]
        strides, dilations = strides * 2, (1, *dilations)
    x = tf.nn.depthwise_conv2d(x, depthwise, (1, *strides, 1), padding.upper(), dilations=dilations)
    x = tf.nn.conv2d(quantize(x, "depthwise"), pointwise, 1, "VALID")
    if layer.use_bias:
        x = tf.nn.bias_add(x, layer.bias)
    x = tf.squeeze(x, [1]) if flat else x
    return x if layer.activation is None else layer.activation(x)


def average_pooling(layer, quantize, args, kwargs):
    """An AveragePooling2D without padding, as a depthwise convolution by a constant: TFLite's own would round its output to the steps of its input.

    Where there is one place to average over, a mean does the same, without a kernel of that size in the file.
    """
    import tensorflow as tf

    (height, width), size = layer.pool_size, args[0].shape[1:3]
    if size.is_fully_defined() and all((s - p) // step == 0 for s, p, step in zip(size, layer.pool_size, layer.strides, strict=True)):
        x = args[0] if list(size) == [height, width] else args[0][:, :height, :width]
        return tf.reduce_mean(x, [1, 2], keepdims=True)
    kernel = tf.fill((height, width, args[0].shape[-1], 1), tf.cast(1.0 / (height * width), args[0].dtype))
    return tf.nn.depthwise_conv2d(args[0], kernel, (1, *layer.strides, 1), "VALID")


def masking(layer, quantize, args, kwargs):
    """A Masking: the hidden steps become zeros by selection, where a product would make floats of the mask."""
    import tensorflow as tf

    x = args[0]
    value = tf.constant(layer.mask_value, x.dtype)
    if layer.mask_value:
        x, value = quantize(x, "input"), quantize(value, "input")  # on one grid, or none would be equal
    else:
        value = tf.quantization.fake_quant_with_min_max_args(value, -1.0, 127 / 128)  # any range will do, but the file needs one
    # TFLite compares integers for equality; its operation for the opposite has floats only.
    hidden = tf.reduce_all(tf.equal(x, value), axis=-1, keepdims=True)
    outputs = tf.where(hidden, tf.zeros_like(x), x)
    outputs._keras_mask = tf.squeeze(tf.logical_not(hidden), -1)
    return outputs


def average_of_steps(layer, quantize, args, kwargs):
    """A GlobalAveragePooling1D; under a mask, the mean over all steps by N / n, which is looked up for the number n of the N steps that are not masked.

    TFLite has no integer division, and 256 steps are too few for N / n itself: its square root is multiplied by, twice.
    """
    import tensorflow as tf

    mask = kwargs.get("mask")
    if mask is None:
        return layer(*args, **kwargs)
    x, steps = args[0], args[0].shape[1]
    mask = tf.cast(mask, "bool")
    mean = quantize(tf.reduce_mean(tf.where(mask[..., None], x, tf.zeros_like(x)), 1, keepdims=layer.keepdims), "masked_mean")
    roots = tf.constant([0.0, *((steps / n) ** 0.5 for n in range(1, steps + 1))], x.dtype)
    root = quantize(tf.gather(roots, tf.reduce_sum(tf.cast(mask, "int32"), 1, keepdims=True)), "root")
    root = root[..., None] if layer.keepdims else root
    return quantize(mean * root, "half") * root


def elu_layer(layer, quantize, args, kwargs):
    """An ELU layer."""
    return elu(None, args[0], quantize, "input", float(layer.alpha))


FORMS = {
    "elu": elu_layer,
    "group normalization": group_normalization,
    "grouped attention": grouped_attention,
    "attention": attention,
    "average of steps": average_of_steps,
    "average pooling": average_pooling,
    "layer normalization": layer_normalization,
    "masking": masking,
    "normalization alone": normalization_alone,
    "recurrent": recurrent,
    "rescaling": rescaling,
    "separable": separable,
    "standardization": standardization,
}
