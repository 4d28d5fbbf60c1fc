"""Where to clip a tensor so that rounding it to 256 steps changes it least: clipping makes the steps finer, and loses what is outside.

The mean squared error over a histogram, as in Nagel et al., "A White Paper on Neural Network Quantization" (2021), section 3.1,
https://arxiv.org/abs/2106.08295, and Choukroun et al., "Low-bit Quantization of Neural Networks for Efficient Inference" (2019),
https://arxiv.org/abs/1902.06822.
"""

import typing

import numpy as np

STEPS = 255
# Ends of the range are tried at so many places between 0 and the widest.
_PLACES = 100


class Clipped(typing.NamedTuple):
    """The best range of a tensor.

    Attributes:
        low: Its lower end, at most 0.
        high: Its upper end, at least 0.
    """

    low: float
    high: float


def best_range(counts, low, high):
    """Finds the range of least squared error.

    Values inside have the error of rounding, a twelfth of a squared step; those outside that of being moved to the end of the range.

    Args:
        counts: How many values fall into each of equal bins between `low` and `high`, without zeros, (bins,).
        low: Smallest value, at most 0.
        high: Largest value, at least 0.

    Returns:
        `Clipped`.

    Example:
        >>> values = np.r_[np.random.default_rng(0).normal(size=10_000), 50.0]
        >>> found = best_range(np.histogram(values, 2048, (-4.0, 50.0))[0], -4.0, 50.0)
        >>> found.high < 30
        True
    """
    counts = np.asarray(counts, np.float64)
    total = counts.sum()
    if not total or high <= low:
        return Clipped(low, high)
    width = (high - low) / len(counts)
    centers = low + width * (np.arange(len(counts)) + 0.5)
    shares = np.arange(1, _PLACES + 1) / _PLACES
    lows, highs = (shares * end if end else np.zeros(1) for end in (low, high))
    above, lost_above = _outside(counts, centers, highs)
    below, lost_below = _outside(counts[::-1], -centers[::-1], -lows)
    steps = (highs[None, :] - lows[:, None]) / STEPS
    inside = total - above[None, :] - below[:, None]
    errors = steps**2 / 12 * inside + lost_above[None, :] + lost_below[:, None]
    i, j = np.unravel_index(np.argmin(errors), errors.shape)
    return Clipped(float(lows[i]), float(highs[j]))


def _outside(counts, centers, ends):
    """Returns the number of values above each end, and the sum of their squared distances from it."""
    sums = [np.cumsum((counts * centers**power)[::-1])[::-1] for power in range(3)]
    found = np.searchsorted(centers, ends, side="right")
    number, first, second = (np.append(s, 0.0)[found] for s in sums)
    return number, np.maximum(second - 2 * ends * first + ends**2 * number, 0.0)
