"""The functions of learned rounding: Nagel et al. (2020), section 3.2 and equations 21 to 25, https://arxiv.org/abs/2004.10568.

A weight w with steps of size s is s * (floor(w / s) + h), where h goes from 0 (down) to 1 (up). h is a sigmoid that is stretched and clipped, so that its ends can be
reached; the regularizer pulls h to them, ever more of it as beta falls.
"""

import math

import numpy as np

# The sigmoid is stretched to these two ends, and clipped to 0 and 1.
LOWEST, HIGHEST = -0.1, 1.1
# beta at the beginning, where only what is near 0 and 1 is pulled there, and at the end.
FIRST_BETA, LAST_BETA = 20.0, 2.0
# Share of the steps in which nothing is pulled.
FREE = 0.2
# What is closer to 0 or 1 than that has hardly a gradient to begin with.
_EDGE = 0.01


def rectified_sigmoid(variable):
    """Returns h, from 0 to 1, of a float tensor."""
    import tensorflow as tf

    return tf.clip_by_value(tf.sigmoid(variable) * (HIGHEST - LOWEST) + LOWEST, 0.0, 1.0)


def inverse(h):
    """Returns the variables of which `rectified_sigmoid` gives `h`.

    Args:
        h: NumPy array of numbers from 0 to 1; those at the very ends are moved inside by a hundredth.

    Returns:
        float32 array of its shape.

    Example:
        >>> np.round(inverse(np.array([0.5, 0.9])), 3).tolist()
        [0.0, 1.609]
    """
    stretched = (np.clip(np.asarray(h, "float64"), _EDGE, 1.0 - _EDGE) - LOWEST) / (HIGHEST - LOWEST)
    return np.log(stretched / (1.0 - stretched)).astype("float32")


def regularizer(h, beta):
    """Returns the sum of 1 - |2 h - 1| ** beta over a tensor: 0 where every h is 0 or 1, and their number where all are a half."""
    import tensorflow as tf

    return tf.reduce_sum(1.0 - tf.abs(2.0 * h - 1.0) ** beta)


def beta_at(share):
    """Returns beta after a share of all steps, from 0 to 1; None as long as the regularizer is left out.

    Example:
        >>> beta_at(0.1), beta_at(0.2), beta_at(1.0)
        (None, 20.0, 2.0)
    """
    if share < FREE:
        return None
    return LAST_BETA + (FIRST_BETA - LAST_BETA) * 0.5 * (1.0 + math.cos(math.pi * (share - FREE) / (1.0 - FREE)))
