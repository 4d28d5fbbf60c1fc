"""OpenVINO, a reader by others, computes from our files what LiteRT does."""

import pathlib
import subprocess

import environments
import flatbuffers
import keras
import numpy as np
import pytest
from reader_models import IMAGES, SERIES, attention, images, recurrent

import tfdistill
from tfdistill.convert.finish import finish
from tfdistill.runtime.interpreter import open_file
from tfdistill.runtime.schema import schema
from tfdistill.tflite import Tolerances

pytestmark = pytest.mark.slow
OPENVINO = "openvino==2026.3.1"
# Model, variant, type of inputs and outputs.
FILES = [
    *((images, variant, "auto") for variant in ("float32", "float16", "dynamic_range", "int16x8")),
    *((images, "int8", io) for io in ("int8", "uint8", "float32")),
    *((attention, variant, "auto") for variant in ("float32", "int8")),
    (recurrent, "int8", "auto"),
]


def run(paths):
    """Runs files with OpenVINO; returns what it says of those that it does not read."""
    job = pathlib.Path(__file__).with_name("openvino_job.py")
    command = [environments.python_with(OPENVINO), "-I", job, *paths]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_outputs_are_those_of_litert(tmp_path):
    files = {}
    for make, variant, io in FILES:
        keras.utils.set_random_seed(1)
        model, x = make(), IMAGES if make is images else SERIES
        path = tmp_path / f"{make.__name__}_{variant}_{io}.tflite"
        tfdistill.export_tflite(model, path, variant, calibration=x, io=io, tolerances=Tolerances())
        file = open_file(path, trusted=True)
        (entry,), (output,) = file.inputs.values(), file.outputs.values()
        np.save(path.with_suffix(".npy"), entry.quantize(x[:20]))
        (expected,) = file.run(x[:20]).values()
        files[path] = output, expected
    assert run(files) == ""
    for path, (output, expected) in files.items():
        found = output.dequantize(np.load(path.with_suffix(".openvino.npy")))
        # Integers are rounded in another place: one step, that of the output or of one of 8 bits before it.
        limit = output.scale or (float(np.ptp(expected)) / 128 if "int8" in path.stem or "dynamic" in path.stem else 1e-6)
        assert np.abs(found - expected).max() <= limit * 1.001, path.stem
        assert (found.argmax(-1) == expected.argmax(-1)).mean() >= 0.95, path.stem


def test_the_last_edit_fills_what_other_programs_leave_out(tmp_path):
    """Files of litert-quantizer have the number of an operation in the newer field alone, which OpenVINO does not read."""
    path = tmp_path / "whole.tflite"
    tfdistill.export_tflite(images(), path, "float32")
    np.save(path.with_suffix(".npy"), IMAGES[:1])
    classes = schema()
    model = classes.ModelT.InitFromObj(classes.Model.GetRootAs(path.read_bytes(), 0))
    for code in model.operatorCodes:
        code.deprecatedBuiltinCode = 0
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    lacking, mended = tmp_path / "lacking.tflite", tmp_path / "mended.tflite"
    lacking.write_bytes(bytes(builder.Output()))
    mended.write_bytes(finish(lacking.read_bytes()))
    for each in (lacking, mended):
        np.save(each.with_suffix(".npy"), IMAGES[:1])
    said = run([path, lacking, mended])
    assert said.startswith("lacking is not read:"), said
    assert said.count("\n") == 1
    expected, found = (np.load(each.with_suffix(".openvino.npy")) for each in (path, mended))
    np.testing.assert_array_equal(found, expected)
