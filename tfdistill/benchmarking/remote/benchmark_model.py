"""Reads what LiteRT's program `benchmark_model` prints (tensorflow/lite/tools/benchmark)."""

import math
import re

from tfdistill.errors import BenchmarkError

# Statistics of the untimed and then the timed runs, in microseconds: `count=50 first=292 curr=200 min=197 max=292 avg=200.5 std=3 p5=198 median=200 p95=205`, or
# `count=50 curr=200(all same) p5=200 median=200 p95=200`.
_STATISTICS = re.compile(r"\bcount=(?P<count>\d+)\s+(?P<rest>.*)")
_NUMBER = re.compile(r"\b(\w+)=([-+0-9.eE]+)")
_INIT = re.compile(r"Inference timings in us: Init: ([0-9.eE+]+), First inference: ([0-9.eE+]+)")
_DELTA = re.compile(r"Memory footprint delta from the start of the tool \(MB\): init=[-0-9.eE+]+ overall=([-0-9.eE+]+)")
_PEAK = re.compile(r"Overall peak memory footprint \(MB\) via periodic monitoring: ([0-9.eE+]+)")
_DELEGATED = re.compile(r"Replacing (\d+) out of (\d+) node\(s\) with delegate")
_PARTITIONS = re.compile(r"will be (partially|completely) executed by the delegate(?: w/ (\d+) delegate kernels)?")


def arguments(folder, threads, xnnpack, timing, shapes):
    """Returns the command line as a list, the program first.

    Args:
        folder: Folder on the device with `benchmark_model` and `model.tflite`.
        threads: CPU threads.
        xnnpack: Whether XNNPACK runs what it supports.
        timing: Dict of the fields of `Timing`.
        shapes: Dict of input name -> full shape, or None.
    """
    command = [
        f"{folder}/benchmark_model",
        f"--graph={folder}/model.tflite",
        f"--num_threads={threads}",
        f"--use_xnnpack={'true' if xnnpack else 'false'}",
        f"--warmup_runs={max(timing['warmup_runs'], 1)}",  # without a warm-up it prints one line of statistics only
        f"--warmup_min_secs={timing['warmup_seconds']:g}",
        f"--num_runs={timing['min_runs']}",
        f"--min_secs={timing['min_seconds']:g}",
        f"--max_secs={timing['max_seconds']:g}",
        "--report_peak_memory_footprint=true",
    ]
    if shapes:
        command.append("--input_layer=" + ",".join(shapes))
        command.append("--input_layer_shape=" + ":".join(",".join(map(str, shape)) for shape in shapes.values()))
    return command


def parsed(text):
    """Reads the output of a run.

    Args:
        text: What it printed.

    Returns:
        Dict of fields of a record.

    Raises:
        BenchmarkError: if there are no statistics in it, or no median.
    """
    lines = [_numbers(found) for found in map(_STATISTICS.search, text.splitlines()) if found]
    init = _INIT.search(text)
    if not lines or init is None:
        raise BenchmarkError(f"benchmark_model printed no statistics.\nIt said:\n{_end(text)}", "its line `Inference timings in us`")
    timed = lines[-1]
    if "median" not in timed:
        raise BenchmarkError(
            f"This benchmark_model prints no median.\nIt said:\n{_end(text)}",
            "a build that prints `median=`",
            "give a newer build of it as benchmark_model=",
        )
    delegated = _DELEGATED.findall(text)
    peak, delta, partitions = _PEAK.search(text), _DELTA.search(text), _PARTITIONS.search(text)
    peak_bytes = round(float(peak[1]) * 2**20) if peak else None
    return {
        "p50_ms": timed["median"] / 1e3,
        "p95_ms": timed["p95"] / 1e3,
        "max_ms": timed["max"] / 1e3,
        "p90_ms": math.nan,
        "p99_ms": math.nan,
        "mean_ms": timed["avg"] / 1e3,
        "min_ms": timed["min"] / 1e3,
        "p50_low_ms": None,
        "p50_high_ms": None,
        "runs": int(timed["count"]),
        "warmup_runs": int(lines[0]["count"]) if len(lines) > 1 else 0,
        "converged": False,
        "init_ms": float(init[1]) / 1e3,
        "first_inference_ms": float(init[2]) / 1e3,
        "peak_rss_bytes": peak_bytes,
        "baseline_rss_bytes": peak_bytes - round(float(delta[1]) * 2**20) if peak and delta else None,
        "operations": int(delegated[-1][1]) if delegated else None,
        "delegated_operations": int(delegated[-1][0]) if delegated else None,
        "partitions": None if partitions is None else int(partitions[2] or 1),
    }


def _numbers(found):
    values = {name: float(value) for name, value in _NUMBER.findall(found["rest"])}
    if "avg" not in values:  # one run, or all took the same time
        values |= dict.fromkeys(("min", "max", "avg"), values["curr"])
    return {"count": int(found["count"]), **values}


def _end(text):
    return "\n".join(text.strip().splitlines()[-15:])
