"""The measuring process: reads a request as a line of JSON from standard input and writes the record to its result descriptor.

It imports only NumPy and the interpreter. `tfdistill.benchmarking.isolation` runs it.
"""

import dataclasses
import json
import os
import pathlib
import signal
import sys

from tfdistill.benchmarking import memory, pinning, truth
from tfdistill.benchmarking.record import BenchmarkRecord
from tfdistill.benchmarking.targets.base import from_spec
from tfdistill.benchmarking.targets.cpu import Cpu
from tfdistill.benchmarking.timing import Timing, latency_fields, packed, require_fixed, time_first, time_runs, whole_run
from tfdistill.benchmarking.untimed import measure_untimed
from tfdistill.errors import TfdistillError
from tfdistill.host import HostFingerprint
from tfdistill.runtime import bootstrap
from tfdistill.runtime.amx import has_amx
from tfdistill.runtime.delegated import operation_nodes
from tfdistill.runtime.file_inputs import declared_inputs
from tfdistill.runtime.interpreter import open_file, read_file
from tfdistill.runtime.tensors import sample_inputs
from tfdistill.runtime.work import work_of
from tfdistill.utils.machine import clock_mhz, temperature_c

# Time limit for what comes after the times: the outputs and the memory with the built-in kernels, which may be slow or lack operations of the file.
_AFTERWARDS_SECONDS = 60


def measure_file(request):
    """Measures one file.

    Args:
        request: Dict of `path`, `target` (see `targets.to_spec`), `timing` (fields of `Timing`), `variant`, `shapes` (input name -> shape,
            or None) and `host` (fields of the `HostFingerprint`).

    Returns:
        (`BenchmarkRecord` without the memory of the activations and the comparison with the CPU, `Timed` of this process, the `truth.Watched` model). The record's
        `processes` is how many are to share the runs.

    Raises:
        DelegationError: if the target leaves operations to the CPU that it has to run.
    """
    path, target, timing = pathlib.Path(request["path"]), from_spec(request["target"]), Timing(**request["timing"])
    pinning.pin(timing.cores)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    file = read_file(path)  # also brings the file into the page cache
    digest, size = file.sha256, len(file.content)
    require_fixed(declared_inputs(file.content), request.get("shapes") or {})
    del file
    target.import_runtime()  # before the baseline, so that the import is in it
    memory.reset_peak()
    baseline = memory.resident_bytes()
    model = target.open(path, request.get("shapes"))
    if request.get("batch"):
        model = target.open(path, with_batch(model, request["batch"]))
    model = truth.Watched(model)
    delegated = truth.delegation_fields(target, truth.require_delegated(target, model))
    inputs = random_inputs(model)

    # A file that takes long to open is measured in this process alone.
    alone = timing.processes == 1 or model.init_seconds > timing.max_seconds / timing.processes
    clock, warmth = clock_mhz(timing.cores), temperature_c()
    run = whole_run(model, inputs)
    _, first_seconds = time_first(run)
    timed = dataclasses.replace(time_runs(run, timing if alone else timing.share()), first_seconds=first_seconds)
    batch = next((shape[0] for shape in (info.shape for info in model.inputs.values()) if shape), 1)
    peak = memory.peak_bytes()
    work = work_of(model.interpreter) if hasattr(model, "interpreter") else None
    record = BenchmarkRecord(
        path=str(path),
        variant=request["variant"],
        sha256=digest,
        size_bytes=size,
        target=target.describe(),
        target_settings=request["target"],
        engine=model.engine,
        input_shapes={name: info.shape for name, info in model.inputs.items()},
        init_ms=model.init_seconds * 1e3,
        arena_bytes=None,
        baseline_rss_bytes=baseline,
        peak_rss_bytes=peak,
        load_average=load,
        host=HostFingerprint.from_dict(request["host"]),
        clock_mhz_before=clock,
        clock_mhz_after=clock_mhz(timing.cores),
        temperature_c_before=warmth,
        temperature_c_after=temperature_c(),
        pinned_cores=timing.cores,
        amx=target.amx and target.kernels == "xnnpack" and has_amx() if isinstance(target, Cpu) else None,
        batch=batch,
        **delegated,
        **(dataclasses.asdict(work) if work else {}),
        **{**latency_fields([timed], timing, batch), "processes": 1 if alone else timing.processes},
    )
    return record, timed, model


def with_batch(model, batch):
    """Returns the shapes of an opened model's inputs with another batch size, as `target.open` takes them."""
    return {name: [batch, *info.shape[1:]] for name, info in model.inputs.items() if info.shape}


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
        if target.is_timed:
            record, timed, model = measure_file(request)
            times = {"times": packed(timed)}
        else:
            (record, model), times = measure_untimed(request), {}
        _write(result_fd, {"record": {**record.to_dict(), **times}})
        if request.get("batch"):
            request["shapes"] = record.to_dict()["input_shapes"]
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, _AFTERWARDS_SECONDS)
        record = dataclasses.replace(record, **truth.compared(request, target, model))
    except TfdistillError as error:
        _write(result_fd, {"error": str(error), "kind": type(error).__name__, "parts": [error.happened, error.expected, error.fix]})
        return
    _write(result_fd, {"record": {**record.to_dict(), **times}})
    if record.arena_bytes is None:
        _write(result_fd, {"record": {**record.to_dict(), **times, "arena_bytes": measure_arena(request, target)}})


def _write(descriptor, result):
    data = memoryview(json.dumps(result).encode() + b"\n")
    while data:
        data = data[os.write(descriptor, data) :]
