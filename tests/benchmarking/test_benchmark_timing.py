"""The statistics of timing, against NumPy, exact binomial sums, published tables and simulated times that depend on each other."""

import ast
import dataclasses
import functools
import inspect
import itertools
import json
import math
import pathlib
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfdistill.benchmarking import Timing
from tfdistill.benchmarking.measuring import drift, is_known, is_stable, jitter, measure, median_interval, median_ranks, student_quantile
from tfdistill.benchmarking.timing import packed, time_runs, unpacked
from tfdistill.errors import ConfigurationError


def coverage(count, low, high):
    """Probability that the order statistics `low` and `high` (from 0) enclose the median: exact."""
    inside = sum(math.comb(count, below) for below in range(low + 1, high + 1))
    return inside / 2**count


# Ranks from published tables of the 95 % confidence interval of the median (counted from 1 there).
TABLE = [(5, None), (6, (1, 6)), (8, (1, 8)), (9, (2, 8)), (10, (2, 9)), (15, (4, 12)), (20, (6, 15)), (30, (10, 21)), (50, (18, 33))]
TABLE += [(100, (40, 61))]


@pytest.mark.parametrize(("count", "ranks"), TABLE)
def test_ranks_are_those_of_the_tables(count, ranks):
    assert median_ranks(count, 0.95) == (None if ranks is None else (ranks[0] - 1, ranks[1] - 1))


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 1400), st.sampled_from([0.5, 0.9, 0.95, 0.99, 0.999]))
def test_ranks_enclose_the_median_with_at_least_the_confidence_and_no_wider(count, confidence):
    ranks = median_ranks(count, confidence)
    if ranks is None:
        assert coverage(count, 0, count - 1) < confidence
        return
    low, high = ranks
    assert low + high == count - 1
    exact = count <= 1000
    assert coverage(count, low, high) >= confidence - (0 if exact else 1e-3)
    if exact and low + 1 < high - 1:
        assert coverage(count, low + 1, high - 1) < confidence


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 1e9), min_size=6, max_size=200))
def test_interval_holds_the_median_of_the_sample_and_is_no_narrower_than_that_of_independent_runs(values):
    low, high = median_interval([values])
    assert low <= np.median(values) <= high
    ordered, ranks = np.sort(values), median_ranks(len(values))
    assert low <= ordered[ranks[0]]
    assert high >= ordered[ranks[1]]


@pytest.mark.parametrize("count", range(6))
def test_too_few_runs_have_no_interval(count):
    assert median_interval([np.ones(count)] if count else []) is None


def autoregressive(rng, count, length):
    """Noise of spread 1 whose correlation falls to 1/e in `length` runs."""
    kept = math.exp(-1 / length) if length else 0.0
    found, noise = np.empty(count), rng.normal(size=count) * math.sqrt(1 - kept**2)
    state = rng.normal()
    for i in range(count):
        state = kept * state + noise[i]
        found[i] = state
    return found


def two_states(rng, count, length, share=0.3):
    """0 or 1, the second in a share of the time, in stretches of a mean length: a clock that jumps, or a neighbour that comes and goes."""
    found, at, state = np.zeros(count), 0, rng.random() < share
    while at < count:
        stretch = int(rng.exponential(2 * length * (share if state else 1 - share))) + 1
        found[at : at + stretch] = state
        at, state = at + stretch, not state
    return found


def flicker(rng, count):
    """Noise of spread 1 whose power falls with its frequency, from periods of four times the count on: what is left when a machine is at rest."""
    frequencies = np.fft.rfftfreq(4 * count)[1:]
    parts = (rng.normal(size=len(frequencies)) + 1j * rng.normal(size=len(frequencies))) / np.sqrt(frequencies)
    found = np.fft.irfft(np.concatenate([[0], parts]))[:count]
    return found / math.sqrt((np.abs(parts) ** 2).sum() * 2 / (4 * count) ** 2)


RUNS, PROCESSES = 1000, 5
# Times of the runs -> the true median, found in a large sample, and how often the interval must hold it, and how seldom that of independent runs does.
SERIES = {
    "independent": (lambda rng: rng.exponential(size=RUNS), 0.95, 1.0),
    "correlated over 10 runs": (lambda rng: autoregressive(rng, RUNS, 10), 0.95, 0.7),
    "correlated over 25 runs": (lambda rng: autoregressive(rng, RUNS, 25), 0.95, 0.5),
    "correlated over 100 runs": (lambda rng: autoregressive(rng, RUNS, 100), 0.9, 0.3),
    "flicker": (lambda rng: flicker(rng, RUNS), 0.9, 0.3),
    "two states": (lambda rng: 5 * two_states(rng, RUNS, 20) + rng.normal(size=RUNS), 0.95, 0.7),
    "long states": (lambda rng: 5 * two_states(rng, RUNS, 100) + rng.normal(size=RUNS), 0.93, 0.4),
    "another place in memory": (
        lambda rng: np.repeat(rng.normal(size=PROCESSES) * 0.5, RUNS // PROCESSES) + rng.normal(size=RUNS),
        0.95,
        0.4,
    ),
}


@functools.cache
def covered(name):
    """Shares of 200 samples whose interval, and whose interval of independent runs, holds the true median."""
    make, rng = SERIES[name][0], np.random.default_rng(0)
    true, samples = 100 + np.median(np.concatenate([make(rng) for _ in range(400)])), [100 + make(rng) for _ in range(200)]
    ranks = median_ranks(RUNS)
    ours = [median_interval(np.array_split(sample, PROCESSES)) for sample in samples]
    plain = [np.sort(sample)[list(ranks)] for sample in samples]
    return tuple(float(np.mean([low <= true <= high for low, high in found])) for found in (ours, plain))


@pytest.mark.parametrize("name", SERIES)
def test_interval_holds_the_true_median_however_the_runs_depend_on_each_other(name):
    _, least, most_of_plain = SERIES[name]
    ours, plain = covered(name)
    assert ours >= least
    assert plain <= most_of_plain


@pytest.mark.parametrize(
    ("confidence", "freedom", "value"), [(0.95, 1, 12.7062), (0.95, 4, 2.77645), (0.95, 47, 2.01174), (0.99, 9, 3.24984)]
)
def test_student_quantile_is_that_of_the_tables(confidence, freedom, value):
    assert student_quantile(confidence, freedom) == pytest.approx(value, rel=1e-5)


def test_is_known_can_say_no():
    steady, wild = np.full(100, 5.0), np.linspace(1, 9, 100)
    assert is_known(steady, median_interval([steady]), 0.02)
    assert not is_known(wild, median_interval([wild]), 0.02)
    assert not is_known(steady[:3], median_interval([steady[:3]]), 0.02)


STABLE = {
    "steady": ([1.0] * 40, True),
    "noise": (list(1 + 0.1 * np.random.default_rng(0).normal(size=400)), True),
    "too few to tell": ([9.0, 5.0, 1.0], True),
    "falling": (list(np.linspace(2, 1, 40)), False),
    "rising": (list(np.linspace(1, 2, 40)), False),
    "fallen, then steady": ([3.0] * 3 + [1.0] * 60, True),
}


@pytest.mark.parametrize("name", STABLE)
def test_stability(name):
    times, stable = STABLE[name]
    assert is_stable(times, 0.02) is stable


def test_drift_and_jitter():
    assert drift([1.0] * 3 + [7.0] * 3 + [1.5] * 3) == pytest.approx(0.5)
    assert drift([1.0, 2.0]) == jitter([1.0]) == 0.0
    assert jitter([1.0, 3.0, 2.0, 2.5]) == pytest.approx(1.0)


class FakeClock:
    """Time that passes only while something runs: `durations` seconds, one after the other."""

    def __init__(self, durations):
        self.durations, self.now, self.runs = itertools.cycle(durations), 0, 0

    def run(self):
        self.now += round(next(self.durations) * 1e9)
        self.runs += 1

    def __call__(self):
        return self.now


SETTINGS = Timing(warmup_seconds=0.1, warmup_runs=3, min_runs=20, min_seconds=0.2, max_seconds=5)


@pytest.mark.parametrize(
    ("durations", "runs", "warmup", "converged"),
    [
        ([0.001], 200, 100, True),  # until the least time
        ([0.02], 20, 5, True),  # until the least number of runs
        ([0.3], 17, 3, False),  # the limit comes before the least number of runs
        ([9.0], 1, 3, False),  # one run is always timed
        ([0.01, 0.05], 167, 4, False),  # two modes: the median never settles
    ],
)
def test_when_it_stops(durations, runs, warmup, converged):
    clock = FakeClock(durations)
    timed = time_runs(clock.run, SETTINGS, clock=clock)
    assert (timed.warmup_runs, timed.converged) == (warmup, converged)
    assert len(timed.seconds) == pytest.approx(runs, abs=1)
    assert clock.runs == len(timed.seconds) + timed.warmup_runs
    np.testing.assert_allclose(sorted(set(timed.seconds.round(9))), sorted(set(durations))[: len(set(timed.seconds.round(9)))])


def test_warmup_is_not_counted():
    clock = FakeClock([5.0, 5.0, 5.0] + [0.1] * 40)
    assert time_runs(clock.run, SETTINGS, clock=clock).seconds.max() == pytest.approx(0.1)


def test_a_warm_up_goes_on_until_the_times_are_stable_or_six_times_as_long():
    falling = FakeClock([0.05 * 0.6**i + 0.01 for i in range(60)] + [0.01] * 1000)
    timed = time_runs(falling.run, dataclasses.replace(SETTINGS, warmup_runs=6), clock=falling)
    assert timed.warmup_stable
    assert timed.warmup_runs > 6
    assert timed.first_seconds == pytest.approx(0.06)
    endless = FakeClock([1.01**i * 1e-3 for i in range(2000)])
    timed = time_runs(endless.run, SETTINGS, clock=endless)
    assert not timed.warmup_stable


def test_measuring_can_be_copied_to_a_board():
    """It knows nothing but the standard library and NumPy."""
    tree = ast.parse(pathlib.Path(inspect.getfile(measure)).read_text(encoding="utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in names} <= {*sys.stdlib_module_names, "numpy"}


def test_times_survive_json():
    timed = measure(FakeClock([1.0]).run, max_seconds=1e-3, warmup_seconds=0)
    again = unpacked(json.loads(json.dumps(packed(timed))))
    np.testing.assert_allclose(again.seconds, timed.seconds, atol=1e-9)
    assert (again.interval, again.warmup_runs, again.converged) == (timed.interval, timed.warmup_runs, timed.converged)


@pytest.mark.parametrize(
    "arguments",
    [
        {"processes": 0},
        {"pause_seconds": -1},
        {"cores": ()},
        {"cores": (-1,)},
        {"cores": (0.5,)},
        {"precision": 0},
        {"precision": 1.5},
        {"confidence": 1},
        {"max_seconds": 0},
        {"max_seconds": math.inf},
        {"min_runs": 0},
        {"warmup_runs": -1},
        {"warmup_seconds": -1},
        {"min_seconds": 20},
    ],
)
def test_impossible_settings(arguments):
    with pytest.raises(ConfigurationError, match=next(iter(arguments))):
        Timing(**arguments)
