"""Times a function until the confidence interval of its median is narrow enough."""

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
    """When a benchmark has run long enough.

    Attributes:
        precision: The benchmark stops when both ends of the median's confidence interval are within this share of the median; above 0,
            below 1.
        confidence: Level of that interval; above 0, below 1.
        warmup_seconds: Duration of the untimed runs at the start, which fill caches and map pages; 0 or more.
        warmup_runs: Smallest number of untimed runs; 0 or more.
        min_runs: Smallest number of timed runs, at least 1. 100 runs leave one beyond the 99th percentile.
        min_seconds: Shortest duration of the timed runs, so that the slow runs of a fast model are seen too; 0 or more.
        max_seconds: Time limit of the timed runs. If it is reached first, the record has `converged=False`.

    Example:
        >>> quick = tfdistill.benchmarking.Timing(min_seconds=0.05, max_seconds=0.2, warmup_seconds=0)
        >>> record = tfdistill.benchmark("student.tflite", timing=quick)
        >>> record.runs >= 100 or not record.converged
        True
    """

    precision: float = 0.02
    confidence: float = 0.95
    warmup_seconds: float = 0.3
    warmup_runs: int = 5
    min_runs: int = 100
    min_seconds: float = 0.5
    max_seconds: float = 10.0

    def __post_init__(self) -> None:
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
        seconds: Array (runs,), in the order of the runs.
        interval: Confidence interval (low, high) of the median in seconds; None for too few runs.
        warmup_runs: Number of untimed runs.
        converged: Whether the interval is as narrow as `Timing.precision`.
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


def is_known(values, timing):
    """Whether the confidence interval of the median is within `timing.precision`.

    Returns:
        (known, interval).
    """
    interval = median_interval(values, timing.confidence)
    if interval is None:
        return False, None
    median = float(np.median(values))
    return max(median - interval[0], interval[1] - median) <= timing.precision * median, interval


def measure(run, timing, clock=time.perf_counter_ns):
    """Times `run()` until the interval of its median is narrow enough, or the time limit is reached.

    The interval is checked at run counts that grow by half each time. Checking it after every run would stop at the first interval that is
    narrow by chance.

    Args:
        run: The function to time; it returns when all its work is done.
        timing: A `Timing`.
        clock: Returns nanoseconds.

    Returns:
        A `Timed`.
    """
    began, warmup = clock(), 0
    while warmup < timing.warmup_runs or clock() - began < timing.warmup_seconds * 1e9:
        run()
        warmup += 1
    nanoseconds, next_check = [], timing.min_runs
    start = clock()
    early, deadline = start + timing.min_seconds * 1e9, start + timing.max_seconds * 1e9
    known, interval = False, None
    while not known:
        before = clock()
        run()
        after = clock()
        nanoseconds.append(after - before)
        late = after >= deadline
        if late or (len(nanoseconds) >= next_check and after >= early):
            known, interval = is_known(np.asarray(nanoseconds, dtype=np.float64) / 1e9, timing)
            next_check = math.ceil(len(nanoseconds) * 1.5)
        if late:
            break
    return Timed(np.asarray(nanoseconds, dtype=np.float64) / 1e9, interval, warmup, known and len(nanoseconds) >= timing.min_runs)
