"""The steps that the weights of a layer are rounded to: their size, the step below each weight, and weights that a file's quantizer finds on its own steps again.

A file's quantizer has the largest weight of a channel as its last step. Rounded weights are k * scale with whole k from -7 to 7 (4 bits), of which at least one in each
channel is -7 or 7: the quantizer then finds the same scale and the same k.
"""

import typing

import numpy as np

from tfdistill.compress.rounding.settings import MAX

# Shares of the largest weight that are tried as the last step.
_SHARES = np.linspace(0.3, 1.0, 71)
# The scale of weights that are all zero, which must not be zero itself.
_TINY = 1e-9
# Weights as large as the largest, but for the last bits.
_LARGEST = 1.0 - 1e-6


class Grid(typing.NamedTuple):
    """The steps of one weight tensor.

    Attributes:
        scale: Size of a step, float32, of the shape of the weights with 1 in the axes that share a scale.
        below: The step below each weight, as a float32 array of whole numbers; `below` + 1 is the one above.
        part: How far each weight is from the one below to the one above, 0 to 1.
        held: bool array: weights that are not to be moved, which are 0 or one of the largest in their channel.
        last: The last step: 7 with 4 bits, 127 with 8.
    """

    scale: np.ndarray
    below: np.ndarray
    part: np.ndarray
    held: np.ndarray
    last: int

    @property
    def nearest(self):
        """Whether each weight is rounded up, as 0.0 and 1.0, if it is rounded to the nearest step."""
        return np.round(self.part).astype("float32")

    def steps(self, up):
        """Returns the whole numbers of weights that are rounded up where `up` is 1.

        Args:
            up: float array of the shape of the weights, of 0 and 1.
        """
        return np.clip(self.below + np.where(self.held, self.nearest, up), -self.last, self.last).astype("int32")

    def rounded(self, up):
        """Returns the weights that are rounded up where `up` is 1, float32."""
        return (self.steps(up).astype("float32") * self.scale).astype("float32")


def grid_of(value, bits, axes, scales):
    """Finds the steps of a weight tensor.

    Args:
        value: float32 array.
        bits: 4 or 8.
        axes: Axes with a scale for each index; empty for one scale.
        scales: `"max"` or `"mse"`.

    Returns:
        `Grid`.
    """
    value, last = np.asarray(value, "float32"), 2 ** (bits - 1) - 1
    others = tuple(axis for axis in range(value.ndim) if axis not in axes)
    largest = np.maximum(np.abs(value).max(others, keepdims=True), _TINY)
    scale = (largest / last if scales == MAX else _least_error(value, largest, last, others)).astype("float32")
    places = value.astype("float64") / scale
    held = (value == 0) | (np.abs(value) >= _LARGEST * largest)
    # A largest weight is a whole number of steps or beyond the last one: rounding may have left it just below.
    places = np.where(held, np.clip(np.round(places), -last, last), places)
    below = np.floor(places)
    return Grid(scale, below.astype("float32"), (places - below).astype("float32"), held, last)


def _least_error(value, largest, last, others):
    best, least = largest / last, np.full(largest.shape, np.inf)
    for share in _SHARES:
        scale = share * largest / last
        error = ((np.clip(np.round(value / scale), -last, last) * scale - value) ** 2).sum(others, keepdims=True)
        best, least = np.where(error <= least, scale, best), np.minimum(error, least)
    return best
