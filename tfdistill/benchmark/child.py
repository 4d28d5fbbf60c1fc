"""The process that measures: reads its order as JSON from standard input, writes what it found to the file named by its argument.

Imports NumPy and the interpreter only. Run by `tfdistill.benchmark.isolate`.
"""

import hashlib
import importlib
import json
import os
import pathlib
import sys

import numpy as np

from tfdistill.benchmark import memory
from tfdistill.benchmark.record import BenchmarkRecord
from tfdistill.benchmark.targets import from_spec
from tfdistill.benchmark.timing import Timing, measure
from tfdistill.errors import TfdistillError
from tfdistill.host import fingerprint
from tfdistill.runtime.interpreter import ENGINES, engine_name, open_file


def measure_file(order):
    """Measures one file.

    Args:
        order: Dict of `path`, `target` (see `targets.to_spec`), `timing` (fields of `Timing`) and `variant`.

    Returns:
        A `BenchmarkRecord`.
    """
    path, target, timing = pathlib.Path(order["path"]), from_spec(order["target"]), Timing(**order["timing"])
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    content = path.read_bytes()  # also brings the file into the page cache
    digest, size = hashlib.sha256(content).hexdigest(), len(content)
    del content
    importlib.import_module(ENGINES[target.engine or engine_name()][0])
    memory.reset_peak()
    baseline = memory.resident_bytes()
    model = target.open(path)
    inputs = random_inputs(model)

    def run():
        model.set_inputs(inputs)
        model.invoke()
        model.read_outputs()  # until the output is in host memory nothing proves that the work is done

    timed = measure(run, timing)
    peak = memory.peak_bytes()
    p50, p90, p99 = (float(np.percentile(timed.seconds, p)) * 1e3 for p in (50, 90, 99))
    low, high = (None, None) if timed.interval is None else (end * 1e3 for end in timed.interval)
    return BenchmarkRecord(
        path=str(path),
        variant=order["variant"],
        sha256=digest,
        size_bytes=size,
        target=target.describe(),
        target_settings=order["target"],
        engine=model.engine,
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99,
        mean_ms=float(timed.seconds.mean()) * 1e3,
        min_ms=float(timed.seconds.min()) * 1e3,
        p50_low_ms=low,
        p50_high_ms=high,
        confidence=timing.confidence,
        runs=len(timed.seconds),
        warmup_runs=timed.warmup_runs,
        converged=timed.converged,
        init_ms=model.init_seconds * 1e3,
        arena_bytes=_arena(path, model.engine),
        baseline_rss_bytes=baseline,
        peak_rss_bytes=peak,
        load_average=load,
        host=fingerprint(),
    )


def random_inputs(model, seed=0):
    """Makes one batch for every input: floats in [0, 1), quantized integers of their whole range, zeros for other types (valid indices)."""
    generator = np.random.default_rng(seed)
    made = {}
    for name, info in model.inputs.items():
        dtype = np.dtype(info.dtype)
        if dtype.kind == "f":
            made[name] = generator.random(info.shape).astype(dtype)
        elif info.scale is not None:
            limits = np.iinfo(dtype)
            made[name] = generator.integers(limits.min, limits.max, info.shape, dtype=dtype, endpoint=True)
        else:
            made[name] = np.zeros(info.shape, dtype)
    return made


def _arena(path, engine):
    plain = open_file(path, threads=1, xnnpack=False, engine=engine)
    if not hasattr(plain.interpreter, "_get_ops_details"):
        return None  # old runtimes cannot list their operations
    plain.set_inputs(random_inputs(plain))
    plain.invoke()
    return memory.arena_bytes(plain)


def main(answer_path):
    """Measures what standard input orders.

    Args:
        answer_path: File that the answer is written to as JSON: `{"record": ...}`, or `{"error": "..."}` for an error of this library.
    """
    try:
        answer = {"record": measure_file(json.load(sys.stdin)).to_dict()}
    except TfdistillError as error:
        answer = {"error": str(error)}
    pathlib.Path(answer_path).write_text(json.dumps(answer), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
