"""Files for the runtimes of devices that are older or smaller than LiteRT."""

import json
import subprocess

import environments
import keras
import numpy as np
import pytest

import tfdistill
from tfdistill import export_tflite
from tfdistill.compress import Quantize
from tfdistill.errors import ConfigurationError, ExportError
from tfdistill.runtime.interpreter import open_file
from tfdistill.tflite import Tolerances

L = keras.layers
OLD, MICRO = "tflite-runtime-2.14", "tflite-micro"
X = np.random.default_rng(0).uniform(size=(64, 8, 8, 3)).astype("float32")
# Runs in the old runtime's environment: opens each file of a folder with each kind of kernels, and saves what it computes on the inputs.
RUNNING = """
import pathlib, sys
import numpy as np
from tflite_runtime.interpreter import Interpreter, OpResolverType
folder = pathlib.Path(sys.argv[1])
for path in sorted(folder.glob("*.tflite")):
    for kernels in ("AUTO", "BUILTIN_WITHOUT_DEFAULT_DELEGATES"):
        interpreter = Interpreter(str(path), num_threads=1, experimental_op_resolver_type=OpResolverType[kernels])
        interpreter.allocate_tensors()
        entry, end = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
        rows = []
        for row in np.load(path.with_suffix(".npy")):
            interpreter.set_tensor(entry, row[None])
            interpreter.invoke()
            rows.append(interpreter.get_tensor(end)[0])
        np.save(folder / f"{path.stem}.{kernels}.npy", np.array(rows))
"""


def net(activation="relu"):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3))
    h = L.DepthwiseConv2D(3)(L.Conv2D(8, 3, activation="relu")(inputs))
    h = L.LayerNormalization()(L.Dense(16, activation=activation, name="hidden")(L.Flatten()(h)))
    return keras.Model(inputs, L.Dense(4)(h), name="net")


def exported(model, path, variant, runtime=None):
    calibration = X if variant in ("int8", "int16x8") else None
    return export_tflite(model, path, variant, calibration=calibration, verify_on=X, tolerances=Tolerances(), runtime=runtime)


@pytest.mark.slow
def test_the_old_runtime_computes_what_litert_does(tmp_path):
    expected = {}
    for variant in ("float32", "float16", "dynamic_range", "int8"):
        record = exported(net("gelu"), tmp_path / f"{variant}.tflite", variant, OLD)
        assert record.runtime == OLD
        file = open_file(record.path, trusted=True, xnnpack=False)
        (entry,) = record.inputs
        given = X if entry.scale is None else np.clip(np.round(X / entry.scale + entry.zero_point), -128, 127).astype(entry.dtype)
        np.save(tmp_path / f"{variant}.npy", given)
        expected[variant] = next(iter(file.run(X).values())), record.outputs[0]
    program = tmp_path / "program.py"
    program.write_text(RUNNING, encoding="utf-8")
    subprocess.run([environments.python_with("tflite-runtime==2.14.0", "numpy<2"), program, tmp_path], check=True, capture_output=True)
    for variant, (outputs, end) in expected.items():
        for kernels in ("AUTO", "BUILTIN_WITHOUT_DEFAULT_DELEGATES"):
            found = np.load(tmp_path / f"{variant}.{kernels}.npy").astype("float32")
            if end.scale is not None:
                found = (found - end.zero_point) * end.scale
            step = end.scale or {"float32": 1e-5, "float16": 1e-2}.get(variant, np.ptp(outputs) / 255)
            # Integer kernels of another age, and XNNPACK's, round some products otherwise, which the normalization behind them makes two steps of.
            apart = np.abs(found - outputs) / step
            assert apart.max() <= 2.01, (variant, kernels)
            assert (apart > 0.5).mean() < 0.05, (variant, kernels)


def test_dense_layers_of_a_dynamic_range_file_have_one_scale(tmp_path):
    newer, older = (exported(net(), tmp_path / f"{runtime}.tflite", "dynamic_range", runtime) for runtime in (None, OLD))
    lacks = {record.path: tfdistill.inspect(record.path).runtimes[OLD] for record in (newer, older)}
    assert lacks == {newer.path: ("FULLY_CONNECTED version 12 (up to 10 there)",), older.path: ()}


def test_a_file_for_a_microcontroller_has_its_operations(tmp_path):
    today, micro = (exported(net("gelu"), tmp_path / f"{runtime}.tflite", "int8", runtime) for runtime in (None, MICRO))
    assert tfdistill.inspect(today.path).runtimes == {OLD: (), MICRO: ("GELU",)}
    assert tfdistill.inspect(micro.path).runtimes == {OLD: (), MICRO: ()}
    assert json.loads(micro.save(tmp_path / "record.json").read_text())["runtime"] == MICRO


# Model, variant, runtime -> what the message says; then the remedy, a change of the model, and what the other remedy, LiteRT, must do.
REFUSED = {
    "an activation": (lambda: net("gelu"), "float32", MICRO, "It lacks GELU.", lambda: net("relu")),
    "floats with 8-bit weights": (
        lambda: keras.Sequential([keras.Input((8, 8, 3)), L.Flatten(), L.Dense(64)], name="net"),
        "dynamic_range",
        MICRO,
        "It lacks FULLY_CONNECTED of dynamic.",
        lambda: keras.Sequential([keras.Input((8, 8, 3)), L.MaxPooling2D(), L.Flatten()], name="net"),
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_a_runtime_lacks_is_refused(what, tmp_path):
    made, variant, runtime, said, mended = REFUSED[what]
    path = tmp_path / "net.tflite"
    with pytest.raises(ExportError) as raised:
        exported(made(), path, variant, runtime)
    assert said in str(raised.value)
    assert "replace the layers that they come from, or leave runtime= out for a device that has LiteRT" in str(raised.value)
    assert not path.exists()
    exported(mended(), path, variant, runtime)
    exported(made(), path, variant)


def test_a_quantized_model_is_held_to_the_runtime(tmp_path):
    quantized = Quantize().apply(net("gelu"), X)
    with pytest.raises(ExportError, match="It lacks GELU"):
        exported(quantized, tmp_path / "net.tflite", "int8", MICRO)
    assert exported(Quantize(target="micro").apply(net("gelu"), X), tmp_path / "net.tflite", "int8", MICRO).runtime == MICRO


def test_an_unknown_runtime_is_refused_first(tmp_path):
    with pytest.raises(ConfigurationError, match=r"tflite-micr'(.|\n)*tflite-micro"):
        export_tflite(object(), tmp_path / "net.tflite", runtime="tflite-micr")
