"""The process that measures: reads its order as a line of JSON from standard input, writes what it found to standard output.

Imports NumPy and the interpreter only. Run by `tfdistill.benchmarking.isolation`.
"""

import hashlib
import json
import os
import pathlib
import signal
import sys

import numpy as np

from tfdistill.benchmarking import memory
from tfdistill.benchmarking.record import BenchmarkRecord
from tfdistill.benchmarking.targets.base import from_spec
from tfdistill.benchmarking.timing import Timing, measure
from tfdistill.errors import ConfigurationError, TfdistillError
from tfdistill.host import HostFingerprint
from tfdistill.runtime import bootstrap
from tfdistill.runtime.interpreter import engine_name, interpreter_class, open_file
from tfdistill.runtime.tensors import sample_inputs

# The activations' memory is measured after the timing, by kernels that may be slow, or may not have the file's operations at all.
_ARENA_SECONDS = 60


def measure_file(order):
    """Measures one file.

    Args:
        order: Dict of `path`, `target` (see `targets.to_spec`), `timing` (fields of `Timing`), `variant`, `shapes` (input name -> shape, or None) and
            `host` (fields of the `HostFingerprint`).

    Returns:
        A `BenchmarkRecord` without the memory of the activations.
    """
    path, target, timing = pathlib.Path(order["path"]), from_spec(order["target"]), Timing(**order["timing"])
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    content = path.read_bytes()  # also brings the file into the page cache
    digest, size = hashlib.sha256(content).hexdigest(), len(content)
    del content
    interpreter_class(target.engine or engine_name())  # before the baseline, so that the import is in it
    memory.reset_peak()
    baseline = memory.resident_bytes()
    model = target.open(path, order.get("shapes"))
    require_fixed(model, order.get("shapes") or {})
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
        input_shapes={name: info.shape for name, info in model.inputs.items()},
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
        arena_bytes=None,
        baseline_rss_bytes=baseline,
        peak_rss_bytes=peak,
        load_average=load,
        host=HostFingerprint.from_dict(order["host"]),
    )


def require_fixed(model, shapes):
    """Refuses a file that has axes of any size, but for the batch, which is then the file's own.

    Args:
        model: The opened `TFLiteModel`.
        shapes: Dict of the shapes that were asked for.

    Raises:
        ConfigurationError: naming every input without a fixed size.
    """
    free = {
        name: info.signature
        for name, info in model.inputs.items()
        if name not in shapes and info.signature is not None and None in info.signature[1:]
    }
    if free:
        example = {name: tuple(32 if size is None else size for size in (1, *shape[1:])) for name, shape in free.items()}
        raise ConfigurationError(
            f"These inputs have no fixed size: {free}.",
            "the shapes to measure, as time and memory depend on them",
            f"benchmark(path, shapes={example})",
        )


def random_inputs(model, seed=0):
    """Makes one batch for every input: see `tfdistill.runtime.tensors.sample_inputs`."""
    return sample_inputs(model.inputs, seed)


def measured_arena(order, engine):
    """Measures the memory of the activations, in bytes, with the plain kernels; None where they cannot run the file."""
    try:
        plain = open_file(order["path"], xnnpack=False, engine=engine, shapes=order.get("shapes"), trusted=True)
        if not hasattr(plain.interpreter, "_get_ops_details"):
            return None  # old runtimes cannot list their operations
        plain.set_inputs(random_inputs(plain))
        plain.invoke()
        return memory.arena_bytes(plain)
    except TfdistillError:
        return None


def main(answers):
    """Measures what standard input orders.

    Writes `{"record": ...}` as soon as the times are known, and once more with the activations' memory, which a file's operations may crash on; or
    `{"error": "..."}` for an error of this library.

    Args:
        answers: Descriptor to write to.
    """
    order = json.loads(sys.stdin.buffer.readline())
    bootstrap.end_with_input()
    try:
        record = measure_file(order)
    except TfdistillError as error:
        _answer(answers, {"error": str(error)})
        return
    _answer(answers, {"record": record.to_dict()})
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, _ARENA_SECONDS)
    _answer(answers, {"record": {**record.to_dict(), "arena_bytes": measured_arena(order, record.engine)}})


def _answer(descriptor, answer):
    data = memoryview(json.dumps(answer).encode() + b"\n")
    while data:
        data = data[os.write(descriptor, data) :]
