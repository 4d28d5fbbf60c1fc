"""Precision, Huber's function, and Keras's convention for sample weights."""

import keras
from keras import ops

from tfdistill.errors import DataError


def at_least_float32(x):
    """Returns `x` as float32, or as it is where it is wider: in half precision exponentials overflow and sums lose digits."""
    x = ops.convert_to_tensor(x)
    return x if keras.backend.standardize_dtype(x.dtype) in ("float32", "float64") else ops.cast(x, "float32")


def huber(difference, delta=1.0):
    """Computes Huber's function of each element: d**2 / 2 up to `delta`, and delta * (|d| - delta / 2) above."""
    size = ops.abs(difference)
    # A minimum instead of a branch, so that the gradient is that of one expression.
    capped = ops.minimum(size, delta)
    return capped * (size - 0.5 * capped)


def flat_weights(sample_weight, dtype, rank):
    """Returns sample weights, those of shape `(batch, 1)` as `(batch,)`.

    Args:
        sample_weight: `(batch,)`, `(batch, 1)`, or `(batch, T)`.
        dtype: Type of the losses.
        rank: Number of dimensions of the losses; 1 for a loss per sample.

    Returns:
        A tensor of at most `rank` dimensions.

    Raises:
        DataError: if the weights have more dimensions than the losses.
    """
    weight = ops.cast(sample_weight, dtype)
    if len(weight.shape) > 1 and weight.shape[-1] == 1:
        weight = ops.squeeze(weight, -1)
    if not 1 <= len(weight.shape) <= rank:
        raise DataError(
            f"sample_weight has the shape {tuple(weight.shape)}, for losses of {rank} dimension{'s' if rank > 1 else ''}.",
            "(batch,), or (batch, T) where the outputs have T positions",
        )
    return weight


def weighted_mean(losses, sample_weight=None):
    """Computes the weighted mean of losses as Keras does: the sum is divided by the number of samples, not by the sum of weights.

    Args:
        losses: `(batch, ...)`, one loss per sample or per position of a sample.
        sample_weight: None, or `(batch,)`, `(batch, 1)`, or `(batch, T)` where the losses have positions. Trailing dimensions of the losses
            that they do not have are averaged first.

    Returns:
        Scalar.

    Raises:
        DataError: if the weights have more dimensions than the losses.
    """
    if sample_weight is None:
        return ops.mean(losses)
    weight = ops.cast(sample_weight, losses.dtype)
    if len(weight.shape) == len(losses.shape) + 1 and weight.shape[-1] == 1:
        weight = ops.squeeze(weight, -1)
    if len(weight.shape) > len(losses.shape):
        raise DataError(
            f"sample_weight has the shape {tuple(weight.shape)}, the losses have {tuple(losses.shape)}.",
            "weights per sample, or per position of a sequence",
        )
    surplus = tuple(range(len(weight.shape), len(losses.shape)))
    return ops.mean(ops.multiply(ops.mean(losses, axis=surplus) if surplus else losses, weight))
