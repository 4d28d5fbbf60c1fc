"""The statistics of timing, against NumPy, exact binomial sums and simulation."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfdistill.benchmarking import Timing
from tfdistill.benchmarking.measuring import is_known, median_interval, median_ranks
from tfdistill.benchmarking.timing import measure
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
def test_interval_holds_the_median_of_the_sample(values):
    low, high = median_interval(values)
    assert low <= np.median(values) <= high
    assert {low, high} <= set(values)


def test_interval_covers_the_true_median_of_a_skewed_distribution():
    rng = np.random.default_rng(0)
    draws = rng.exponential(size=(2000, 101))
    hits = sum(low <= math.log(2) <= high for low, high in (median_interval(row) for row in draws))
    assert 0.94 <= hits / 2000 <= 0.98  # exact: 0.954


def test_is_known_can_say_no():
    steady, wild = np.full(100, 5.0), np.linspace(1, 9, 100)
    assert is_known(steady, 0.02, 0.95) == (True, (5.0, 5.0))
    assert is_known(wild, 0.02, 0.95)[0] is False
    assert is_known(steady[:3], 0.02, 0.95) == (False, None)


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
    timed = measure(clock.run, SETTINGS, clock)
    assert (timed.warmup_runs, timed.converged) == (warmup, converged)
    assert len(timed.seconds) == pytest.approx(runs, abs=1)
    assert clock.runs == len(timed.seconds) + timed.warmup_runs
    np.testing.assert_allclose(sorted(set(timed.seconds.round(9))), sorted(set(durations))[: len(set(timed.seconds.round(9)))])


def test_warmup_is_not_counted():
    clock = FakeClock([5.0, 5.0, 5.0] + [0.1] * 40)
    assert measure(clock.run, SETTINGS, clock).seconds.max() == pytest.approx(0.1)


@pytest.mark.parametrize(
    "arguments",
    [
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
