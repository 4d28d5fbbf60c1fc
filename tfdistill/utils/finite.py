"""Whether arrays are finite, and where they are not."""

import typing

import numpy as np


class NonFinite(typing.NamedTuple):
    """What of an array is no number.

    Attributes:
        kind: What the first such value is: `"NaN"` or `"infinity"`.
        number: Number of such values.
        first: Index of the first one.
    """

    kind: str
    number: int
    first: tuple


def is_finite(values):
    """Whether an array holds neither NaN nor infinity."""
    values = _of_numpy(values)
    if values.dtype.kind != "f":
        return bool(np.isfinite(values).all())
    # A sum is finite only if all its terms are, and needs no second array. A sum that overflows does not tell.
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(values.sum(dtype=np.float64)) or np.isfinite(values).all())


def non_finite(values):
    """Returns what of an array is NaN or infinity as a `NonFinite`, None if nothing is."""
    if is_finite(values):
        return None
    values = _of_numpy(values)
    wrong = ~np.isfinite(values)
    first = tuple(int(i) for i in np.argwhere(wrong)[0])
    return NonFinite("NaN" if np.isnan(values[first]) else "infinity", int(wrong.sum()), first)


def _of_numpy(values):
    # bfloat16 and the like are no types of NumPy's own.
    return values.astype("float32") if values.dtype.kind == "V" else values
