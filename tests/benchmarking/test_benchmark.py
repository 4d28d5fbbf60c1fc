"""Benchmarks of real files in a real child process, and what becomes of children that die."""

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest

import tfdistill
from tfdistill.benchmarking import BenchmarkRecord, Cpu, Timing
from tfdistill.benchmarking.isolation import run_child
from tfdistill.benchmarking.memory import arena_bytes, peak_bytes, reset_peak, resident_bytes
from tfdistill.benchmarking.process_memory import _regions
from tfdistill.benchmarking.targets.base import KINDS, from_spec, to_spec
from tfdistill.benchmarking.worker import random_inputs
from tfdistill.errors import BenchmarkError, ConfigurationError
from tfdistill.host import HostFingerprint, fingerprint
from tfdistill.runtime.interpreter import open_file
from tfdistill.tflite import export_tflite
from tfdistill.utils import deprecation

QUICK = Timing(warmup_seconds=0, min_seconds=0, max_seconds=0.5, processes=1)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder, data = tmp_path_factory.mktemp("benchmark"), np.random.default_rng(0).random((32, 16, 16, 1), dtype="float32")
    layers = keras.layers
    model = keras.Sequential([keras.Input((16, 16, 1)), layers.Conv2D(8, 3), layers.Conv2D(8, 3), layers.Flatten(), layers.Dense(10)])
    return {variant: export_tflite(model, folder / f"{variant}.tflite", variant, calibration=data) for variant in ("float32", "int8")}


@pytest.mark.parametrize(
    ("variant", "target"), [("float32", None), ("int8", Cpu(threads=2)), ("int8", Cpu(kernels="builtin", engine="ai_edge_litert"))]
)
def test_record(variant, target, files, tmp_path):
    exported = files[variant]
    record = tfdistill.benchmark(exported.path, target, timing=QUICK, variant=variant)
    assert 0 < record.min_ms <= record.p50_ms <= record.p90_ms <= record.p99_ms
    assert record.p50_low_ms <= record.p50_ms <= record.p50_high_ms
    assert (record.sha256, record.size_bytes) == (exported.sha256, exported.size_bytes)
    assert record.runs >= 100 or not record.converged
    assert record.init_ms > 0
    assert 0 < record.baseline_rss_bytes <= record.peak_rss_bytes < 1_000_000_000
    assert record.target_settings == to_spec(target or Cpu())
    assert record.host == fingerprint()
    assert BenchmarkRecord.load(record.save(tmp_path / "record.json")) == record
    assert set(record.summary()) >= {"p50_ms", "p90_ms", "p99_ms", "size_bytes", "target", "converged"}
    # Both activations of a convolution live at once; all activations together do not have to.
    activations = [16 * 16, 14 * 14 * 8, 12 * 12 * 8, 10]
    width = 4 if variant == "float32" else 1
    assert width * (activations[1] + activations[2]) <= record.arena_bytes


@pytest.mark.parametrize("variant", ["int8", "float32"])
def test_a_record_says_whether_xnnpack_could_use_amx(variant, files):
    """The remark is on integers only: XNNPACK has no such kernels for float32."""
    record = tfdistill.benchmark(files[variant].path, Cpu(amx=False), timing=QUICK)
    assert record.amx is False
    assert "without AMX" in record.target
    assert not any("AMX" in remark for remark in record.remarks)
    there = dataclasses.replace(record, amx=True)
    assert any("Cpu(amx=False) measures without" in remark for remark in there.remarks) is (variant == "int8")
    builtin = tfdistill.benchmark(files[variant].path, Cpu(kernels="builtin"), timing=QUICK)
    assert builtin.amx is False


def test_arena_is_the_span_of_what_is_not_constant(files):
    opened = open_file(files["float32"].path, xnnpack=False)
    opened.set_inputs(random_inputs(opened))
    opened.invoke()
    assert arena_bytes(opened) < 100_000  # constants of the file, far away in memory, would make it gigabytes


@pytest.mark.parametrize(
    ("spans", "regions"),
    [
        ([], []),
        ([(0, 10), (10, 20)], [[0, 20]]),
        ([(0, 10), (15, 20)], [[0, 20]]),
        ([(0, 10), (1000, 1010), (4, 8)], [[0, 10], [1000, 1010]]),
    ],
)
def test_regions(spans, regions):
    assert _regions(spans) == regions


def test_peak_memory_sees_what_was_freed():
    reset_peak()
    before = resident_bytes()
    block = np.ones(40_000_000, dtype="uint8")
    del block
    assert peak_bytes() - before > 30_000_000


def test_child_imports_neither_tensorflow_nor_keras():
    code = "import sys, tfdistill.benchmarking.worker; print(sorted({m.partition('.')[0] for m in sys.modules}))"
    root = str(pathlib.Path(tfdistill.__file__).parents[1])
    imported = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, text=True, env={**os.environ, "PYTHONPATH": root}
    ).stdout
    assert not {"tensorflow", "keras", "tf_keras", "rich"} & set(eval(imported))
    assert "numpy" in imported


def test_the_function_and_its_room_are_two_names():
    from tfdistill import benchmarking

    assert tfdistill.benchmark is benchmarking.benchmark
    with pytest.raises(AttributeError, match="no attribute 'Gpux'"):
        _ = benchmarking.Gpux


def test_random_inputs_fit_every_type(files):
    for record in files.values():
        opened = open_file(record.path)
        for name, array in random_inputs(opened).items():
            assert (array.shape, array.dtype.name) == (opened.inputs[name].shape, opened.inputs[name].dtype)
            assert array.std() > 0


@pytest.mark.parametrize("target", [Cpu(), Cpu(threads=3, kernels="reference", engine="tensorflow")])
def test_targets_survive_json(target):
    assert from_spec(json.loads(json.dumps(to_spec(target)))) == target
    assert target.describe().startswith("CPU, ")
    assert all(kind.kind == name for name, kind in KINDS.items())


@pytest.mark.parametrize("size", [0, 100, 1500])
def test_damaged_file_is_an_error_here(size, files, tmp_path):
    path = tmp_path / "cut.tflite"
    path.write_bytes(pathlib.Path(files["float32"].path).read_bytes()[:size])
    with pytest.raises(BenchmarkError, match=r"cannot open '.*cut\.tflite'"):
        tfdistill.benchmark(path, timing=QUICK)


REFUSED = [
    ({"path": "none.tflite"}, "There is no file '.*none.tflite' to benchmark"),
    ({"target": "cpu"}, "target='cpu' is a str"),
    ({"timing": 3}, "timing=3 is a int"),
    ({"timeout_seconds": 0}, "timeout_seconds=0"),
]


@pytest.mark.parametrize(("arguments", "match"), REFUSED)
def test_refused(arguments, match, files):
    with pytest.raises(ConfigurationError, match=match):
        tfdistill.benchmark(**{"path": files["int8"].path, **arguments})


@pytest.mark.parametrize("arguments", [{"threads": 0}, {"threads": 1.5}, {"threads": True}, {"engine": "onnx"}])
def test_impossible_targets(arguments):
    with pytest.raises(ConfigurationError):
        Cpu(**arguments)


DYING = [
    (
        "import os, signal; print('last words', flush=True); os.kill(os.getpid(), signal.SIGKILL)",
        "was killed by SIGKILL.\nIt said:\nlast words",
    ),
    ("import os; os.abort()", "was killed by SIGABRT"),
    ("import ctypes; ctypes.string_at(0)", "was killed by SIGSEGV"),
    ("raise SystemExit(3)", "failed with exit code 3"),
    ("import nothing_of_that_name", "No module named 'nothing_of_that_name'"),
    ("pass", "ended without an answer"),
    ("import time; time.sleep(60)", "still busy after 1 s"),
]


@pytest.mark.parametrize(("code", "match"), DYING)
def test_child_that_dies(code, match, tmp_path):
    (tmp_path / "dying_child.py").write_text(f"def main(result_fd):\n    {code}\n")
    with pytest.raises(BenchmarkError, match=match):
        run_child({"large": "x" * 200_000}, timeout_seconds=1, module="dying_child", paths=[tmp_path])


def test_child_killed_from_outside(files):
    killer = "import os, signal, sys, threading; threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGKILL)).start()\n"
    request = {"path": files["int8"].path, "target": to_spec(Cpu()), "timing": {"min_seconds": 30, "max_seconds": 60}, "variant": None}
    module = pathlib.Path(files["int8"].path).with_name("doomed.py")
    module.write_text(killer + "from tfdistill.benchmarking.worker import main\n")
    with pytest.raises(BenchmarkError, match=signal.SIGKILL.name):
        run_child(request, timeout_seconds=60, module="doomed", paths=[module.parent])


def test_fingerprint():
    host = fingerprint()
    assert host.cpu_model
    assert 1 <= host.usable_cores <= host.cores
    assert host.memory_bytes > 100_000_000
    assert host.packages["numpy"] == np.__version__
    assert host.library_version == tfdistill.version.__version__
    assert HostFingerprint.from_dict(host.to_dict()) == host


def test_the_old_name_of_kernels_still_works(monkeypatch):
    monkeypatch.setattr(deprecation, "_warned", set())
    with pytest.warns(FutureWarning, match=r"`Cpu\(xnnpack=...\)` is now `Cpu\(kernels=...\)`"):
        assert Cpu(xnnpack=False) == Cpu(kernels="builtin")
    assert Cpu(1, True) == Cpu()  # as a position
    with pytest.raises(ConfigurationError, match="Nearest: 'builtin'"):
        Cpu(kernels="bultin")
