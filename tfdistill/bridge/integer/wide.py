"""Rounding to the 65,536 steps of an int16 tensor, whose middle is always 0."""

# Largest magnitude of a range without width, as a step must not be zero.
_TINY = 1e-9


def round_wide(x, low, high):
    """Rounds a tensor as a layer with activations of 16 bits does in the file.

    Args:
        x: float32 tensor.
        low: Lower end of its range, at most 0.
        high: Upper end, at least 0.

    Returns:
        float32 tensor. A range that ends at 0 clips there; else the steps go as far below 0 as above.
    """
    import tensorflow as tf

    low, high = tf.convert_to_tensor(low, tf.float32), tf.convert_to_tensor(high, tf.float32)
    limit = tf.maximum(tf.maximum(high, -low), _TINY)
    rounded = tf.quantization.fake_quant_with_min_max_vars(x, -limit, limit, num_bits=16, narrow_range=True)
    return tf.clip_by_value(rounded, tf.where(low < 0, -limit, 0.0), tf.where(high > 0, limit, 0.0))


def clipped(x, low, high):
    """Clips a tensor to bounds, of which None is no bound."""
    import tensorflow as tf

    x = x if low is None else tf.maximum(x, tf.cast(low, x.dtype))
    return x if high is None else tf.minimum(x, tf.cast(high, x.dtype))
