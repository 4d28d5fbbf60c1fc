"""Layers that average or repeat neighbouring pixels, computed in operations that integer files have and that are fast."""

# Form of an UpSampling2D that repeats pixels, and the one of concatenations in its place.
ENLARGING, ENLARGING_OF_PARTS = "enlarging", "enlarging_of_parts"


def average_pooling(layer, quantize, args, kwargs):
    """An AveragePooling2D or AveragePooling1D, as a depthwise convolution by a constant: TFLite's own would round its output to the steps of its input.

    Where there is one place to average over, a mean does the same, without a kernel of that size in the file. Padding counts as no pixel: what is next to it is
    multiplied by the size of the window, as a share of the pixels in it.
    """
    import tensorflow as tf

    flat, window, strides = len(args[0].shape) == 3, tuple(layer.pool_size), tuple(layer.strides)
    x = tf.expand_dims(args[0], 1) if flat else args[0]
    if flat:
        window, strides = (1, *window), (1, *strides)
    (height, width), size = window, x.shape[1:3]
    padded = layer.padding == "same"
    if not padded and size.is_fully_defined() and all((s - p) // step == 0 for s, p, step in zip(size, window, strides, strict=True)):
        x = x if list(size) == [height, width] else x[:, :height, :width]
        x = tf.reduce_mean(x, [1, 2], keepdims=True)
    else:
        kernel = tf.fill((height, width, x.shape[-1], 1), tf.cast(1.0 / (height * width), x.dtype))
        x = tf.nn.depthwise_conv2d(x, kernel, (1, *strides, 1), layer.padding.upper())
        if padded and (shares := _shares_of_windows(size, window, strides)).min() < 1.0:
            x = quantize(x, "with_padding") * tf.constant(1.0 / shares, x.dtype)
    return tf.squeeze(x, 1) if flat else x


def _shares_of_windows(size, window, strides):
    """Share of the pixels of each window that are no padding; an array (1, height, width, 1)."""
    import numpy as np

    found = []
    for length, pool, step in zip(size, window, strides, strict=True):
        places = -(-length // step)
        before = max((places - 1) * step + pool - length, 0) // 2
        starts = np.arange(places) * step - before
        found.append((np.minimum(starts + pool, length) - np.maximum(starts, 0)) / pool)
    return (found[0][:, None] * found[1])[None, :, :, None]


def enlarging(layer, quantize, args, kwargs):
    """An UpSampling2D that repeats pixels: an operation of its own, or copies of all pixels beside each other, which a change of shape puts in their places."""
    import tensorflow as tf

    x = args[0]
    if quantize.form_of(ENLARGING) != ENLARGING_OF_PARTS or not quantize.in_the_file:
        return layer(*args, **kwargs)
    _, height, width, channels = x.shape
    down, across = layer.size
    wide = tf.concat([x] * across, -1) if across > 1 else x
    rows = tf.reshape(wide, (-1, height, across * width * channels))
    high = tf.concat([rows] * down, -1) if down > 1 else rows
    return tf.reshape(high, (-1, down * height, across * width, channels))
