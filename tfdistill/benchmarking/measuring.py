"""Times a function until the confidence interval of its median is narrow enough.

Standard library and NumPy only, for Python 3.8 and later: `docs/make_kits.py` copies this module to the kits of boards, so that a board and this machine are
measured by the same code.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
import time

import numpy as np

# Up to here the binomial sum is exact; beyond, the normal approximation's rank is the same or one off outwards.
_EXACT_RUNS = 1000


@dataclasses.dataclass(frozen=True)
class Timed:
    """Times of single runs.

    Attributes:
        seconds: Array (runs,), in the order of the runs.
        interval: Confidence interval (low, high) of the median in seconds; None for too few runs.
        warmup_runs: Number of untimed runs.
        converged: Whether the interval is as narrow as was asked for.
    """

    seconds: np.ndarray
    interval: tuple[float, float] | None
    warmup_runs: int
    converged: bool


def median_ranks(count, confidence=0.95):
    """Finds the order statistics that enclose the median of any continuous distribution.

    The number of observations below the true median is binomial(count, 1/2), whatever the distribution; so the k-th smallest and the k-th
    largest enclose it with probability 1 - 2 P(binomial < k) (Thompson 1936; Conover, Practical Nonparametric Statistics).

    Args:
        count: Number of observations.
        confidence: Least probability, between 0 and 1.

    Returns:
        (low, high), indices into the sorted observations; None if there are too few for that confidence.
    """
    tail = (1 - confidence) / 2
    if count > _EXACT_RUNS:
        k = math.floor((count - statistics.NormalDist().inv_cdf(1 - tail) * math.sqrt(count)) / 2)
    else:
        # Exact integers: binomial coefficients are compared with the tail's share of 2**count.
        allowed = tail * 2.0**count
        k, coefficient, below = 0, 1, 1
        while below <= allowed and k < count:
            k += 1
            coefficient = coefficient * (count - k + 1) // k
            below += coefficient
    if k < 1 or k > count - k + 1:
        return None
    return k - 1, count - k


def median_interval(values, confidence=0.95):
    """Returns the distribution-free confidence interval (low, high) of the median; None for too few values."""
    ranks = median_ranks(len(values), confidence)
    if ranks is None:
        return None
    ordered = np.partition(np.asarray(values), ranks)
    return float(ordered[ranks[0]]), float(ordered[ranks[1]])


def is_known(values, precision, confidence):
    """Whether the confidence interval of the median is within a share of the median.

    Args:
        values: Times.
        precision: The share.
        confidence: Level of the interval.

    Returns:
        (known, interval).
    """
    interval = median_interval(values, confidence)
    if interval is None:
        return False, None
    median = float(np.median(values))
    return max(median - interval[0], interval[1] - median) <= precision * median, interval


def measure(
    run,
    *,
    precision=0.02,
    confidence=0.95,
    warmup_seconds=0.3,
    warmup_runs=5,
    min_runs=100,
    min_seconds=0.5,
    max_seconds=10.0,
    clock=time.perf_counter_ns,
):
    """Times `run()` until the interval of its median is narrow enough, or the time limit is reached.

    The interval is checked at run counts that grow by half each time. Checking it after every run would stop at the first interval that is
    narrow by chance.

    Args:
        run: The function to time; it returns when all its work is done.
        precision: Share of the median within which both ends of its interval are to lie.
        confidence: Level of that interval.
        warmup_seconds: Duration of the untimed runs at the start.
        warmup_runs: Smallest number of untimed runs.
        min_runs: Smallest number of timed runs.
        min_seconds: Shortest duration of the timed runs.
        max_seconds: Time limit of the timed runs.
        clock: Returns nanoseconds.

    Returns:
        A `Timed`.
    """
    began, warmup = clock(), 0
    while warmup < warmup_runs or clock() - began < warmup_seconds * 1e9:
        run()
        warmup += 1
    nanoseconds, next_check = [], min_runs
    start = clock()
    early, deadline = start + min_seconds * 1e9, start + max_seconds * 1e9
    known, interval = False, None
    while not known:
        before = clock()
        run()
        after = clock()
        nanoseconds.append(after - before)
        late = after >= deadline
        if late or (len(nanoseconds) >= next_check and after >= early):
            known, interval = is_known(np.asarray(nanoseconds, dtype=np.float64) / 1e9, precision, confidence)
            next_check = math.ceil(len(nanoseconds) * 1.5)
        if late:
            break
    return Timed(np.asarray(nanoseconds, dtype=np.float64) / 1e9, interval, warmup, known and len(nanoseconds) >= min_runs)
