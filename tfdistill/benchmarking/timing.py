"""When a benchmark has run long enough, and what is told of its times."""

import base64
import dataclasses
import math
import time
import zlib
from collections.abc import Sequence

import numpy as np

from tfdistill.benchmarking.measuring import Timed, drift, is_known, jitter, measure, median_interval
from tfdistill.errors import ConfigurationError, nearest
from tfdistill.utils import validate

# Any interval is as narrow.
_ANY_PRECISION = 0.999


@dataclasses.dataclass(frozen=True)
class Timing:
    """When a benchmark has run long enough.

    Attributes:
        precision: The benchmark stops when both ends of the median's confidence interval are within this share of the median; above 0,
            below 1.
        confidence: Level of that interval; above 0, below 1.
        warmup_seconds: Least duration of the untimed runs at the start of each process, which fill caches and map pages; 0 or more. They go on until the
            times are stable, at most six times as long.
        warmup_runs: Smallest number of untimed runs; 0 or more.
        min_runs: Smallest number of timed runs, at least 1. 100 runs leave one beyond the 99th percentile.
        min_seconds: Shortest duration of the timed runs, so that the slow runs of a fast model are seen too; 0 or more.
        max_seconds: Time limit of the timed runs. If it is reached first, the record has `converged=False`.
        processes: Number of processes that share the timed runs, at least 1; each opens the file anew. Where the file comes to lie in memory changes its
            time by up to a percent, which the runs of one process cannot show. A file that takes long to open is measured in one process.
        pause_seconds: Pause before each further process; 0 or more. Processors of shared machines and phones change between speeds that last for half a minute: an interval holds
            only those that its processes met, and pauses of 10 s have them meet several. Not for other devices.
        cores: Numbers of the cores that the process may run on, from 0 on, which pins its threads (Linux only); None for all.

    Example:
        >>> quick = tfdistill.benchmarking.Timing(min_seconds=0.05, max_seconds=0.2, warmup_seconds=0, processes=1)
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
    processes: int = 5
    pause_seconds: float = 0.0
    cores: Sequence[int] | None = None

    def __post_init__(self) -> None:
        for name, low, high in (("precision", 0, 1), ("confidence", 0, 1), ("max_seconds", 0, math.inf)):
            if not low < getattr(self, name) < high:
                raise ConfigurationError(f"{name}={getattr(self, name)} is impossible.", f"a number above {low} and below {high}")
        for name, low in (("warmup_seconds", 0), ("warmup_runs", 0), ("min_runs", 1), ("min_seconds", 0), ("pause_seconds", 0)):
            if getattr(self, name) < low:
                raise ConfigurationError(f"{name}={getattr(self, name)} is impossible.", f"at least {low}")
        if self.min_seconds > self.max_seconds:
            raise ConfigurationError(
                f"min_seconds={self.min_seconds} is above max_seconds={self.max_seconds}.", "a minimum below the limit"
            )
        validate.whole_number("processes", self.processes)
        if self.cores is not None:
            if not self.cores or not all(validate.is_whole_number(core, 0) for core in self.cores):
                raise ConfigurationError(f"cores={self.cores!r} is impossible.", "numbers of cores, from 0 on, such as (0,)")
            object.__setattr__(self, "cores", tuple(int(core) for core in self.cores))

    def share(self) -> "Timing":
        """Returns the part of one of the `processes`: the runs and times divided among them."""
        return dataclasses.replace(
            self,
            min_runs=math.ceil(self.min_runs / self.processes),
            min_seconds=self.min_seconds / self.processes,
            max_seconds=self.max_seconds / self.processes,
            precision=_ANY_PRECISION,  # that of all processes together counts
            processes=1,
        )


def time_runs(run, timing, **options):
    """Times `run()` as a `Timing` says, in this process; see `measuring.measure`."""
    names = ("precision", "confidence", "warmup_seconds", "warmup_runs", "min_runs", "min_seconds", "max_seconds")
    return measure(run, **{name: getattr(timing, name) for name in names}, **options)


def whole_run(model, inputs):
    """Returns a function that runs an opened model once: inputs in, invoke, outputs in host memory, which is when the work is certainly done.

    It returns the outputs as a list, in their order.
    """
    if hasattr(model, "runner"):
        return model.runner(inputs)

    def run():
        model.set_inputs(inputs)
        model.invoke()
        return list(model.read_outputs().values())

    return run


def time_first(run):
    """Runs a function for the first time; returns (its result, seconds)."""
    before = time.perf_counter_ns()
    result = run()
    return result, (time.perf_counter_ns() - before) / 1e9


def require_fixed(declared, shapes):
    """Checks that all axes but the batch have a fixed size or a size in `shapes`: before the file is opened, as some do not even open at the size of 1 that is
    written there in place of any.

    Args:
        declared: Dict of input name -> shape that the file declares, with None for an axis of any size.
        shapes: Dict of input name -> requested shape.

    Raises:
        ConfigurationError: if not; the message names every input without a fixed size. Also for a shape of what is no input.
    """
    for name in shapes:
        if declared and name not in declared:
            raise ConfigurationError(
                f"shapes has '{name}', which is no input of the file.", f"of {sorted(declared)}", nearest(name, declared)
            )
    free = {name: shape for name, shape in declared.items() if name not in shapes and None in shape[1:]}
    if free:
        example = {name: tuple(32 if size is None else size for size in (1, *shape[1:])) for name, shape in free.items()}
        raise ConfigurationError(
            f"These inputs have no fixed size: {free}.",
            "the shapes to measure, as time and memory depend on them",
            f"benchmark(path, shapes={example})",
        )


def latency_fields(several, timing, batch=1):
    """Returns the fields of a `BenchmarkRecord` that the times tell, as a dict.

    Args:
        several: The `Timed` of each process, in their order.
        timing: The `Timing` that was asked for.
        batch: Samples in one run.
    """
    series = [timed.seconds for timed in several]
    seconds = np.concatenate(series)
    interval = several[0].interval if len(several) == 1 else median_interval(series, timing.confidence)
    known = several[0].converged if len(several) == 1 else is_known(seconds, interval, timing.precision) and len(seconds) >= timing.min_runs
    p50, p90, p95, p99 = (float(np.percentile(seconds, p)) * 1e3 for p in (50, 90, 95, 99))
    low, high = (None, None) if interval is None else (end * 1e3 for end in interval)
    return {
        "p50_ms": p50,
        "p90_ms": p90,
        "p95_ms": p95,
        "p99_ms": p99,
        "mean_ms": float(seconds.mean()) * 1e3,
        "min_ms": float(seconds.min()) * 1e3,
        "max_ms": float(seconds.max()) * 1e3,
        "jitter_ms": jitter(seconds) * 1e3,
        "p50_low_ms": low,
        "p50_high_ms": high,
        "confidence": timing.confidence,
        "runs": len(seconds),
        "warmup_runs": sum(timed.warmup_runs for timed in several),
        "warmup_stable": all(timed.warmup_stable for timed in several),
        "converged": known,
        "first_inference_ms": float(np.median([timed.first_seconds for timed in several])) * 1e3,
        "drift": drift(seconds),
        "processes": len(several),
        "throughput_per_s": batch * len(seconds) / float(seconds.sum()),
    }


def packed(timed):
    """Returns a `Timed` as a JSON value: the times as compressed nanoseconds."""
    nanoseconds = np.rint(timed.seconds * 1e9).astype("<i8")
    return {**dataclasses.asdict(timed), "seconds": base64.b64encode(zlib.compress(nanoseconds.tobytes(), 1)).decode()}


def unpacked(value):
    """Returns the `Timed` that `packed` wrote."""
    seconds = np.frombuffer(zlib.decompress(base64.b64decode(value["seconds"])), "<i8") / 1e9
    return Timed(**{**value, "seconds": seconds, "interval": value["interval"] and tuple(value["interval"])})
