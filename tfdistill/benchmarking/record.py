"""The record of a benchmark."""

import dataclasses
from typing import Any

from tfdistill.host import HostFingerprint
from tfdistill.records import Record


@dataclasses.dataclass(frozen=True)
class BenchmarkRecord(Record):
    """Latency and memory of one file on one target.

    One run copies the inputs in, invokes the interpreter, and reads every output back into host memory. Latencies are wall-clock times of
    single runs.

    Attributes:
        path: The file.
        variant: Name of the file in reports, for example `int8`; None if not given.
        sha256: SHA-256 of the file, in hexadecimal digits.
        size_bytes: Size of the file.
        target: Description of the target.
        target_settings: Settings of the target; `kind` names its class.
        engine: Import name of the interpreter.
        input_shapes: Input name -> shape of the runs, batch first.
        p50_ms: Median latency.
        p90_ms: 90th percentile; NaN from a device that does not report it, as Android's do not.
        p99_ms: 99th percentile; NaN likewise.
        mean_ms: Mean latency.
        min_ms: Fastest run.
        p50_low_ms: Lower end of the median's confidence interval; None if there were too few runs.
        p50_high_ms: Upper end of that interval.
        confidence: Level of that interval, for example 0.95.
        runs: Number of timed runs.
        warmup_runs: Number of untimed runs before those.
        converged: Whether the median reached `Timing.precision` before the time limit.
        init_ms: Time to open the file and allocate its tensors, measured once with the file in the page cache.
        arena_bytes: Memory of the activations, overlaps counted once: span of the non-constant tensors of the main graph with XNNPACK off.
            None if the interpreter cannot run the file without XNNPACK or does not report its tensors.
        baseline_rss_bytes: Resident memory of the measuring process after the import of the interpreter, before the file is opened.
        peak_rss_bytes: Largest resident memory of that process until the last run: the baseline, the pages of the file that were read, the
            arena, and the packed weights and scratch memory of the kernels. Both are None from a device that does not report them.
        load_average: Load average of the machine over the minute before; well above 0 means that other processes were running. None if
            unknown.
        host: Machine and package versions.

    Example:
        >>> timing = tfdistill.benchmarking.Timing(min_seconds=0.05, max_seconds=0.2, warmup_seconds=0)
        >>> record = tfdistill.benchmark("student.tflite", timing=timing)
        >>> record.p50_ms <= record.p90_ms <= record.p99_ms, record.input_shapes
        (True, {'image': (1, 8, 8, 1)})
        >>> path = record.save("benchmark.json")
        >>> tfdistill.benchmarking.BenchmarkRecord.load(path) == record
        True
    """

    path: str
    variant: str | None
    sha256: str
    size_bytes: int
    target: str
    target_settings: dict[str, Any]
    engine: str
    input_shapes: dict[str, tuple[int, ...]]
    p50_ms: float
    p90_ms: float
    p99_ms: float
    mean_ms: float
    min_ms: float
    p50_low_ms: float | None
    p50_high_ms: float | None
    confidence: float
    runs: int
    warmup_runs: int
    converged: bool
    init_ms: float
    arena_bytes: int | None
    baseline_rss_bytes: int | None
    peak_rss_bytes: int | None
    load_average: float | None
    host: HostFingerprint

    def summary(self) -> dict[str, Any]:
        """Returns the fields of a summary table: the latencies first, then what was measured and where."""
        names = (
            *(
                "variant",
                "p50_ms",
                "p90_ms",
                "p99_ms",
                "path",
                "size_bytes",
                "target",
                "engine",
                "input_shapes",
                "runs",
                "converged",
                "init_ms",
            ),
            *("arena_bytes", "peak_rss_bytes", "load_average", "host"),
        )
        return {name: getattr(self, name) for name in names}
