"""Runs something until its median time is known, and says how well it is known."""

import dataclasses
import math
import statistics
import time

import numpy as np

from tfdistill.errors import ConfigurationError

# Up to here the binomial sum is exact; beyond, the normal approximation's rank is the same or one off outwards.
_EXACT_RUNS = 1000


@dataclasses.dataclass(frozen=True)
class Timing:
    """When to stop.

    Attributes:
        precision: The median is known well enough when neither end of its confidence interval is further from it than this share of it.
        confidence: Level of that interval.
        warmup_seconds: Runs before the first that counts, for at least this long and at least `warmup_runs` of them: caches, page faults,
            clocks.
        warmup_runs: See there.
        min_runs: Least number of runs; 100 leave one run beyond the 99th percentile.
        min_seconds: Least time of the timed runs together, so that a fast model's tail is seen too.
        max_seconds: Time limit of the timed runs; when it is reached the record says `converged=False`.
    """

    precision: float = 0.02
    confidence: float = 0.95
    warmup_seconds: float = 0.3
    warmup_runs: int = 5
    min_runs: int = 100
    min_seconds: float = 0.5
    max_seconds: float = 10.0

    def __post_init__(self):
        for name, low, high in (("precision", 0, 1), ("confidence", 0, 1), ("max_seconds", 0, math.inf)):
            if not low < getattr(self, name) < high:
                raise ConfigurationError(f"{name}={getattr(self, name)} is impossible.", f"a number above {low} and below {high}")
        for name, low in (("warmup_seconds", 0), ("warmup_runs", 0), ("min_runs", 1), ("min_seconds", 0)):
            if getattr(self, name) < low:
                raise ConfigurationError(f"{name}={getattr(self, name)} is impossible.", f"at least {low}")
        if self.min_seconds > self.max_seconds:
            raise ConfigurationError(
                f"min_seconds={self.min_seconds} is above max_seconds={self.max_seconds}.", "a minimum below the limit"
            )


@dataclasses.dataclass(frozen=True)
class Timed:
    """Times of single runs.

    Attributes:
        seconds: Array (runs,), in the order they were run.
        interval: (low, high) of the median in seconds, or None for too few runs.
        warmup_runs: Runs before those.
        converged: Whether the median is as precise as asked.
    """

    seconds: np.ndarray
    interval: tuple[float, float] | None
    warmup_runs: int
    converged: bool


def median_ranks(count, confidence=0.95):
    """Finds which order statistics enclose the median of any continuous distribution.

    The number of observations below the true median is binomial(count, 1/2), whatever the distribution; so the k-th smallest and the k-th
    largest enclose it with probability 1 - 2 P(binomial < k) (Thompson 1936; Conover, Practical Nonparametric Statistics).

    Args:
        count: Number of observations.
        confidence: Least probability, between 0 and 1.

    Returns:
        (low, high), indices into the sorted observations, or None if so few cannot enclose it that surely.
    """
    tail = (1 - confidence) / 2
    if count > _EXACT_RUNS:
        k = math.floor((count - statistics.NormalDist().inv_cdf(1 - tail) * math.sqrt(count)) / 2)
    else:
        # Binomial coefficients as whole numbers against the tail's share of 2**count: no digit is lost.
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
    """Returns (low, high) enclosing the median with at least the given confidence, free of any distribution; None for too few values."""
    ranks = median_ranks(len(values), confidence)
    if ranks is None:
        return None
    ordered = np.partition(np.asarray(values), ranks)
    return float(ordered[ranks[0]]), float(ordered[ranks[1]])


def is_known(values, timing):
    """Whether the median of `values` is as precise as `timing` asks.

    Returns:
        (known, interval).
    """
    interval = median_interval(values, timing.confidence)
    if interval is None:
        return False, None
    median = float(np.median(values))
    return max(median - interval[0], interval[1] - median) <= timing.precision * median, interval


def measure(run, timing, clock=time.perf_counter_ns):
    """Times `run()` until its median is known, or the time limit.

    Looks at the interval at numbers of runs that grow by half each time: looking after every run would stop at the first lucky moment.

    Args:
        run: What to time; returns when all its work is done.
        timing: A `Timing`.
        clock: Returns nanoseconds.

    Returns:
        A `Timed`.
    """
    began, warmup = clock(), 0
    while warmup < timing.warmup_runs or clock() - began < timing.warmup_seconds * 1e9:
        run()
        warmup += 1
    nanoseconds, look = [], timing.min_runs
    start = clock()
    early, deadline = start + timing.min_seconds * 1e9, start + timing.max_seconds * 1e9
    known, interval = False, None
    while not known:
        before = clock()
        run()
        after = clock()
        nanoseconds.append(after - before)
        late = after >= deadline
        if late or (len(nanoseconds) >= look and after >= early):
            known, interval = is_known(np.asarray(nanoseconds, dtype=np.float64) / 1e9, timing)
            look = math.ceil(len(nanoseconds) * 1.5)
        if late:
            break
    return Timed(np.asarray(nanoseconds, dtype=np.float64) / 1e9, interval, warmup, known and len(nanoseconds) >= timing.min_runs)
