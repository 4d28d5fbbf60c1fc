"""What a run computes and moves, counted in an opened file, against NumPy; and the files that keep a processor busy."""

import math

import numpy as np
import pytest

from tfdistill.errors import ConfigurationError
from tfdistill.runtime.interpreter import open_file
from tfdistill.runtime.peak_files import MULTIPLY_MACS, add_file, multiply_file
from tfdistill.runtime.work import macs_of, work_of

# Operation -> shapes of its inputs, of its output, and its multiply-accumulates.
MACS = [
    ("CONV_2D", [(1, 8, 8, 3), (16, 3, 3, 3)], (1, 6, 6, 16), 6 * 6 * 16 * 27),
    ("DEPTHWISE_CONV_2D", [(1, 8, 8, 4), (1, 3, 3, 4)], (1, 8, 8, 4), 8 * 8 * 4 * 9),
    ("FULLY_CONNECTED", [(2, 10), (5, 10)], (2, 5), 100),
    ("TRANSPOSE_CONV", [(4,), (6, 3, 3, 2), (1, 4, 4, 2)], (1, 8, 8, 6), 4 * 4 * 2 * 54),
    ("BATCH_MATMUL", [(7, 2, 5), (7, 5, 3)], (7, 2, 3), 7 * 2 * 5 * 3),
    ("BATCH_MATMUL", [(7, 5, 2), (7, 5, 3)], (7, 2, 3), 7 * 2 * 5 * 3),  # the first one transposed
    ("CONV_3D", [(1, 4, 4, 4, 2), (3, 3, 3, 2, 5)], (1, 2, 2, 2, 5), 8 * 5 * 54),
]


@pytest.mark.parametrize(("name", "inputs", "output", "macs"), MACS)
def test_macs(name, inputs, output, macs):
    assert macs_of(name, inputs, output) == macs


@pytest.mark.parametrize("kind", ["float32", "int8"])
def test_the_convolution_computes_what_it_should(kind, tmp_path):
    path = tmp_path / "m.tflite"
    path.write_bytes(multiply_file(kind))
    opened = open_file(path)
    work = work_of(opened.interpreter)
    bytes_of = np.dtype(kind).itemsize
    assert (work.macs, work.compute_type) == (MULTIPLY_MACS, kind)
    assert work.moved_bytes == bytes_of * (2 * 24 * 24 * 128 + 9 * 128 * 128) + 4 * 128
    rng = np.random.default_rng(1)
    x = rng.integers(-5, 5, opened.inputs["x"].shape).astype(kind)
    opened.set_inputs({"x": x})
    opened.invoke()
    got = opened.read_outputs()["y"][0, 5, 5].astype(float)
    weights = np.random.default_rng(0).normal(size=(128, 3, 3, 128)).astype("float32")
    patch = x[0, 4:7, 4:7].astype(float)
    if kind == "float32":
        np.testing.assert_allclose(got, np.einsum("oijc,ijc->o", weights, patch), rtol=1e-3, atol=1e-2)
    else:
        whole = np.clip(np.rint(weights * 40), -127, 127)
        expected = np.clip(np.einsum("oijc,ijc->o", whole, patch) * 0.05 * 0.01 / 0.2, -128, 127)
        assert np.abs(got - expected).max() <= 1


def test_the_sum_moves_what_it_says(tmp_path):
    path = tmp_path / "m.tflite"
    path.write_bytes(add_file(1 << 18))
    opened = open_file(path)
    work = work_of(opened.interpreter)
    assert (work.macs, work.compute_type) == (0, None)
    assert work.moved_bytes == pytest.approx(1 << 18, abs=12)
    x = {name: np.full(info.shape, 1.5, "float32") for name, info in opened.inputs.items()}
    opened.set_inputs(x)
    opened.invoke()
    assert set(np.unique(opened.read_outputs()["sum"])) == {3.0}
    assert math.prod(opened.inputs["x"].shape) == (1 << 18) // 12


def test_other_types_are_refused():
    with pytest.raises(ConfigurationError, match="int4"):
        multiply_file("int4")
