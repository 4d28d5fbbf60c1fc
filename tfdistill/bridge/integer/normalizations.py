"""Normalizations and other products and sums with constants, computed the way an integer file computes them. The forms are as in `layers`."""

import math

from tfdistill.bridge import imports

# What takes the place of a form of `ROWWISE` where some rows are far smaller than others: normalized rows are normalized once more.
TWICE = "normalized twice"
# The forms that divide each row by a root of its own.
ROWWISE = ("group normalization", "layer normalization", "root mean square normalization", "unit normalization")


def normalization_alone(layer, quantize, args, kwargs):
    """A BatchNormalization that is folded into no convolution."""
    import tensorflow as tf

    x, axes = args[0], list(layer.axis)
    multiplier = tf.math.rsqrt(layer.moving_variance + layer.epsilon)
    if layer.scale:
        multiplier *= layer.gamma
    offset = -layer.moving_mean * multiplier
    if layer.center:
        offset += layer.beta
    if kwargs.get("training") and layer.trainable:
        outputs = layer(*args, **kwargs)
        if not _is_convolution(x, axes):
            quantize(tf.cast(outputs, "float32") - tf.reshape(offset, _broadcast_shape(x, axes)), "scaled")  # for its range
        return outputs
    return _affine(layer, x, multiplier, offset, quantize, axes)


def rescaling(layer, quantize, args, kwargs):
    """A Rescaling."""
    import tensorflow as tf

    ones = tf.ones((args[0].shape[-1],))
    return _affine(layer, args[0], layer.scale * ones, layer.offset * ones, quantize)


def standardization(layer, quantize, args, kwargs):
    """A Normalization by the mean and variance of the data, or its inverse."""
    import tensorflow as tf

    axes = list(layer._keep_axis)
    deviation = tf.maximum(tf.sqrt(layer.variance), imports.tf_keras().backend.epsilon())
    multiplier, offset = (deviation, layer.mean) if layer.invert else (1.0 / deviation, -layer.mean / deviation)
    shape = [args[0].shape[axis] for axis in axes] or [args[0].shape[-1]]
    multiplier, offset = (tf.broadcast_to(tf.reshape(x, shape if axes else (-1,)), shape) for x in (multiplier, offset))
    return _affine(layer, args[0], multiplier, offset, quantize, axes or [args[0].shape.rank - 1])


def layer_normalization(layer, quantize, args, kwargs):
    """A LayerNormalization over any axes, step by step."""
    import tensorflow as tf

    axes = list(layer.axis) if isinstance(layer.axis, (list, tuple)) else [layer.axis]
    quantize, x = _in_float_by_choice("layer normalization", quantize, tf.cast(args[0], "float32"))
    y = _divided("layer normalization", _centred(x, axes, quantize), axes, layer.epsilon, quantize, tf.reduce_mean)
    return _scaled(layer, y, quantize, axes, layer.gamma if layer.scale else None, layer.beta if layer.center else None)


def group_normalization(layer, quantize, args, kwargs):
    """A GroupNormalization, step by step as well."""
    import tensorflow as tf

    quantize, x = _in_float_by_choice("group normalization", quantize, tf.cast(args[0], "float32"))
    axis = layer.axis % x.shape.rank
    before, channels, after = math.prod(x.shape[1:axis]), x.shape[axis], math.prod(x.shape[axis + 1 :])
    # The channels of a group, and all that stands behind their axis, are next to each other.
    grouped = tf.reshape(x, (-1, before, layer.groups, channels // layer.groups * after))
    y = _divided("group normalization", _centred(grouped, [1, 3], quantize), [1, 3], layer.epsilon, quantize, tf.reduce_mean)
    y = tf.reshape(y, (-1, *x.shape[1:]))
    return _scaled(layer, y, quantize, [axis], layer.gamma if layer.scale else None, layer.beta if layer.center else None)


def root_mean_square_normalization(layer, quantize, args, kwargs):
    """An RMSNormalization, which tf_keras does not have: the Keras 3 layer's settings, and its scale as this layer's own weight."""
    import tensorflow as tf

    hosted = layer._hosted.layer
    axes = list(hosted.axis) if isinstance(hosted.axis, (list, tuple)) else [hosted.axis]
    quantize, x = _in_float_by_choice("root mean square normalization", quantize, tf.cast(args[0], "float32"))
    y = _divided("root mean square normalization", x, axes, hosted.epsilon, quantize, tf.reduce_mean)
    scale = tf.convert_to_tensor((layer._hosted.trainable or layer._hosted.fixed)[0])
    if len(axes) == 1:
        return _scaled(layer, y, quantize, axes, scale, None)
    return tf.cast(quantize(y, "normalized") * tf.cast(scale, "float32"), layer.compute_dtype)


def unit_normalization(layer, quantize, args, kwargs):
    """A UnitNormalization, step by step. TFLite's own L2_NORMALIZATION has steps of 1/128, which are too few where many numbers are normalized together."""
    import tensorflow as tf

    axes = list(layer.axis) if isinstance(layer.axis, (list, tuple)) else [layer.axis]
    quantize, x = _in_float_by_choice("unit normalization", quantize, tf.cast(args[0], "float32"))
    return tf.cast(_divided("unit normalization", x, axes, 1e-12, quantize, tf.reduce_sum), layer.compute_dtype)


def _unrounded(x, what, **settings):
    """Takes the place of an `ActivationRounder` where everything is computed in float."""
    return x


def _in_float_by_choice(form, quantize, x):
    """Returns how the tensors of a form are rounded, and its input; nothing is where the form is computed in float in the file too."""
    return (_unrounded, quantize.unrounded(x)) if quantize.is_float(form) else (quantize, x)


def _centred(x, axes, quantize):
    """Returns the rounded `x` minus its mean over `axes`."""
    import tensorflow as tf

    return quantize(x - quantize(tf.reduce_mean(x, axes, keepdims=True), "mean"), "centred")


def _divided(form, x, axes, epsilon, quantize, reduce):
    """Returns `x` divided by the root of its mean or sum of squares over `axes` + epsilon.

    In the form `TWICE`, the result is divided once more by its own root: rows whose squares are less than one step of the largest row's come out too small the
    first time, but near enough to the others for steps of their own the second time.
    """
    y = x * _inverse_root(x, axes, epsilon, quantize, reduce)
    if quantize is _unrounded or quantize.form_of(form) != TWICE:
        return y
    y = quantize(y, "normalized_once")
    return y * _inverse_root(y, axes, 1e-12, quantize, reduce, "second_")


def _inverse_root(x, axes, epsilon, quantize, reduce, which=""):
    """Returns the rounded 1 / sqrt(mean or sum of squares over `axes` + epsilon).

    One scale holds the variances of all rows, so that of a quiet row may round to 0: it counts as one step. A row that is constant after rounding is 0
    whatever it is multiplied by: its inverse deviation, the largest of all, does not widen the range that the others are rounded to.
    """
    import tensorflow as tf

    variance = quantize(reduce(quantize(x * x, f"{which}squares"), axes, keepdims=True), f"{which}variance")
    inverse = tf.math.rsqrt(quantize(variance + epsilon, f"{which}variance_and_epsilon", positive=True))
    return quantize(inverse, f"{which}inverse_deviation", counted=tf.reduce_any(tf.not_equal(x, 0.0), axes, keepdims=True))


def _scaled(layer, y, quantize, axes, gamma, beta):
    import tensorflow as tf

    if gamma is None and beta is None:
        return tf.cast(y, layer.compute_dtype)
    like = gamma if gamma is not None else beta
    gamma, beta = tf.ones_like(like) if gamma is None else gamma, tf.zeros_like(like) if beta is None else beta
    return _affine(layer, quantize(y, "normalized"), gamma, beta, quantize, axes)


def _affine(layer, x, multiplier, offset, quantize, axes=(-1,)):
    """Returns `x * multiplier + offset` along some axes.

    Along the last of at most four it is a 1 x 1 depthwise convolution, which has a scale for each channel, a 32-bit sum and one rounding. A product and a sum
    are rounded twice.
    """
    import tensorflow as tf

    x = tf.cast(x, "float32")
    if quantize is not _unrounded and _is_convolution(x, axes):
        return tf.cast(_per_channel(x, multiplier, offset), layer.compute_dtype)
    shape = _broadcast_shape(x, axes)
    scaled = quantize(x * tf.reshape(multiplier, shape), "scaled")
    return tf.cast(scaled + tf.reshape(offset, shape), layer.compute_dtype)


def _is_convolution(x, axes):
    """Whether a product and a sum along some axes can be a 1 x 1 depthwise convolution: along the last of at most four."""
    rank = x.shape.rank
    return [axis % rank for axis in axes] == [rank - 1] and 2 <= rank <= 4


def _broadcast_shape(x, axes):
    along = {axis % x.shape.rank for axis in axes}
    return [size if axis in along else 1 for axis, size in enumerate(x.shape)]


def _per_channel(x, multiplier, offset):
    """Returns `x * multiplier + offset` along the last of at most four axes, as a 1 x 1 depthwise convolution."""
    import tensorflow as tf

    added = list(range(1, 5 - x.shape.rank))
    for axis in added:
        x = tf.expand_dims(x, axis)
    y = tf.nn.bias_add(tf.nn.depthwise_conv2d(x, tf.reshape(multiplier, (1, 1, -1, 1)), (1, 1, 1, 1), "VALID"), offset)
    return tf.squeeze(y, added) if added else y
