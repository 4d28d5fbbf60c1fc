"""Times a function, and says how well its median is known: the same code on the desk and on a board.

Standard library and NumPy only, for Python 3.8 and later: `docs/make_kits.py` copies this module to the kits of boards, so that a board and this machine are
measured by the same code.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import statistics
import time

import numpy as np

# Up to here the binomial sum is exact; beyond, the normal approximation's rank is the same or one off outwards.
_EXACT_RUNS = 1000
# Parts of one series whose medians are compared, and so many processes make each process a part of its own. Both halve to parts of the last size.
_PARTS, _PARTS_OF_A_PROCESS, _LEAST_PROCESSES, _LEAST_PARTS = 48, 8, 5, 6
# From so many parts on, the correlation of neighbours is told from chance.
_LEAST_FOR_CORRELATION = 8
# Warm-up: parts of its time whose medians are compared, and the longest warm-up as a multiple of the shortest.
_WARMUP_PARTS, _LONGEST_WARMUP = 4, 6


@dataclasses.dataclass(frozen=True)
class Timed:
    """Times of single runs.

    Attributes:
        seconds: Array (runs,), in the order of the runs.
        interval: Confidence interval (low, high) of the median in seconds; None for too few runs.
        warmup_runs: Number of untimed runs.
        converged: Whether the interval is as narrow as the precision that was asked for.
        warmup_stable: Whether the times had stopped falling or rising when the warm-up ended.
        first_seconds: Time of the very first run.
    """

    seconds: np.ndarray
    interval: tuple[float, float] | None
    warmup_runs: int
    converged: bool
    warmup_stable: bool = True
    first_seconds: float = math.nan


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
        precision: Both ends of the interval are to be within this share of the median.
        confidence: Level of the interval.
        warmup_seconds: Least duration of the untimed runs, 0 or more. They go on until the times are stable, at most six times as long.
        warmup_runs: Least number of untimed runs, 0 or more.
        min_runs: Least number of timed runs.
        min_seconds: Least duration of the timed runs.
        max_seconds: Time limit of the timed runs. One run is always timed.
        clock: Returns nanoseconds.

    Returns:
        A `Timed`.
    """
    warmup, stable = warm_up(run, precision, warmup_seconds, warmup_runs, clock)
    nanoseconds, next_check = [], min_runs
    start = clock()
    early, deadline = start + min_seconds * 1e9, start + max_seconds * 1e9
    known, interval = False, None
    append = nanoseconds.append
    while not known:
        before = clock()
        run()
        after = clock()
        append(after - before)
        if after < early and after < deadline:
            continue
        late = after >= deadline
        if late or len(nanoseconds) >= next_check:
            seconds = np.asarray(nanoseconds, dtype=np.float64) / 1e9
            interval = median_interval([seconds], confidence)
            known = is_known(seconds, interval, precision)
            next_check = math.ceil(len(nanoseconds) * 1.5)
        if late:
            break
    seconds = np.asarray(nanoseconds, dtype=np.float64) / 1e9
    first = warmup[0] / 1e9 if warmup else seconds[0]
    return Timed(seconds, interval, len(warmup), known and len(seconds) >= min_runs, stable, float(first))


def warm_up(run, precision, least_seconds, least_runs, clock):
    """Runs until the times neither fall nor rise any more.

    The time of the warm-up so far is cut into quarters. The times are stable when the median of the last quarter lies between those of the two before it,
    or within `precision` of one of them: a fall as of caches that fill, or a rise as of a processor that slows down, puts it outside on one side.

    Args:
        run: The function.
        precision: Share of the median that counts as no difference.
        least_seconds: Least duration, 0 or more.
        least_runs: Least number of runs, 0 or more.
        clock: Returns nanoseconds.

    Returns:
        (nanoseconds of each run, whether they were stable at the end). Without a least duration and number nothing runs, and nothing is known to be unstable.
    """
    times, began, stable = [], clock(), True
    longest, next_check = began + _LONGEST_WARMUP * least_seconds * 1e9, 0
    while True:
        now = clock()
        if len(times) >= least_runs and now >= began + least_seconds * 1e9 and len(times) >= next_check:
            stable = is_stable(times, precision)
            next_check = len(times) + max(1, len(times) // _WARMUP_PARTS)
            if stable or now >= longest:
                return times, stable
        before = clock()
        run()
        times.append(clock() - before)


def is_stable(times, precision):
    """Whether the last quarter of the time that runs took is like the two quarters before it; true for fewer than four runs, which cannot tell.

    Args:
        times: Times of the runs, in their order.
        precision: Share of the median that counts as no difference.
    """
    if len(times) < _WARMUP_PARTS:
        return True
    times = np.asarray(times, dtype=np.float64)
    ends = np.cumsum(times)
    part = np.minimum((ends - times / 2) * _WARMUP_PARTS / ends[-1], _WARMUP_PARTS - 0.5).astype(int)
    medians = [np.median(times[part == i]) for i in range(_WARMUP_PARTS) if (part == i).any()][-3:]
    low, high = min(medians[:-1], default=medians[-1]), max(medians[:-1], default=medians[-1])
    return bool(low * (1 - precision) <= medians[-1] <= high * (1 + precision))


def is_known(seconds, interval, precision):
    """Whether both ends of an interval are within a share of the median."""
    if interval is None:
        return False
    median = float(np.median(seconds))
    return max(median - interval[0], interval[1] - median) <= precision * median


def median_ranks(count, confidence=0.95):
    """Finds the order statistics that enclose the median of independent observations from any continuous distribution.

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


def median_interval(series, confidence=0.95):
    """Returns a confidence interval of the median that holds for runs that depend on each other.

    Successive runs share the state of the machine (clock, caches, other programs), and all runs of a process share the places of its memory. So the interval
    is not that of independent runs. The series are cut into parts, and the medians of the parts are taken for observations (sectioning: Nakayama,
    ACM TOMACS 24(4), 2014); parts of twice the length follow, down to whole processes (blocking: Flyvbjerg and Petersen, J. Chem. Phys. 91, 1989;
    processes as the highest level: Kalibera and Jones, ISMM 2013). Where the medians of neighbouring parts are still correlated, the interval grows by
    sqrt((1 + r) / (1 - r)), as that of a first-order autoregressive process. Where the medians of longer parts differ as much as those of shorter ones, a longer
    measurement averages nothing out (flicker noise: Allan, IEEE Trans. Instrum. Meas. 36, 1987), so the spread is taken on to the whole length as it has fallen so far. The widest
    of all is the answer, and never narrower than that of independent runs.

    Args:
        series: One array of times for each process, each in the order of its runs.
        confidence: Level.

    Returns:
        (low, high); None for fewer than six runs.
    """
    series = [np.asarray(one, dtype=np.float64) for one in series if len(one)]
    values = np.concatenate(series) if series else np.empty(0)
    ranks = median_ranks(len(values), confidence)
    if ranks is None or len(values) < _LEAST_PARTS:
        return None
    ordered = np.partition(values, ranks)
    median = float(np.median(values))
    levels = [np.array([np.median(part) for part in parts]) for parts in _levels(series)]
    half = max([0.0, *(_half_width(medians, median, confidence) for medians in levels)])
    half = max(half, _extrapolated(levels, median, confidence))
    return max(min(float(ordered[ranks[0]]), median - half), 0.0), max(float(ordered[ranks[1]]), median + half)


def _levels(series):
    """Yields the series cut into parts, then into parts of twice the length, and so on."""
    several = len(series) >= _LEAST_PROCESSES
    each = _PARTS_OF_A_PROCESS if several else _PARTS // len(series)
    while each >= 1:
        parts = [part for one in series for part in np.array_split(one, min(each, len(one)))]
        if len(parts) < (_LEAST_PROCESSES if several else _LEAST_PARTS):
            return
        yield parts
        each //= 2


def _half_width(medians, center, confidence):
    count = len(medians)
    half = student_quantile(confidence, count - 1) * math.sqrt(((medians - center) ** 2).sum() / (count - 1) / count)
    if count < _LEAST_FOR_CORRELATION:
        return half
    around = medians - medians.mean()
    total = (around**2).sum()
    # 1 / count is the bias of the estimate, which the mean of the sample brings.
    correlation = min((around[:-1] * around[1:]).sum() / total + 1 / count, 0.9) if total > 0 else 0.0
    return half * math.sqrt((1 + correlation) / (1 - correlation)) if correlation > 1 / math.sqrt(count) else half


def _extrapolated(levels, center, confidence):
    """Returns the half width for parts whose spread falls with their length by a power between that of flicker noise, 0, and of independent runs, -1/2."""
    counts = np.array([len(medians) for medians in levels], dtype=np.float64)
    spreads = np.array([math.sqrt(((medians - center) ** 2).sum() / (len(medians) - 1)) for medians in levels])
    if not len(counts) or counts[0] == counts[-1] or not spreads.all():
        return 0.0
    # A line through the logarithms, each with the weight of its degrees of freedom.
    x, y, weights = np.log(counts), np.log(spreads), counts - 1
    x, y = x - np.average(x, weights=weights), y - np.average(y, weights=weights)
    power = min(max(-float((weights * x * y).sum() / (weights * x**2).sum()), -0.5), 0.0)
    return student_quantile(confidence, int(counts[-1]) - 1) * float(spreads[-1] * counts[-1] ** power)


@functools.lru_cache(maxsize=None)  # noqa: UP033 (Python 3.8 has no functools.cache)
def student_quantile(confidence, freedom):
    """Returns t such that Student's distribution with `freedom` (1 or more, whole) degrees of freedom has `confidence` between -t and t."""
    low, high = 0.0, 1.0
    while _between(high, freedom) < confidence:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if _between(middle, freedom) < confidence else (low, middle)
    return (low + high) / 2


def _between(t, freedom):
    """Share of Student's distribution between -t and t, by the finite sums of Abramowitz and Stegun, 26.7.3 and 26.7.4."""
    angle = math.atan2(t, math.sqrt(freedom))
    cosine, sine = math.cos(angle), math.sin(angle)
    odd = freedom % 2
    term = total = (cosine if odd else 1.0) if freedom > 1 else 0.0
    for k in range(3 if odd else 2, freedom - 1, 2):
        term *= cosine**2 * (k - 1) / k
        total += term
    return (angle + sine * total) * 2 / math.pi if odd else sine * total


def drift(seconds):
    """Returns the median of the last third of the runs over that of the first third, minus 1; 0 for fewer than three runs."""
    third = len(seconds) // 3
    return float(np.median(seconds[-third:]) / np.median(seconds[:third]) - 1) if third else 0.0


def jitter(seconds):
    """Returns the median absolute difference between the times of successive runs; 0 for one run."""
    return float(np.median(np.abs(np.diff(seconds)))) if len(seconds) > 1 else 0.0
