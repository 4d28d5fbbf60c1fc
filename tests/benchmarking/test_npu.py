"""The NPU target: OpenVINO's compiler in an environment of its own, on its CPU device as no NPU is here; and the silent fallback of LiteRT, refused."""

import functools
import json
import pathlib
import subprocess

import environments
import pytest
from target_files import QUICK, chain, convolutions

import tfdistill
from tfdistill.benchmarking import Npu
from tfdistill.errors import ConfigurationError, DelegationError
from tfdistill.runtime.compiled import VENDORS, CompiledFile
from tfdistill.runtime.said import listening

# OpenVINO in the version that LiteRT's compiler was made for, and what records need.
PACKAGES = ("openvino==2026.3.1", "ai-edge-litert==2.3.0", "numpy", "flatbuffers", "pydantic>=2.7", "rich>=13")
ON_CPU = {"vendor": "openvino", "device": "cpu"}


@functools.cache
def ran(*requests):
    """Returns what npu_job.py finds: a list of records as dicts, and of (class, text) of errors."""
    python = environments.python_with(*PACKAGES)
    job = pathlib.Path(__file__).with_name("npu_job.py")
    package = pathlib.Path(tfdistill.__file__).parent
    done = subprocess.run(
        [python, "-I", job, package, json.dumps([[str(path), dict(settings)] for path, settings in requests])],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def request(path, **settings):
    return str(path), tuple(settings.items())


@pytest.mark.slow
def test_files_that_the_compiler_takes_whole():
    found = ran(*(request(convolutions(variant), **ON_CPU) for variant in ("float32", "int8")))
    for record in found:
        assert isinstance(record, dict), record
        assert (record["status"], record["accelerator_proven"], record["partitions"], record["left_operations"]) == (
            "measured",
            True,
            1,
            {},
        )
        assert record["delegated_operations"] == record["operations"] > 5
        assert record["p50_ms"] > 0
        assert record["target"] == "CPU in place of an NPU, openvino"
    floats, integers = found
    assert floats["reference_max_abs_error"] < 5e-3  # OpenVINO computes in halves
    assert integers["reference_max_steps"] <= 1


@pytest.mark.slow
def test_operations_that_stay_on_the_cpu(tmp_path):
    path = chain(tmp_path / "m.tflite", "ADD", "FLOOR", "ADD", "ABS")
    refused, record = ran(request(path, **ON_CPU), request(path, **ON_CPU, allow_partial=True))
    kind, text = refused
    assert kind == "DelegationError"
    assert "does not run 1 of the 4 operations" in text
    assert "1 FLOOR float32" in text
    assert (record["delegated_operations"], record["partitions"], record["left_operations"]) == (3, 2, {"FLOOR float32": 1})
    assert record["accelerator_proven"]
    assert record["reference_max_abs_error"] < 2e-2


@pytest.mark.slow
def test_a_compiler_without_a_device(tmp_path):
    """OpenVINO takes all operations, and then has no NPU: LiteRT runs the file on its CPU and says nothing, though its model stays cut into parts."""
    path = chain(tmp_path / "m.tflite", "ADD", "FLOOR", "ADD")
    for kind, text in ran(
        *(request(convolutions("int8"), allow_partial=partial) for partial in (False, True)), request(path, allow_partial=True)
    ):
        assert kind == "DelegationError"
        assert "libopenvino_intel_npu" in text  # the loader's own words


@pytest.mark.slow
@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("partial", [False, True])
def test_a_silent_fallback_is_refused(vendor, partial, tmp_path):
    """Here no vendor's compiler is installed: LiteRT runs everything on the CPU."""
    path = chain(tmp_path / "m.tflite", "ADD", "ABS")
    with pytest.raises(DelegationError, match=r"does not run 2 of the 2 operations of .*: 1 ABS float32, 1 ADD float32") as caught:
        tfdistill.benchmark(path, Npu(vendor, allow_partial=partial), timing=QUICK)
    assert caught.value.fix is None
    words = {
        "openvino": "libopenvino",
        "qualcomm": "libQnnHtp.so",
        "mediatek": "NeuronAdapter",
        "samsung": "Samsung",
        "google_tensor": "compiler",
    }
    assert words[vendor] in str(caught.value)


@pytest.mark.slow
def test_litert_itself_says_nothing(tmp_path):
    """What the refusal is for: the model that is refused above runs, and its answers are right."""
    path = chain(tmp_path / "m.tflite", "ADD", "ABS")
    with listening():
        model = CompiledFile(path, "npu", {}, "openvino")
        model.set_inputs({name: info.quantize([[-1.0] * 64]) for name, info in model.inputs.items()})
        model.invoke()
    assert (model.read_outputs()["abs_1"] == 2.0).all()
    assert not model.is_proven()


@pytest.mark.parametrize(
    "settings", [{"vendor": "intel"}, {"device": "tpu"}, {"vendor": "qualcomm", "device": "cpu"}, {"allow_partial": None}, {"threads": 0}]
)
def test_impossible_settings(settings):
    with pytest.raises(ConfigurationError):
        Npu(**settings)
