"""OpenVINO, a reader by others, computes from our files what LiteRT does."""

import pathlib
import subprocess

import environments
import flatbuffers
import keras
import numpy as np
import pytest
import zoo_models
from ai_edge_litert.interpreter import Interpreter
from reader_models import IMAGES, SERIES, attention, images, recurrent
from test_roads import data_of

import tfdistill
from tfdistill.convert.finish import finish
from tfdistill.runtime.schema import schema
from tfdistill.runtime.tensors import TensorInfo
from tfdistill.tflite import Tolerances

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


def litert(path, x=None, rows=20):
    """Writes inputs beside a file: real values `x`, or random ones; returns (name of a tensor -> what LiteRT gives for them, name -> (scale, zero point))."""
    interpreter, rng = Interpreter(str(path)), np.random.default_rng(0)
    interpreter.allocate_tensors()
    given, found, steps = {}, {}, {}
    for entry in interpreter.get_input_details():
        shape, kind, (scale, zero) = (rows, *entry["shape"][1:]), entry["dtype"], entry["quantization"]
        least, most = {np.int8: (-128, 128), np.uint8: (0, 256)}.get(kind, (0, 7))
        values = rng.normal(size=shape) if kind is np.float32 else rng.integers(least, most, shape)
        if x is not None:
            values = TensorInfo("x", 0, shape, np.dtype(kind).name, scale or None, zero).quantize(x[:rows])
        given[entry["name"]] = values.astype(kind)
    np.savez(path.with_suffix(".npz"), **given)
    for row in range(rows):
        for entry in interpreter.get_input_details():
            interpreter.set_tensor(entry["index"], given[entry["name"]][row][None])
        interpreter.invoke()
        for output in interpreter.get_output_details():
            found.setdefault(output["name"], []).append(interpreter.get_tensor(output["index"])[0])
            steps[output["name"]] = output["quantization"]
    return {name: np.array(values) for name, values in found.items()}, steps


def loaded(path):
    with np.load(path) as file:
        return dict(file)


def compare(files, most_steps=1):
    """Runs files with OpenVINO and LiteRT on the same inputs, and compares; `files` has path -> real values, or None for random ones."""
    expected = {path: litert(path, x) for path, x in files.items()}
    assert run(files) == ""
    for path, (outputs, steps) in expected.items():
        found = loaded(path.with_suffix(".openvino.npz"))
        for name, values in outputs.items():
            real, ours = values.astype("float64"), found[name].astype("float64")
            # Integers are rounded in another place: one step, that of the output or of one of 8 bits before it.
            inner = float(np.ptp(real)) / 128 if "int8" in path.stem or "dynamic" in path.stem else 2e-6 * max(1.0, np.abs(real).max())
            assert np.abs(ours - real).max() <= (most_steps if steps[name][0] else inner), (path.stem, name)
            assert not steps[name][0] or (np.abs(ours - real) <= 1).mean() >= 0.95, (path.stem, name)
            assert np.ptp(real) > 0, path.stem


@pytest.mark.slow
def test_outputs_are_those_of_litert(tmp_path):
    files = {}
    for make, variant, io in FILES:
        keras.utils.set_random_seed(1)
        path = tmp_path / f"{make.__name__}_{variant}_{io}.tflite"
        files[path] = IMAGES if make is images else SERIES
        tfdistill.export_tflite(make(), path, variant, calibration=files[path], io=io, tolerances=Tolerances())
    compare(files)


@pytest.mark.release
def test_outputs_of_small_nets_of_the_zoo_are_those_of_litert(tmp_path):
    files = {}
    for name, build in zoo_models.SMALL.items():
        for variant in ("float32", "int8"):
            keras.utils.set_random_seed(1)
            model = build()
            path = tmp_path / f"{name}_{variant}.tflite"
            files[path] = None
            tfdistill.export_tflite(model, path, variant, calibration=data_of(model), tolerances=Tolerances())
    compare(files, most_steps=2)  # random inputs, among which are some that calibration did not see: differences inside add up


@pytest.mark.slow
def test_the_last_edit_fills_what_other_programs_leave_out(tmp_path):
    """Files of litert-quantizer have the number of an operation in the newer field alone, which OpenVINO does not read."""
    path = tmp_path / "whole.tflite"
    tfdistill.export_tflite(images(), path, "float32")
    expected, _ = litert(path, rows=1)
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
        each.with_suffix(".npz").write_bytes(path.with_suffix(".npz").read_bytes())
    said = run([lacking, mended])
    assert said.startswith("lacking is not read:"), said
    assert said.count("\n") == 1
    found = loaded(tmp_path / "mended.openvino.npz")
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=1e-6)
