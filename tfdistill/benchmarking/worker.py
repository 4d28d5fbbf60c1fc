"""The measuring process: reads a request as a line of JSON from standard input and writes the record to its result descriptor.

It imports only NumPy and the interpreter. `tfdistill.benchmarking.isolation` runs it.
"""

import dataclasses
import json
import os
import pathlib
import signal
import sys

import numpy as np

from tfdistill.benchmarking import memory, truth
from tfdistill.benchmarking.record import BenchmarkRecord
from tfdistill.benchmarking.targets.base import from_spec
from tfdistill.benchmarking.timing import Timing, measure
from tfdistill.benchmarking.untimed import measure_untimed
from tfdistill.errors import ConfigurationError, TfdistillError, nearest
from tfdistill.host import HostFingerprint
from tfdistill.runtime import bootstrap
from tfdistill.runtime.delegated import operation_nodes
from tfdistill.runtime.file_inputs import declared_inputs
from tfdistill.runtime.interpreter import open_file, read_file
from tfdistill.runtime.tensors import sample_inputs

# Time limit for what comes after the times: the outputs and the memory with the built-in kernels, which may be slow or lack operations of the file.
_AFTERWARDS_SECONDS = 60


def measure_file(request):
    """Measures one file.

    Args:
        request: Dict of `path`, `target` (see `targets.to_spec`), `timing` (fields of `Timing`), `variant`, `shapes` (input name -> shape,
            or None) and `host` (fields of the `HostFingerprint`).

    Returns:
        (`BenchmarkRecord` without the memory of the activations and the comparison with the CPU, the `truth.Watched` model).

    Raises:
        DelegationError: if the target leaves operations to the CPU that it has to run.
    """
    path, target, timing = pathlib.Path(request["path"]), from_spec(request["target"]), Timing(**request["timing"])
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    file = read_file(path)  # also brings the file into the page cache
    digest, size = file.sha256, len(file.content)
    require_fixed(declared_inputs(file.content), request.get("shapes") or {})
    del file
    target.import_runtime()  # before the baseline, so that the import is in it
    memory.reset_peak()
    baseline = memory.resident_bytes()
    model = truth.Watched(target.open(path, request.get("shapes")))
    delegated = truth.delegation_fields(target, truth.require_delegated(target, model))
    run = model.runner(random_inputs(model))
    timed = measure(run, timing)
    peak = memory.peak_bytes()
    p50, p90, p99 = (float(np.percentile(timed.seconds, p)) * 1e3 for p in (50, 90, 99))
    low, high = (None, None) if timed.interval is None else (end * 1e3 for end in timed.interval)
    record = BenchmarkRecord(
        path=str(path),
        variant=request["variant"],
        sha256=digest,
        size_bytes=size,
        target=target.describe(),
        target_settings=request["target"],
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
        host=HostFingerprint.from_dict(request["host"]),
        **delegated,
    )
    return record, model


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


def random_inputs(model, seed=0):
    """Makes one random batch for every input; see `tfdistill.runtime.tensors.sample_inputs`."""
    return sample_inputs(model.inputs, seed)


def measure_arena(request, target):
    """Measures the memory of the activations, in bytes, with the built-in kernels; None if they cannot run the file."""
    try:
        engine = getattr(target, "engine", None)
        plain = open_file(request["path"], kernels="builtin", engine=engine, shapes=request.get("shapes"), trusted=True)
        if operation_nodes(plain.interpreter) is None:
            return None  # old runtimes cannot list their operations
        plain.set_inputs(random_inputs(plain))
        plain.invoke()
        return memory.arena_bytes(plain)
    except TfdistillError:
        return None


def main(result_fd):
    """Measures the file of the request.

    Writes `{"record": ...}` as soon as the times are known, and again with the comparison with the CPU, and with the memory of the activations, of which each may
    crash; or `{"error": "...", "kind": ..., "parts": ...}` for a `TfdistillError`.

    Args:
        result_fd: Descriptor to write to.
    """
    request = json.loads(sys.stdin.buffer.readline())
    bootstrap.end_with_input()
    target = from_spec(request["target"])
    try:
        record, model = measure_file(request) if target.is_timed else measure_untimed(request)
        _write(result_fd, {"record": record.to_dict()})
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, _AFTERWARDS_SECONDS)
        record = dataclasses.replace(record, **truth.compared(request, target, model))
    except TfdistillError as error:
        _write(result_fd, {"error": str(error), "kind": type(error).__name__, "parts": [error.happened, error.expected, error.fix]})
        return
    _write(result_fd, {"record": record.to_dict()})
    if record.arena_bytes is None:
        _write(result_fd, {"record": {**record.to_dict(), "arena_bytes": measure_arena(request, target)}})


def _write(descriptor, result):
    data = memoryview(json.dumps(result).encode() + b"\n")
    while data:
        data = data[os.write(descriptor, data) :]
