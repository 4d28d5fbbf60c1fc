"""Times .tflite files against each other on one target, by turns, in several processes."""

import dataclasses
import json
import math
import os
import pathlib
import random
import sys
import time
from collections.abc import Mapping, Sequence

import numpy as np

from tfdistill.benchmarking.isolation import run_child
from tfdistill.benchmarking.measuring import student_quantile
from tfdistill.benchmarking.opening import open_to_time
from tfdistill.benchmarking.record import SpeedComparison
from tfdistill.benchmarking.targets.base import to_spec
from tfdistill.benchmarking.targets.cpu import Cpu
from tfdistill.benchmarking.timing import Timing, require_fixed, whole_run
from tfdistill.benchmarking.turns import time_by_turns
from tfdistill.errors import ConfigurationError, TfdistillError
from tfdistill.host import fingerprint
from tfdistill.runtime import bootstrap
from tfdistill.runtime.file_inputs import declared_inputs
from tfdistill.runtime.interpreter import checked_shape, read_file
from tfdistill.runtime.tensors import sample_inputs
from tfdistill.utils.types import PathLike

# Fewer processes have no useful interval.
_LEAST_PROCESSES = 3
_OVERHEAD_SECONDS = 120.0
# Room for the estimate of how many processes are enough.
_MARGIN = 1.2


def compare_speed(
    paths: Sequence[PathLike],
    target: Cpu | None = None,
    *,
    timing: Timing | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    timeout_seconds: float | None = None,
) -> SpeedComparison:
    """Measures how many times as long one .tflite file takes as another.

    In each of several processes all files are opened, in random order, and run by turns of about a millisecond, so that all have the same load of the
    machine; the first run of a turn, which finds the caches as another file has left them, does not count. The median ratio of the times of the same round
    is one observation; the interval is that of Student's t over the processes, on logarithms, as where the files come to lie in memory differs from
    process to process (Kalibera and Jones, Rigorous benchmarking in reasonable time, ISMM 2013). If it is wider than `timing.precision`, more processes
    follow, within the time limit.

    Args:
        paths: Two or more .tflite files; ratios are to the first.
        target: Where they run; None is `Cpu(threads=1)`.
        timing: When to stop; `precision` is that of the ratio. None is eight processes of a quarter of a second, and up to 10 seconds in all.
        shapes: Dict of input name -> full shape, as `benchmark` takes it, for the files that have an input of that name.
        timeout_seconds: Each process is killed after this time, above 0. None is that of its runs, twice, plus two minutes.

    Returns:
        A `SpeedComparison`.

    Raises:
        ConfigurationError: for fewer than two files, a missing one, or impossible settings.
        BenchmarkError: if a file cannot be opened or run on the target, crashes the process, or takes too long.

    Example:
        >>> quick = tfdistill.benchmarking.Timing(min_seconds=0.1, max_seconds=0.1, warmup_seconds=0, processes=3)
        >>> comparison = tfdistill.compare_speed(["student.tflite", "student.tflite"], timing=quick)
        >>> comparison.files[0].ratio, 0.5 < comparison.files[1].ratio < 2
        (1.0, True)
    """
    if isinstance(paths, (str, os.PathLike)) or len(paths) < 2:
        raise ConfigurationError(f"compare_speed got {paths!r}.", "a list of two or more .tflite files", "compare_speed([before, after])")
    for path in map(pathlib.Path, paths):
        if not path.is_file():
            raise ConfigurationError(f"There is no file '{path}' to compare.", "a .tflite file", "export_tflite writes one")
    target = Cpu() if target is None else target
    timing = Timing(processes=8, warmup_seconds=0.1, min_seconds=2.0) if timing is None else timing
    spec = to_spec(target)
    if getattr(target, "remote", False) or not getattr(target, "is_timed", True):
        raise ConfigurationError(
            f"{target.describe()} cannot run files by turns.", "a target on this machine; tfdistill.benchmark takes all"
        )
    if timing.processes < _LEAST_PROCESSES:
        raise ConfigurationError(
            f"processes={timing.processes} of the timing are too few to compare.", f"at least {_LEAST_PROCESSES}", "Timing(processes=8)"
        )
    seconds = max(timing.min_seconds / timing.processes, 1e-3)
    request = {
        "paths": [str(pathlib.Path(path).absolute()) for path in paths],
        "target": spec,
        "timing": dataclasses.asdict(timing),
        "shapes": None if shapes is None else {name: checked_shape(name, shape) for name, shape in shapes.items()},
        "seconds": seconds,
    }
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    limit = 2 * (seconds + 6 * timing.warmup_seconds) * len(paths) + _OVERHEAD_SECONDS if timeout_seconds is None else timeout_seconds
    return _compared(paths, target, timing, request, limit, load)


def _compared(paths, target, timing, request, limit, load):
    def processes(first, count):
        return [
            run_child({**request, "seed": seed}, limit, "tfdistill.benchmarking.comparing", f"comparing, process {seed + 1}")
            for seed in range(first, first + count)
        ]

    found = processes(0, timing.processes)
    ratios = ratio_intervals([one["ratios"] for one in found], timing.confidence)
    widest = max(max(high - middle, middle - low) / middle for middle, low, high in ratios)
    if widest > timing.precision:
        affordable = int(timing.max_seconds / request["seconds"])
        wanted = min(math.ceil(_MARGIN * timing.processes * (widest / timing.precision) ** 2), affordable) - timing.processes
        found += processes(timing.processes, max(wanted, 0))
        ratios = ratio_intervals([one["ratios"] for one in found], timing.confidence)
        widest = max(max(high - middle, middle - low) / middle for middle, low, high in ratios)
    medians = np.median([one["p50_ms"] for one in found], axis=0)
    files = []
    for path, median, (ratio, low, high) in zip(paths, medians, ratios, strict=True):
        file = read_file(path)
        files.append(
            {
                "path": str(path),
                "sha256": file.sha256,
                "size_bytes": len(file.content),
                "p50_ms": float(median),
                "ratio": ratio,
                "ratio_low": low,
                "ratio_high": high,
            }
        )
    return SpeedComparison.from_dict(
        {
            "files": files,
            "target": target.describe(),
            "target_settings": request["target"],
            "confidence": timing.confidence,
            "processes": len(found),
            "rounds": sum(one["rounds"] for one in found),
            "converged": widest <= timing.precision,
            "load_average": load,
            "host": fingerprint().to_dict(),
        }
    )


def ratio_intervals(several, confidence):
    """Returns `(ratio, low, high)` of each file from the ratios of the processes.

    Args:
        several: Array (processes, files) of ratios, at least two processes.
        confidence: Level of the intervals.
    """
    logarithms = np.log(np.asarray(several, dtype=np.float64))
    count = len(logarithms)
    half = student_quantile(confidence, count - 1) * logarithms.std(axis=0, ddof=1) / math.sqrt(count)
    middle = logarithms.mean(axis=0)
    return [tuple(map(float, np.exp([m, m - h, m + h]))) for m, h in zip(middle, half, strict=True)]


def time_files(request):
    """Opens the files of a request and times them by turns, in this process.

    Returns:
        Dict of `p50_ms` and `ratios` (to the first file) of each file, and `rounds`.
    """
    timing, shapes, draw = Timing(**request["timing"]), request["shapes"] or {}, random.Random(request["seed"])
    order, runs = list(range(len(request["paths"]))), {}
    draw.shuffle(order)
    for i in order:
        declared = declared_inputs(read_file(request["paths"][i]).content)
        own = {name: shape for name, shape in shapes.items() if name in declared}
        require_fixed(declared, own)
        model = open_to_time(request["target"], request["paths"][i], own or None, timing.cores)
        runs[i] = whole_run(model, sample_inputs(model.inputs, 0))
    for run in runs.values():
        end, count = time.perf_counter() + timing.warmup_seconds, 0
        while count < max(timing.warmup_runs, 1) or time.perf_counter() < end:
            run()
            count += 1
    times = time_by_turns([runs[i] for i in sorted(runs)], request["seconds"], 1, draw)
    ratios = np.median(times / times[:, :1], axis=0)
    return {"p50_ms": (np.median(times, axis=0) / 1e6).tolist(), "ratios": ratios.tolist(), "rounds": len(times)}


def main(result_fd):
    """Writes `{"record": ...}` of the request on standard input, or `{"error": "..."}`."""
    request = json.loads(sys.stdin.buffer.readline())
    bootstrap.end_with_input()
    try:
        answer = {"record": time_files(request)}
    except TfdistillError as error:
        answer = {"error": str(error)}
    with os.fdopen(result_fd, "w", encoding="utf-8") as result:
        result.write(json.dumps(answer) + "\n")
