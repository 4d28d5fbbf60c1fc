"""The record of a benchmark."""

import dataclasses
import math
from typing import Any

from tfdistill.host import HostFingerprint
from tfdistill.records import Record

# A drift, or a fall of the clock, from this share on is remarked on.
_NOTICED = 0.05


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
        engine: Import name of the interpreter; of a `Browser` the name and version of LiteRT.js and the browser.
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
        runs_per_time: Number of runs in a row that each time is the mean of: 1, or more of a fast file in a `Browser`, whose clock is coarse. The percentiles and
            extremes are those of these means.
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
        p95_ms: 95th percentile.
        max_ms: Slowest run.
        jitter_ms: Median absolute difference between the times of successive runs.
        first_inference_ms: Time of the very first run after the file was opened, which packs weights and maps pages.
        warmup_stable: Whether the times had stopped falling or rising when the warm-up ended, in every process.
        drift: Median of the last third of the timed runs over that of the first third, minus 1.
        processes: Number of processes that the times come from; `init_ms` and `first_inference_ms` are medians of these.
        clock_mhz_before: Fastest clock of the cores before the runs; None where the system does not show it. Likewise the next three.
        clock_mhz_after: The same after the runs.
        temperature_c_before: Highest temperature of the processor before the runs, in degrees Celsius.
        temperature_c_after: The same after the runs.
        pinned_cores: The cores that the process was pinned to; None for all.
        batch: Samples in one run.
        streams: Processes that ran the file at the same time for `throughput_per_s`. The latencies are those of one alone.
        throughput_per_s: Samples in a second, of all streams.
        stream_p50_ms: Median latency while all streams ran; None for one stream.
        macs: Multiply-accumulates of one run, counted in the file; None if it has operations that are not counted.
        gmac_per_s: Billions of these in a second, at the median latency.
        moved_bytes: Size of all tensors that the operations of one run read and write; None if the interpreter does not list them.
        compute_type: Type of most multiply-accumulates, such as `int8`; None without any.
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
        amx: Whether XNNPACK could use the processor's AMX; None on targets other than `Cpu`.
        operators: Of `Micro`: names of the operations that the firmware has to register.

    Example:
        >>> timing = tfdistill.benchmarking.Timing(min_seconds=0.05, max_seconds=0.2, warmup_seconds=0, processes=1)
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
    p95_ms: float = math.nan
    max_ms: float = math.nan
    jitter_ms: float = math.nan
    first_inference_ms: float = math.nan
    warmup_stable: bool = True
    drift: float = 0.0
    processes: int = 1
    clock_mhz_before: float | None = None
    clock_mhz_after: float | None = None
    temperature_c_before: float | None = None
    temperature_c_after: float | None = None
    pinned_cores: tuple[int, ...] | None = None
    batch: int = 1
    streams: int = 1
    throughput_per_s: float = math.nan
    stream_p50_ms: float | None = None
    macs: int | None = None
    gmac_per_s: float | None = None
    moved_bytes: int | None = None
    compute_type: str | None = None
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
    runs_per_time: int = 1
    amx: bool | None = None

    @property
    def remarks(self) -> tuple[str, ...]:
        """What to know before the times are believed: a limit that was reached, a drift, a processor that slowed down, a busy machine."""
        found: list[str] = []
        if math.isnan(self.p50_ms):  # nothing was timed
            return ()
        if not self.converged:
            found.append("The time limit came before the precision.")
        if not self.warmup_stable:
            found.append("The times still changed when the warm-up ended.")
        if self.runs_per_time > 1:
            found.append(
                f"Each time is the mean of {self.runs_per_time} runs in a row, as the clock there is coarse: single slow runs do not show."
            )
        if self.amx and self.compute_type == "int8":
            found.append(
                "XNNPACK could use AMX, which no phone or board has, and which is slow on small shapes: Cpu(amx=False) measures without."
            )
        before, after = self.clock_mhz_before, self.clock_mhz_after
        if before and after and after < (1 - _NOTICED) * before:
            found.append(f"The processor slowed down from {before:,.0f} to {after:,.0f} MHz.")
        if abs(self.drift) > _NOTICED:
            found.append(f"The last third of the runs took {abs(self.drift):.0%} {'longer' if self.drift > 0 else 'less'} than the first.")
        if self.load_average is not None and self.load_average > self.host.usable_cores:
            found.append(f"The machine was busy: {self.load_average:.1f} processes ran or waited for {self.host.usable_cores} cores.")
        return tuple(found)

    def summary(self) -> dict[str, Any]:
        """Returns the fields of a summary table: the latencies first, then what was measured and where."""
        names = (
            *(
                "variant",
                "p50_ms",
                "p50_low_ms",
                "p50_high_ms",
                "p90_ms",
                "p95_ms",
                "p99_ms",
                "max_ms",
                "jitter_ms",
                "path",
                "size_bytes",
                "target",
                "engine",
                "input_shapes",
                "runs",
                "processes",
                "converged",
                "init_ms",
                "first_inference_ms",
                "throughput_per_s",
                "gmac_per_s",
            ),
            *("arena_bytes", "peak_rss_bytes", "load_average", "host", "remarks"),
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


@dataclasses.dataclass(frozen=True)
class ComparedFile(Record):
    """One file of a `SpeedComparison`.

    Attributes:
        path: The file.
        sha256: SHA-256 of the file, in hexadecimal digits.
        size_bytes: Size of the file.
        p50_ms: Median latency, over the processes.
        ratio: Its time as a multiple of that of the first file in the same round; below 1 it is faster.
        ratio_low: Lower end of the ratio's confidence interval.
        ratio_high: Upper end.

    Example:
        >>> file = tfdistill.benchmarking.ComparedFile("int8.tflite", "00", 1024, 0.2, 0.5, 0.49, 0.52)
        >>> file.verdict
        'int8.tflite: 2.00 times as fast (1.92 to 2.04)'
    """

    path: str
    sha256: str
    size_bytes: int
    p50_ms: float
    ratio: float
    ratio_low: float
    ratio_high: float

    def summary(self) -> dict[str, Any]:
        """Returns the fields of a row: what was found before what the file is."""
        names = ("path", "p50_ms", "ratio", "ratio_low", "ratio_high", "size_bytes")
        return {name: getattr(self, name) for name in names}

    @property
    def verdict(self) -> str:
        """Says whether the file is faster or slower than the first one, in words."""
        if self.ratio_low <= 1 <= self.ratio_high:
            return f"{self.path}: no difference shown (ratio {self.ratio:.3f}, {self.ratio_low:.3f} to {self.ratio_high:.3f})"
        if self.ratio < 1:
            return f"{self.path}: {1 / self.ratio:.2f} times as fast ({1 / self.ratio_high:.2f} to {1 / self.ratio_low:.2f})"
        return f"{self.path}: {self.ratio:.2f} times as slow ({self.ratio_low:.2f} to {self.ratio_high:.2f})"


@dataclasses.dataclass(frozen=True)
class SpeedComparison(Record):
    """Times of files that ran by turns, from `tfdistill.compare_speed`.

    Attributes:
        files: The files, in the order in which they were given; ratios are to the first.
        target: Description of the target.
        target_settings: Settings of the target; `kind` names its class.
        confidence: Level of the intervals.
        processes: Number of processes, each of which is one observation.
        rounds: Turns of each file, over all processes.
        converged: Whether all intervals are as narrow as `Timing.precision`.
        load_average: Load average of the machine over the minute before; None if unknown.
        host: Machine and package versions.

    Example:
        >>> quick = tfdistill.benchmarking.Timing(min_seconds=0.1, max_seconds=0.1, warmup_seconds=0, processes=3)
        >>> comparison = tfdistill.compare_speed(["student.tflite", "student.tflite"], timing=quick)
        >>> comparison.processes, len(comparison.verdicts)
        (3, 1)
    """

    files: tuple[ComparedFile, ...]
    target: str
    target_settings: dict[str, Any]
    confidence: float
    processes: int
    rounds: int
    converged: bool
    load_average: float | None
    host: HostFingerprint

    @property
    def verdicts(self) -> tuple[str, ...]:
        """Says of each file but the first whether it is faster or slower than that one."""
        return tuple(file.verdict for file in self.files[1:])

    def summary(self) -> dict[str, Any]:
        """Returns the fields of the summary table: the verdicts first."""
        names = ("target", "processes", "rounds", "converged", "load_average", "host")
        return {"verdicts": self.verdicts, **{name: getattr(self, name) for name in names}}
