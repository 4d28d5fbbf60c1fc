"""Benchmarks a .tflite file in a process of its own."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence

from tfdistill.benchmarking.again import measured_again
from tfdistill.benchmarking.checked_here import checked_here
from tfdistill.benchmarking.isolation import CrashError, run_child
from tfdistill.benchmarking.record import BenchmarkRecord, untimed
from tfdistill.benchmarking.streaming import stream_throughput
from tfdistill.benchmarking.targets.base import Target, to_spec
from tfdistill.benchmarking.targets.cpu import Cpu
from tfdistill.benchmarking.timing import Timing
from tfdistill.errors import ConfigurationError
from tfdistill.host import fingerprint
from tfdistill.runtime.interpreter import checked_shape, read_file
from tfdistill.utils import validate
from tfdistill.utils.arguments import explains_arguments
from tfdistill.utils.types import PathLike

# Time for all but the timed runs: the child starts, opens the file twice and warms up, which is slow for a large model on a small board.
_OVERHEAD_SECONDS = 120.0


@explains_arguments(
    threads="benchmark(path, tfdistill.benchmarking.Cpu(threads=2))",
    num_threads="benchmark(path, tfdistill.benchmarking.Cpu(threads=2))",
    xnnpack="benchmark(path, tfdistill.benchmarking.Cpu(kernels='builtin'))",
    engine="benchmark(path, tfdistill.benchmarking.Cpu(engine='tensorflow'))",
    runs="benchmark(path, timing=tfdistill.benchmarking.Timing(min_runs=200))",
    warmup="benchmark(path, timing=tfdistill.benchmarking.Timing(warmup_runs=20))",
    input_shapes="give shapes={name: shape}",
)
def benchmark(
    path: PathLike,
    target: Target | None = None,
    *,
    timing: Timing | None = None,
    variant: str | None = None,
    timeout_seconds: float | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    batch: int | None = None,
    streams: int = 1,
) -> BenchmarkRecord:
    """Measures the latency and memory of a .tflite file in a process of its own.

    The file runs one batch at a time, first untimed until the times are stable, then until the confidence interval of the median is as narrow as
    `timing.precision` or the time limit is reached. One run copies the inputs in, invokes the interpreter, and reads the outputs back into host memory.
    Several processes share the runs, and the interval holds what differs between them.

    On an accelerator a file is timed only if the runtime says that the accelerator runs it. Afterwards the outputs of the last timed run are compared with
    those of the CPU on the same inputs. An accelerator's library or driver that ends the process (an abort, a segmentation fault), or a browser that crashes, is a result: a record with
    `status="crashed"`, without times.

    Args:
        path: The file.
        target: Where the file runs: on this machine `Cpu`, `Gpu`, `Npu`, `Delegate`, `Micro` or `Browser`; elsewhere a board (`Ssh`) or an Android device (`Adb`). None is
            `Cpu(threads=1)`.
        timing: When to stop; None is `Timing()`.
        variant: Name of the file in the record, for example `"int8"`.
        timeout_seconds: The process is killed after this time, above 0. None is twice the longest warm-up and measurement of `timing`, plus
            two minutes.
        shapes: Dict of input name -> full shape, batch included, to resize these inputs to. Required for inputs with axes of any size other
            than the batch. A free batch is run at the size that the file has, usually 1. The record has the shapes of the runs.
        batch: Batch size to resize every input to, at least 1; None keeps that of the file. Not together with `shapes`, which hold the batch.
        streams: Number of processes that run the file at the same time for `throughput_per_s`, at least 1. The latencies are those of one alone.

    Returns:
        A `BenchmarkRecord`; its method `save(path)` writes it as JSON.

    Raises:
        ConfigurationError: for a missing file or impossible settings.
        DelegationError: if an accelerator leaves operations to the CPU; the message says how many, and which.
        BenchmarkError: if the file cannot be opened or run on the target, has inputs without a fixed size that are not in `shapes`, crashes
            the process, or takes too long.

    Example:
        >>> timing = tfdistill.benchmarking.Timing(min_seconds=0.05, max_seconds=0.2, warmup_seconds=0)
        >>> record = tfdistill.benchmark("student.tflite", tfdistill.benchmarking.Cpu(threads=1), timing=timing, variant="int8")
        >>> record.p50_ms > 0, record.variant, record.target
        (True, 'int8', 'CPU, 1 thread, XNNPACK')
    """
    if not isinstance(path, (str, os.PathLike)):
        kind = "an ExportRecord" if hasattr(path, "census") else f"a {type(path).__name__}"
        write = "benchmark(record.path)" if hasattr(path, "census") else "export it first: benchmark(export_tflite(model, 'm.tflite').path)"
        raise ConfigurationError(f"benchmark got {kind} as the path.", "the path of a .tflite file", write)
    path = pathlib.Path(path)
    if not path.is_file():
        raise ConfigurationError(f"There is no file '{path}' to benchmark.", "a .tflite file", "export_tflite writes one")
    if path.suffix in (".keras", ".h5"):
        raise ConfigurationError(
            f"'{path}' is a saved model, which no interpreter of .tflite files runs.",
            "a .tflite file",
            f"export it first: export_tflite('{path}', 'model.tflite'); on the command line, tfdistill export {path} --out model.tflite",
        )
    target = Cpu() if target is None else target
    timing = Timing() if timing is None else timing
    if not isinstance(timing, Timing):
        raise ConfigurationError(f"timing={timing!r} is a {type(timing).__name__}.", "a tfdistill.benchmarking.Timing")
    if timeout_seconds is None:
        timeout_seconds = 2 * (timing.max_seconds + timing.warmup_seconds) + _OVERHEAD_SECONDS
    if timeout_seconds <= 0:
        raise ConfigurationError(f"timeout_seconds={timeout_seconds} is impossible.", "a number above 0")
    validate.whole_number("streams", streams)
    if batch is not None:
        validate.whole_number("batch", batch)
        if shapes is not None:
            raise ConfigurationError(f"batch={batch} and shapes={shapes} contradict each other.", "one of them; the shapes hold the batch")
    if shapes is not None:
        shapes = {name: checked_shape(name, shape) for name, shape in shapes.items()}
    request = {
        "path": str(path.absolute()),
        "target": to_spec(target),
        "timing": dataclasses.asdict(timing),
        "variant": variant,
        "shapes": shapes,
        "batch": batch,
        "host": fingerprint().to_dict(),
    }
    if target.remote:
        if batch is not None or streams != 1 or timing.cores is not None or timing.pause_seconds:
            raise ConfigurationError(
                f"batch={batch}, streams={streams}, cores={timing.cores} and pause_seconds={timing.pause_seconds:g} for {target.describe()}.",
                "the defaults of these four, which are for targets on this machine",
            )
        return remote_record(target, {**request, "timeout_seconds": timeout_seconds}, path)
    try:
        found = run_child(request, timeout_seconds, expected_seconds=timing.max_seconds + timing.warmup_seconds)
    except CrashError as error:
        if isinstance(target, Cpu):
            raise
        found = _crashed(request, target, error)
    if "times" in found:
        if batch is not None:
            request["shapes"] = found["input_shapes"]
        found = measured_again(request, found, timeout_seconds)
        if streams > 1:
            together = stream_throughput(request, streams, max(timing.min_seconds, 1e-3 * found["p50_ms"]), timeout_seconds)
            throughput = found["batch"] * together.runs_per_s
            found.update(streams=streams, throughput_per_s=throughput, stream_p50_ms=together.p50_ms)
    found["gmac_per_s"] = _rate(found["macs"], found["p50_ms"])
    return BenchmarkRecord.from_dict({**found, "path": str(path)})


def remote_record(target, request, path):
    """Returns the `BenchmarkRecord` of a file that another device runs.

    Args:
        target: A target with `remote = True`.
        request: As the measuring process gets it, and `timeout_seconds`.
        path: The file, as the caller named it.
    """
    known = {field.name for field in dataclasses.fields(BenchmarkRecord)}
    try:
        measured = target.measure(request)
    except CrashError as error:
        return BenchmarkRecord.from_dict({**_crashed(request, target, error), "path": str(path)})
    found = {name: value for name, value in measured.items() if name in known}
    own = {"path": str(path), "variant": request["variant"], "target": target.describe(), "target_settings": request["target"]}
    # What another device sends may be anything: it is read before it is used.
    record = BenchmarkRecord.from_dict({**found, **own}, source=target.describe())
    record = dataclasses.replace(record, **checked_here(request, measured.get("arrays")))
    return dataclasses.replace(record, gmac_per_s=_rate(record.macs, record.p50_ms))


def _rate(macs, milliseconds):
    """Returns the billions of multiply-accumulates in a second, or None."""
    return macs / milliseconds / 1e6 if macs and milliseconds else None


def _crashed(request, target, error):
    """Returns the fields of the record of a target that ended the measuring process."""
    file = read_file(request["path"])
    return BenchmarkRecord(
        **untimed(
            path=request["path"],
            variant=request["variant"],
            sha256=file.sha256,
            size_bytes=len(file.content),
            target=target.describe(),
            target_settings=request["target"],
            input_shapes={},
            host=fingerprint(),
            status="crashed",
            failure=error.happened,
        )
    ).to_dict()
