"""How far the outputs of a quantized model are from those of the float model."""

import numpy as np


def output_error(expected, found):
    """Returns the mean absolute difference of outputs as a share of the range of the expected ones, of several outputs the largest.

    Args:
        expected: Outputs of the float model: a tensor or a nest of tensors.
        found: Those of the quantized model, in the same structure.
    """
    import tensorflow as tf

    shares = []
    for one, other in zip(tf.nest.flatten(expected), tf.nest.flatten(found), strict=True):
        one, other = np.asarray(one, "float64"), np.asarray(other, "float64")
        shares.append(np.abs(one - other).mean() / (np.ptp(one) or 1.0))
    return float(max(shares))
