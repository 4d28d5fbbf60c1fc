"""Scores that are hidden from a softmax, in integers: one number stands for all that is hidden, a margin below the scores that are seen.

A number that is added to hide a score, such as -1e9, is beyond any range of 256 steps that scores fit in. What is only added is a tensor of its own, of 0 and `HIDING`, and
the range of the sum ends `MARGIN` below the lowest score that is seen: TFLite's sums end there as well, so that all that is hidden is that far below whatever is seen.
"""

# The exponential of the distance between what is hidden and the lowest score that is seen is 1e-7, far below the smallest of 256 steps.
MARGIN = 16.0
# What is added to hide a score, up or down: wider than any two scores are apart, and not so wide that XNNPACK refuses the sum, which has steps of at least 16 / 255.
HIDING = 2048.0
# What is added to a score to hide it is beyond this number; in a constant of zeros and such numbers, below the other one.
_LEAST, _LEAST_BESIDE_ZERO = 1000.0, -50.0


def without_large_numbers(constant):
    """Returns a constant of scores, or of what is added to them, with `HIDING`, up or down, in place of the numbers that hide a score."""
    import tensorflow as tf

    known = tf.get_static_value(constant)
    hiding = tf.abs(constant) >= _LEAST
    if known is not None and (known == 0.0).any() and ((known == 0.0) | (known <= _LEAST_BESIDE_ZERO)).all():
        hiding |= constant < 0.0
    return tf.where(hiding, tf.sign(constant) * tf.cast(HIDING, constant.dtype), constant)


def is_hiding(constant):
    """Whether a constant array has numbers that hide the scores which they are added to."""
    import numpy as np
    import tensorflow as tf

    return not np.array_equal(without_large_numbers(tf.constant(constant)), constant)


def seen_and_margins(x):
    """Splits a tensor of scores, or of what is added to them.

    Args:
        x: float tensor.

    Returns:
        The tensor with zeros in place of what hides or is hidden, and how far its range has to go on, below and above, for that: `MARGIN` or 0, scalars.
    """
    import tensorflow as tf

    below, above = x <= -_LEAST, x >= _LEAST
    margins = tuple(tf.where(tf.reduce_any(where), tf.cast(MARGIN, x.dtype), 0.0) for where in (below, above))
    return tf.where(below | above, 0.0, x), margins


def ends_with_margins(low, high, below, above):
    """Returns the two ends of a range of what is seen with the margins for what is hidden, or `HIDING` where nothing but zeros is seen: what is added to hide scores."""
    import tensorflow as tf

    factor = tf.where((low == 0.0) & (high == 0.0), HIDING / MARGIN, 1.0)
    return low + factor * below, high + factor * above
