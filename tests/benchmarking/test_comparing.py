"""Files against each other: the ratio and its interval."""

import math
import random

import numpy as np
import pytest
from peaks import folder

import tfdistill
from tfdistill.benchmarking import ComparedFile, SpeedComparison, Timing
from tfdistill.benchmarking.comparing import ratio_intervals
from tfdistill.benchmarking.turns import time_by_turns
from tfdistill.errors import BenchmarkError, ConfigurationError

# An interval that misses one time in a thousand.
QUICK = Timing(warmup_seconds=0, warmup_runs=1, min_seconds=0.2, max_seconds=0.2, processes=4, confidence=0.999)


def test_a_file_against_itself_shows_no_difference_and_a_slower_one_is_found(tmp_path):
    same, other, slower = folder() / "int8.tflite", tmp_path / "again.tflite", folder() / "float32.tflite"
    other.write_bytes(same.read_bytes())
    record = tfdistill.compare_speed([same, other, slower], timing=QUICK)
    first, second, third = record.files
    assert (first.ratio, first.ratio_low, first.ratio_high) == (1.0, 1.0, 1.0)
    assert second.ratio_low <= 1 <= second.ratio_high
    assert "no difference shown" in second.verdict
    assert third.ratio > 2
    assert record.verdicts[1] == third.verdict
    assert (record.processes, second.sha256) == (4, first.sha256)
    assert SpeedComparison.load(record.save(tmp_path / "c.json")) == record


def test_more_processes_follow_where_the_interval_is_too_wide():
    """The precision of a thousandth is out of reach; the time limit allows twice the processes."""
    timing = Timing(precision=0.001, warmup_seconds=0, warmup_runs=1, min_seconds=0.03, max_seconds=0.06, processes=3)
    paths = [folder() / "int8.tflite", folder() / "float32.tflite"]
    record = tfdistill.compare_speed(paths, timing=timing)
    assert record.processes == 6
    assert not record.converged


def test_interval_of_ratios_is_that_of_student_on_logarithms():
    ratios = np.array([[1.0, 0.5], [1.0, 0.55], [1.0, 0.45], [1.0, 0.52]])
    (_, (middle, low, high)) = ratio_intervals(ratios, 0.95)
    logs = np.log(ratios[:, 1])
    half = 3.18245 * logs.std(ddof=1) / 2  # Student's t of three degrees of freedom
    assert (math.log(middle), math.log(low), math.log(high)) == pytest.approx(
        (logs.mean(), logs.mean() - half, logs.mean() + half), rel=1e-4
    )


def test_ratio_interval_holds_the_true_ratio_however_the_machine_drifts():
    """Pairs share the state of the machine; what differs from process to process is in the interval."""
    rng, true, hits = np.random.default_rng(0), 0.8, 0
    for _ in range(400):
        ratios = []
        for _ in range(8):
            state, place = 1 + 0.3 * np.abs(np.cumsum(rng.normal(size=40))) / 10, np.exp(0.01 * rng.normal())
            a, b = state * (1 + 0.02 * rng.random(40)), state * true * place * (1 + 0.02 * rng.random(40))
            ratios.append([1.0, float(np.median(b / a))])
        _, low, high = ratio_intervals(ratios, 0.95)[1]
        hits += low <= true <= high
    assert hits / 400 >= 0.92


class FakeClock:
    """Time that passes only while a function runs, which takes `scale` times as long as the state of the machine says."""

    def __init__(self):
        self.now, self.state = 0, 1.0

    def function(self, nanoseconds):
        def run():
            self.state *= 1.001  # a machine that slows down all the time
            self.now += round(nanoseconds * self.state)

        return run

    def __call__(self):
        return self.now


def test_turns_share_the_state_of_the_machine():
    clock = FakeClock()
    times = time_by_turns([clock.function(100_000), clock.function(150_000)], 0.2, 1, random.Random(0), clock)
    assert len(times) >= 20
    assert np.median(times[:, 1] / times[:, 0]) == pytest.approx(1.5, rel=0.02)
    assert np.median(times[-3:, 0]) > 1.5 * np.median(times[:3, 0])  # while the times themselves grow


@pytest.mark.parametrize(("milliseconds", "counts"), [(0.1, False), (5.0, False), (300.0, True)])
def test_what_another_function_left_in_the_caches_does_not_count(milliseconds, counts):
    """A function's first run after another one takes twice as long; of one that is very slow, that is not worth a second run."""
    clock, last = FakeClock(), []

    def function(name):
        def run():
            clock.now += round(milliseconds * 1e6 * (1 if last[-1:] == [name] else 2))
            last.append(name)

        return run

    times = time_by_turns([function("one"), function("other")], 0.01, 5, random.Random(0), clock)
    assert np.median(times) == pytest.approx(milliseconds * 1e6 * (2 if counts else 1))


MISTAKES = {
    "one path": (lambda f: dict(paths="a.tflite"), ConfigurationError, r"compare_speed\(\[before, after\]\)"),
    "one file": (lambda f: dict(paths=[f / "int8.tflite"]), ConfigurationError, "two or more"),
    "a missing file": (lambda f: dict(paths=[f / "int8.tflite", f / "none.tflite"]), ConfigurationError, "none.tflite"),
    "no target": (lambda f: dict(paths=[f / "int8.tflite"] * 2, target="cpu"), ConfigurationError, "target='cpu'"),
    "two processes": (lambda f: dict(paths=[f / "int8.tflite"] * 2, timing=Timing(processes=2)), ConfigurationError, "processes=2"),
    "a damaged file": (lambda f: dict(paths=[f / "int8.tflite", __file__]), BenchmarkError, "cannot open"),
    "a core that is not there": (
        lambda f: dict(paths=[f / "int8.tflite"] * 2, timing=Timing(processes=3, cores=(4000,))),
        BenchmarkError,
        "4000",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_named(mistake):
    arguments, error, match = MISTAKES[mistake]
    with pytest.raises(error, match=match):
        tfdistill.compare_speed(**arguments(folder()))


@pytest.mark.parametrize(
    ("ratio", "low", "high", "words"),
    [
        (0.5, 0.4, 0.6, "2.00 times as fast (1.67 to 2.50)"),
        (2.0, 1.9, 2.1, "2.00 times as slow (1.90 to 2.10)"),
        (1.01, 0.99, 1.03, "no difference shown (ratio 1.010, 0.990 to 1.030)"),
    ],
)
def test_verdicts(ratio, low, high, words):
    assert ComparedFile("a", "0", 1, 1.0, ratio, low, high).verdict == f"a: {words}"
