"""Files timed against each other."""

import keras
import pytest

from tfdistill.benchmarking.alternating import alternate
from tfdistill.errors import RuntimeUnavailableError
from tfdistill.tflite import export_tflite


def dense(units):
    return keras.Sequential([keras.Input((units,)), keras.layers.Dense(units), keras.layers.Dense(units)])


def test_the_larger_file_takes_longer(tmp_path):
    small, large = (export_tflite(dense(units), tmp_path / f"{units}.tflite").path for units in (16, 1024))
    found = alternate(small, large, seconds=0.1)
    assert found.ratio == found.p50_ms[1] / found.p50_ms[0] > 5
    assert found.delegated == (1.0, 1.0)
    assert found.shares[0] == 1.0
    assert all(least <= p50 for least, p50 in zip(found.least_ms, found.p50_ms, strict=True))
    three = alternate(large, small, large, seconds=0.1)
    assert three.shares[1] < 0.2 < 0.5 < three.shares[2] < 2
    with pytest.raises(RuntimeUnavailableError, match=r"none\.tflite"):
        alternate(small, tmp_path / "none.tflite")
