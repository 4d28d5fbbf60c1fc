"""The checks of a benchmark: differences to the reference, and what counts as run on an accelerator."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from target_files import QUICK, chain

import tfdistill
from tfdistill.benchmarking import Cpu
from tfdistill.benchmarking.record import untimed
from tfdistill.benchmarking.truth import Watched, compared, differences, require_delegated
from tfdistill.errors import BenchmarkError, DelegationError
from tfdistill.runtime.delegated import Delegation
from tfdistill.runtime.tensors import TensorInfo


def info(dtype="float32", scale=None, zero_point=0):
    return TensorInfo("y", 0, (1, 3), dtype, scale, zero_point)


def found(outputs, reference, about=None):
    return differences({"y": np.asarray(outputs)}, {"y": np.asarray(reference)}, {"y": about or info()})


NAN, INF = math.nan, math.inf
F = np.float32
# Outputs, those of the reference, the tensor -> (difference in real values, in steps).
SAME_OR_NOT = {
    "equal": (F([1, 2, 3]), F([1, 2, 3]), info(), (0, None)),
    "floats": (F([1, 2, 3.5]), F([1, 2, 3]), info(), (0.5, None)),
    "integers": (np.int8([1, 2, 3]), np.int8([1, 2, 5]), info("int8", 0.25, 3), (0.5, 2)),
    "the ends of the range": (np.int8([-128, 0]), np.int8([127, 0]), info("int8", 1.0), (255, 255)),
    "unsigned": (np.uint8([0]), np.uint8([255]), info("uint8", 1 / 255), (1, 255)),
    "without a scale": (np.int64([5]), np.int64([7]), info("int64"), (2, 2)),
    "logical": (np.array([True, False]), np.array([True, True]), info("bool"), (1, None)),
    "not finite on both sides": (F([NAN, INF, 1]), F([NAN, INF, 2]), info(), (1, None)),
    "not finite on the CPU alone": (F([0, 1]), F([NAN, 1]), info(), (0, None)),
    "empty": (F([]), F([]), info(), (None, None)),
}


@pytest.mark.parametrize("case", SAME_OR_NOT)
def test_differences(case):
    outputs, reference, about, (error, steps) = SAME_OR_NOT[case]
    result = found(outputs, reference, about)
    assert result["reference_max_steps"] == steps
    assert result["reference_max_abs_error"] == (None if error is None else pytest.approx(error, rel=1e-6))


REFUSED = {
    "not a number": (F([1, NAN, INF]), F([1, 2, 3]), "NaN or infinite in 2 of 3 values"),
    "another shape": (F([[1, 2]]), F([1, 2]), "shape"),
    "another type": (np.int8([1]), F([1]), "int8 of shape"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_outputs_that_are_no_result(case):
    outputs, reference, match = REFUSED[case]
    with pytest.raises(BenchmarkError, match=match):
        found(outputs, reference)


def test_other_outputs_are_no_result():
    with pytest.raises(BenchmarkError, match=r"outputs \['a'\], .*\['y'\]"):
        differences({"a": F([1])}, {"y": F([1])}, {"y": info()})


@given(st.lists(st.integers(-128, 127), min_size=1, max_size=8), st.lists(st.integers(-128, 127), min_size=8, max_size=8))
def test_steps_are_those_of_whole_numbers(left, right):
    right = right[: len(left)]
    result = found(np.int8(left), np.int8(right), info("int8", 0.5, -7))
    expected = max(abs(a - b) for a, b in zip(left, right, strict=True))
    assert (result["reference_max_steps"], result["reference_max_abs_error"]) == (expected, expected / 2)


@dataclasses.dataclass
class Opened:
    """What a target opens, as far as the check looks at it."""

    share: Delegation
    path: str = "m.tflite"

    def delegation(self):
        return self.share


@dataclasses.dataclass
class Accelerator:
    allow_partial: bool = False
    accelerator: bool = True

    def describe(self):
        return "it"


# Share, with a part allowed -> whether it counts.
SHARES = {
    "all": (Delegation(3, 3, 1, {}), False, True),
    "a part": (Delegation(3, 2, 1, {("NEG", "int8"): 1}), False, False),
    "a part, which is allowed": (Delegation(3, 2, 1, {("NEG", "int8"): 1}), True, True),
    "nothing": (Delegation(3, 0, 0, {("NEG", "int8"): 3}), True, False),
}


@pytest.mark.parametrize("case", SHARES)
def test_what_counts(case):
    share, partial, counts = SHARES[case]
    if counts:
        assert require_delegated(Accelerator(partial), Opened(share)) == share
    else:
        with pytest.raises(DelegationError, match=r"NEG int8\. They would run on the CPU"):
            require_delegated(Accelerator(partial), Opened(share))
    assert require_delegated(Accelerator(partial, accelerator=False), Opened(share)) == share


def test_many_kinds_of_operations_are_cut():
    left = {(f"OP_{i}", "int8"): 1 for i in range(40)}
    with pytest.raises(DelegationError, match=r"1 OP_0 int8, .*, and others\."):
        require_delegated(Accelerator(), Opened(Delegation(40, 0, 0, left)))


def test_the_reference_has_other_kernels_than_what_it_is_compared_with(tmp_path):
    path = chain(tmp_path / "m.tflite", "ADD", "ABS")
    for kernels, reference in {"xnnpack": "builtin", "builtin": "xnnpack", "reference": "builtin"}.items():
        record = tfdistill.benchmark(path, Cpu(kernels=kernels), timing=QUICK)
        assert (record.reference_kernels, record.reference_max_abs_error) == (reference, 0)
        assert (record.operations, record.delegated_operations) == (2, 2 if kernels == "xnnpack" else 0)
        assert record.accelerator_proven is None


def test_a_wrong_output_is_seen(tmp_path):
    """The check that must not pass whatever it is given."""
    path = chain(tmp_path / "m.tflite", "ADD")
    inputs = {"a": np.ones((1, 64), "float32"), "b": np.ones((1, 64), "float32")}
    right, wrong = ({"add_0": np.full((1, 64), value, "float32")} for value in (2, 2.5))
    for outputs, error in ((right, 0), (wrong, 0.5)):
        watched = Watched(Scripted([right, outputs]))
        run = watched.runner(inputs)
        assert (run(), run()) == (list(right.values()), list(outputs.values()))
        assert (watched.first, watched.last) == (right, outputs)
        assert compared({"path": str(path)}, Cpu(), watched)["reference_max_abs_error"] == error


class Scripted:
    """A model with outputs that are given."""

    def __init__(self, outputs):
        self.left, self.outputs = list(outputs), outputs[0]

    def set_inputs(self, arrays):
        self.given = arrays

    def invoke(self):
        assert self.given

    def read_outputs(self):
        return self.left.pop(0)


def test_what_was_not_measured_is_not_a_number():
    fields = untimed(path="m.tflite", runs=3)
    assert fields["runs"] == 3
    assert math.isnan(fields["p50_ms"])
    assert (fields["warmup_runs"], fields["converged"], fields["arena_bytes"]) == (0, False, None)
