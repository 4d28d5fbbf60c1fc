"""Whether arrays are finite, and where they are not."""

import ml_dtypes
import numpy as np
import pytest

from tfdistill.utils.finite import is_finite, non_finite


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([0.0, 1.0], None),
        ([], None),
        (0.0, None),
        ([1, 2], None),
        ([True, False], None),
        ([1 + 2j], None),
        ([1e308, 1e308], None),  # whose sum is infinite
        (np.float16([6e4, 6e4]), None),
        (np.ones(3, ml_dtypes.bfloat16), None),
        ([1e308, -np.inf], ("infinity", 1, (1,))),
        ([[0.0], [np.nan]], ("NaN", 1, (1, 0))),
        ([np.inf, -np.inf], ("infinity", 2, (0,))),
        (np.nan, ("NaN", 1, ())),
        ([0j, complex(0, np.inf)], ("infinity", 1, (1,))),
        (np.array([1, np.nan], ml_dtypes.bfloat16), ("NaN", 1, (1,))),
    ],
)
def test_it_is_said_what_is_not_finite(values, found):
    assert is_finite(np.asarray(values)) is (found is None)
    assert non_finite(np.asarray(values)) == found
