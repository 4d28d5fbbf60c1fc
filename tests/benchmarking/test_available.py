"""Which targets can be used here: each is tried, and the others give the loader's own reason."""

import json

import pytest
from target_files import no_gpu, software_gpu
from typer.testing import CliRunner

from tfdistill.benchmarking import TargetRecord, available, available_targets
from tfdistill.benchmarking.targets.base import Cpu, Delegate, Gpu, Micro
from tfdistill.cli.app import app
from tfdistill.errors import ConfigurationError

# How it is written -> whether it can be used in the environment of the tests, and what its line says.
HERE = {
    "Cpu()": (True, "ai_edge_litert"),
    "Cpu(engine='tensorflow')": (True, "tensorflow"),
    "Gpu()": (False, "No adapters found"),
    "Npu('openvino')": (False, "libopenvino"),
    "Npu('qualcomm')": (False, "libQnnHtp.so"),
    "Micro()": (True, "tflite_micro"),
    "Delegate('libedgetpu.so.1')": (False, "libedgetpu.so.1: cannot open shared object file"),
}


@pytest.mark.slow
def test_what_is_here(monkeypatch, tmp_path):
    no_gpu(monkeypatch, tmp_path)
    records = {record.target: record for record in available_targets()}
    for target, (usable, words) in HERE.items():
        record = records[target]
        assert record.usable == usable
        assert words in (record.found if usable else record.reason)
        assert (record.found is None) != (record.reason is None)
        assert TargetRecord.load(record.save(tmp_path / "record.json")) == record


@pytest.mark.slow
def test_a_driver_makes_the_gpu_usable(monkeypatch, tmp_path):
    software_gpu(monkeypatch, tmp_path)
    assert available._tried(Gpu(), tmp_path)[0]


# Target -> what is said of it; only those whose trial takes no time.
TRIED = {
    "an interpreter": (Cpu(), True, "ai_edge_litert"),
    "an interpreter that is missing": (Cpu(engine="tflite_runtime"), False, "No module named 'tflite_runtime'"),
    "tflite-micro": (Micro(), True, "tflite_micro"),
    "an arena that is too small": (Micro(100), False, "Failed to allocate"),
    "a library that is missing": (Delegate("libnone.so"), False, "cannot open shared object file"),
}


@pytest.mark.parametrize("case", TRIED)
def test_tried(case, tmp_path):
    target, usable, words = TRIED[case]
    found, text = available._tried(target, tmp_path)
    assert (found, words in text) == (usable, True), text


def test_one_kind_alone():
    assert [record.target for record in available_targets(["micro"])] == ["Micro()"]
    with pytest.raises(ConfigurationError, match="Nearest: 'micro'"):
        available_targets(["mirco"])


RECORDS = (TargetRecord("CPU", "Cpu()", True, "ai_edge_litert 2.3.0", None), TargetRecord("GPU", "Gpu()", False, None, "[x] no\nadapter"))


def test_the_command_shows_them(monkeypatch):
    monkeypatch.setattr(available, "available_targets", lambda: RECORDS)
    shown = CliRunner().invoke(app, ["targets"]).output
    for words in ("Cpu()", "ai_edge_litert 2.3.0", "Gpu()", "[x] no", "adapter"):
        assert words in shown
    read = json.loads(CliRunner().invoke(app, ["targets", "--json"]).output)
    assert tuple(TargetRecord.from_dict(one) for one in read) == RECORDS
