"""Sums up the errors of a tensor over batches."""

import math

import numpy as np


class ErrorSums:
    """The errors of one tensor, batch by batch."""

    def __init__(self):
        self._count, self._float, self._local = 0, np.zeros(3), np.zeros(3)
        self._largest = 0.0

    def add(self, expected, local, actual):
        """Adds a batch.

        Args:
            expected: What the float model computes, an array.
            local: What the float layer computes of the file's values before it; of the same size.
            actual: What the file computes; of the same size.
        """
        expected, local, actual = (np.asarray(a, np.float64).reshape(-1) for a in (expected, local, actual))
        self._count += len(actual)
        for sums, values in ((self._float, expected), (self._local, local)):
            sums += values.sum(), np.square(values).sum(), np.square(actual - values).sum()
        self._largest = max(self._largest, float(np.abs(actual - expected).max(initial=0.0)))

    def figures(self):
        """Returns the fields `spread`, `own_error`, `total_error` and `max_abs_error` of a `LayerError`."""
        (spread, total), (_, own) = (self._spread_and_share(sums) for sums in (self._float, self._local))
        return {"spread": spread, "own_error": own, "total_error": total, "max_abs_error": self._largest}

    def _spread_and_share(self, sums):
        mean, power, error = sums / max(self._count, 1)
        spread = math.sqrt(max(power - mean**2, 0.0))
        # What does not vary is compared by its magnitude, and what is all zero by the error itself.
        unit = spread if spread > 1e-6 * math.sqrt(power) else math.sqrt(power)
        return spread, math.sqrt(error) / unit if unit > 0 else math.sqrt(error)
