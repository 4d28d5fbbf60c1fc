"""What a benchmark found."""

import dataclasses
from typing import Any

from tfdistill.host import HostFingerprint
from tfdistill.records import Record


@dataclasses.dataclass(frozen=True)
class BenchmarkRecord(Record):
    """Latency and memory of one file on one target.

    A run is: copy the inputs in, invoke, and read every output back into host memory. Latencies are wall-clock times of single runs.

    Attributes:
        path: The file.
        variant: What the caller calls it, for example `int8`; None if not said.
        sha256: The file's digest.
        size_bytes: Its size.
        target: The target in words.
        target_settings: The target's settings; `kind` names its class.
        engine: Import name of the interpreter.
        input_shapes: Input name -> shape that ran, batch first.
        p50_ms: Median latency.
        p90_ms: 90th percentile.
        p99_ms: 99th percentile.
        mean_ms: Mean.
        min_ms: Fastest run.
        p50_low_ms: Lower end of the median's confidence interval; None if there were too few runs for one.
        p50_high_ms: Upper end.
        confidence: Level of that interval, for example 0.95.
        runs: Runs that were timed.
        warmup_runs: Runs before those, not counted.
        converged: Whether the median became as precise as asked before the time limit.
        init_ms: Time to open the file and allocate its tensors, once, the file being in the page cache.
        arena_bytes: Memory that the activations take, overlaps counted once: span of the non-constant tensors of the main graph with
            XNNPACK off. None where the interpreter cannot run the file so, or cannot tell.
        baseline_rss_bytes: Resident memory of the measuring process when the interpreter was imported and the file not yet opened.
        peak_rss_bytes: Largest resident memory of that process from there to the last run: the baseline, the file's pages that were
            touched, the arena, and the kernels' packed weights and scratch.
        load_average: Load of the machine over the minute before: well above 0 means that something else was running. None where unknown.
        host: The machine and packages.
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
    baseline_rss_bytes: int
    peak_rss_bytes: int
    load_average: float | None
    host: HostFingerprint

    def summary(self):
        """Returns the row of a summary: variant, p50_ms, p90_ms, p99_ms."""
        return {name: getattr(self, name) for name in ("variant", "p50_ms", "p90_ms", "p99_ms")}
