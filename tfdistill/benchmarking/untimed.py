"""Measures a file on a target whose times mean nothing: one run, its memory and its outputs."""

import os
import pathlib

from tfdistill.benchmarking import memory, truth
from tfdistill.benchmarking.record import BenchmarkRecord, untimed
from tfdistill.benchmarking.targets.base import from_spec
from tfdistill.host import HostFingerprint
from tfdistill.runtime.interpreter import read_file
from tfdistill.runtime.tensors import sample_inputs


def measure_untimed(request):
    """Runs one file once.

    Args:
        request: As `tfdistill.benchmarking.worker.measure_file` takes it.

    Returns:
        (`BenchmarkRecord` without times, the `truth.Watched` model).
    """
    path, target = pathlib.Path(request["path"]), from_spec(request["target"])
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    file = read_file(path)
    target.import_runtime()  # before the baseline, so that the import is in it
    memory.reset_peak()
    baseline = memory.resident_bytes()
    model = truth.Watched(target.open(path, request.get("shapes")))
    delegated = truth.delegation_fields(target, truth.require_delegated(target, model))
    model.runner(sample_inputs(model.inputs, 0))()
    sections = model.arena()
    record = BenchmarkRecord(
        **untimed(
            path=str(path),
            variant=request["variant"],
            sha256=file.sha256,
            size_bytes=len(file.content),
            target=target.describe(),
            target_settings=request["target"],
            engine=model.engine,
            input_shapes={name: info.shape for name, info in model.inputs.items()},
            init_ms=model.init_seconds * 1e3,
            arena_bytes=sections.pop("total", None),
            arena_sections=sections,
            operators=model.operators,
            baseline_rss_bytes=baseline,
            peak_rss_bytes=memory.peak_bytes(),
            load_average=load,
            host=HostFingerprint.from_dict(request["host"]),
            **delegated,
        )
    )
    return record, model
