"""The record of a benchmark."""

import dataclasses
import math
from typing import Any

from tfdistill.host import HostFingerprint
from tfdistill.records import Record


@dataclasses.dataclass(frozen=True)
class BenchmarkRecord(Record):
    """Latency and memory of one file on one target.

    One run copies the inputs in, invokes the interpreter, and reads every output back into host memory. Latencies are wall-clock times of
    single runs. Where nothing was timed (`Micro`, or a target that ended the process) they are NaN.

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
            None if the interpreter cannot run the file without XNNPACK or does not report its tensors. Of `Micro` the whole arena.
        baseline_rss_bytes: Resident memory of the measuring process after the import of the interpreter, before the file is opened.
        peak_rss_bytes: Largest resident memory of that process until the last run: the baseline, the pages of the file that were read, the
            arena, and the packed weights and scratch memory of the kernels. Both are None from a device that does not report them.
        load_average: Load average of the machine over the minute before; well above 0 means that other processes were running. None if
            unknown.
        host: Machine and package versions.
        status: `"measured"`, or `"crashed"` if the target ended the measuring process.
        failure: How the process ended, and what it printed last; None if it did not.
        operations: Operations of the file; None if the runtime does not list them.
        delegated_operations: Number of these that the accelerator runs; on the CPU, XNNPACK.
        partitions: Connected parts that it runs, with tensors handed over between them. None if the runtime does not say it.
        left_operations: What it leaves to the interpreter's kernels on the CPU: name and type, such as `"RSQRT int8"` -> number.
        accelerator_proven: Whether the runtime said, before the timed runs, that the accelerator does the work, or with `allow_partial` a part of it. None for
            targets without an accelerator.
        reference_kernels: Which kernels of the CPU the outputs of the last timed run were compared with: `"builtin"` or `"xnnpack"`. None if neither runs the
            file.
        reference_max_abs_error: Largest difference of an output to the reference's, on the same inputs, in real values.
        reference_max_steps: Largest difference of an integer output, in steps. Two sets of kernels on one CPU may differ by one.
        arena_sections: Of `Micro`: name of each section of the arena -> bytes. `"head"` and `"tail"` are the whole; the others are parts of the tail.
        operators: Of `Micro`: names of the operations that the firmware has to register.

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
    status: str = "measured"
    failure: str | None = None
    operations: int | None = None
    delegated_operations: int | None = None
    partitions: int | None = None
    left_operations: dict[str, int] = dataclasses.field(default_factory=dict)
    accelerator_proven: bool | None = None
    reference_kernels: str | None = None
    reference_max_abs_error: float | None = None
    reference_max_steps: int | None = None
    arena_sections: dict[str, int] = dataclasses.field(default_factory=dict)
    operators: tuple[str, ...] = ()

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
            *("operations", "delegated_operations", "partitions", "left_operations", "reference_max_abs_error", "reference_max_steps"),
            *("arena_sections", "operators"),
        )
        shown = {name: getattr(self, name) for name in names}
        if self.status != "measured":
            shown = {"status": self.status, "failure": self.failure, **shown}
        # What was not timed is left out.
        return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in shown.items()}


def untimed(**known: Any) -> dict[str, Any]:
    """Returns the fields of a record without times: those that are given, NaN or nothing for the others that have no default.

    Args:
        **known: Field -> value.
    """
    empty = {"float": math.nan, "int": 0, "bool": False, "str": ""}
    missing = [
        f for f in dataclasses.fields(BenchmarkRecord) if f.default is f.default_factory is dataclasses.MISSING and f.name not in known
    ]
    return {**{f.name: empty.get(getattr(f.type, "__name__", str(f.type))) for f in missing}, **known}
