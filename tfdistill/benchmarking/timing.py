"""When a benchmark has run long enough."""

import dataclasses
import math
import time

from tfdistill.benchmarking import measuring
from tfdistill.errors import ConfigurationError


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


def measure(run, timing, clock=time.perf_counter_ns):
    """Times `run()` as `timing` says; see `tfdistill.benchmarking.measuring.measure`."""
    return measuring.measure(run, clock=clock, **dataclasses.asdict(timing))
