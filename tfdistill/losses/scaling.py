"""Normalization whose result does not depend on the scale of its input.

Squares of small float32 numbers underflow and squares of large ones overflow. Every function here divides by the largest magnitude first,
so that only numbers up to one are squared. The divisor has no gradient: it cancels in the result, so the gradient is exact without it.
"""

import keras
import numpy as np
from keras import ops

# A magnitude below this counts as zero. Its reciprocal, times the gradient of a loss, still fits into float32.
SMALLEST = 1e-30


def rounding(x):
    """Returns the relative spread within which numbers of the type of `x` count as equal: 64 units of the last place."""
    return 64.0 * float(np.finfo(keras.backend.standardize_dtype(x.dtype)).eps)


def magnitude(x, axis=None):
    """Returns the largest absolute value along `axis` (None stands for all axes), which is kept, without gradient."""
    return ops.stop_gradient(ops.max(ops.abs(x), axis=axis, keepdims=True))


def rescaled(x, axis=None):
    """Divides `x` by its largest magnitude along `axis` (None stands for all axes). Zeros stay zeros, with the gradient of the identity."""
    peak = magnitude(x, axis)
    return x / ops.where(peak > SMALLEST, peak, 1.0)


def length(x, axis=-1):
    """Computes the Euclidean length along `axis`, which is kept. Not for gradients: that of a zero vector is not finite."""
    peak = magnitude(x, axis)
    peak = ops.where(peak > SMALLEST, peak, 1.0)
    return peak * ops.sqrt(ops.sum(ops.square(x / peak), axis=axis, keepdims=True))


def normalized(x, floor, axis=-1):
    """Divides `x` by its Euclidean length along `axis`, or by `floor` where that is larger.

    Args:
        x: `(..., n, ...)`.
        floor: Least length, at least 0: a number, or a tensor without gradient that broadcasts to the shape of `x` with `axis` of size 1.
        axis: The axis of the vectors.

    Returns:
        The shape of `x`. The gradient is at most about 1 / floor. A zero vector whose floor is 0 stays zero, with the gradient of the
        identity.
    """
    peak = ops.maximum(magnitude(x, axis), floor)
    known = peak > SMALLEST
    peak = ops.where(known, peak, 1.0)
    unit = x / peak
    least = ops.where(known, ops.square(floor / peak), 1.0)
    return unit * ops.rsqrt(ops.maximum(ops.sum(ops.square(unit), axis=axis, keepdims=True), least))


def unit_vectors(x, axis=-1):
    """Divides `x` by its Euclidean length along `axis`.

    Args:
        x: `(..., n, ...)`, of any scale from 1e-30 up.
        axis: The axis of the vectors.

    Returns:
        The shape of `x`. A zero vector has no direction and stays zero. Its gradient is that of a division by the largest magnitude in `x`
        (by 1 where all of `x` is zero), so it is no larger than the gradients of the other vectors.
    """
    peak = magnitude(x, axis)
    largest = ops.max(peak)
    return normalized(x, ops.where(peak > SMALLEST, 0.0, ops.where(largest > SMALLEST, largest, 1.0)), axis)
