"""What this machine adds to the record of another device, and the pauses between processes."""

import numpy as np
import pytest
from small_files import int8_file
from target_files import chain

import tfdistill
from tfdistill.benchmarking import Cpu, Ssh, Timing, again
from tfdistill.benchmarking.checked_here import checked_here
from tfdistill.benchmarking.targets.base import to_spec
from tfdistill.errors import BenchmarkError

INPUTS = {"a": np.ones((1, 64), "float32"), "b": np.full((1, 64), 2, "float32")}
SUM = np.full((1, 64), 3, "float32")


def asked(path, kernels="builtin"):
    return {"path": str(path), "target": to_spec(Ssh("pi@board", kernels=kernels)), "shapes": None}


def sent(**outputs):
    return {"given": INPUTS, "first": outputs, "last": outputs}


@pytest.mark.parametrize("kernels", ["xnnpack", "builtin"])
def test_outputs_of_a_device_are_compared_with_the_same_kernels_here(kernels, tmp_path):
    path = chain(tmp_path / "m.tflite", "ADD")
    found = checked_here(asked(path, kernels), sent(add_0=SUM + np.float32(0.5)))
    assert (found["reference_kernels"], found["reference_max_abs_error"]) == (kernels, 0.5)


@pytest.mark.parametrize("outputs", [{"add_0": SUM * np.nan}, {"other": SUM}, {"add_0": SUM[:, :3]}], ids=["NaN", "names", "shapes"])
def test_what_no_device_may_compute_is_an_error(outputs, tmp_path):
    with pytest.raises(BenchmarkError, match=r"NaN or infinite|outputs|shape"):
        checked_here(asked(chain(tmp_path / "m.tflite", "ADD")), sent(**outputs))


def test_the_work_is_counted_without_outputs():
    path = int8_file()
    here = tfdistill.benchmark(path, timing=Timing(warmup_seconds=0, min_seconds=0, max_seconds=0.01, processes=1))
    found = checked_here(asked(path), None)
    assert found == {"macs": here.macs, "moved_bytes": here.moved_bytes, "compute_type": here.compute_type}


def test_a_file_that_does_not_run_here_adds_nothing(tmp_path):
    path = tmp_path / "m.tflite"
    path.write_bytes(b"no file of TFLite")
    assert checked_here(asked(path), None) == {}


def test_pauses_come_before_each_further_process(monkeypatch):
    waited = []
    monkeypatch.setattr(again, "_pause", waited.append)
    timing = Timing(warmup_seconds=0, min_seconds=0, max_seconds=0.05, min_runs=6, processes=3, precision=0.99, pause_seconds=1.5)
    assert tfdistill.benchmark(int8_file(), Cpu(), timing=timing).processes == 3
    assert waited in ([1.5] * 2, [1.5] * 5), "on a busy machine the first interval may be too wide, and three longer processes follow"
