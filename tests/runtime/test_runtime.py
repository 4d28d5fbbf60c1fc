"""Opened files: names, types, batches, quantization against NumPy, every engine; and captured native output."""

import ctypes
import os
import warnings

import keras
import numpy as np
import pytest

from tfdistill.errors import ConfigurationError, DataError, RuntimeUnavailableError
from tfdistill.runtime.capture import captured_output
from tfdistill.runtime.interpreter import ENGINES, TensorInfo, engine_name, open_file
from tfdistill.runtime.tensors import pad_batch
from tfdistill.tflite import export_tflite

X = np.random.default_rng(0).standard_normal((33, 6)).astype("float32")


@pytest.fixture(scope="module")
def model():
    a, b = keras.Input((6,), name="zebra"), keras.Input((2,), name="ape")
    h = keras.layers.Concatenate()([keras.layers.Dense(8, activation="relu")(a), b])
    return keras.Model([a, b], [keras.layers.Dense(3, name="y")(h), keras.layers.Dense(2, name="x")(h)])


@pytest.fixture(scope="module")
def files(model, tmp_path_factory):
    folder, data = tmp_path_factory.mktemp("runtime"), [X, X[:, :2]]
    free = export_tflite(model, folder / "free.tflite", batch_size=None)
    made = {variant: export_tflite(model, folder / f"{variant}.tflite", variant, calibration=data) for variant in ("float32", "int8")}
    return {"free": free.path, **{variant: record.path for variant, record in made.items()}}


def expected(model):
    return dict(zip(("y", "x"), (out.numpy() for out in model([X, X[:, :2]])), strict=True))


@pytest.mark.parametrize("engine", [None, "ai_edge_litert", "tensorflow"])
@pytest.mark.parametrize("xnnpack", [True, False])
@pytest.mark.parametrize(("name", "batch_size"), [("float32", None), ("float32", 4), ("free", None), ("free", 10)])
def test_runs_by_name_in_any_batch(engine, xnnpack, name, batch_size, model, files):
    opened = open_file(files[name], xnnpack=xnnpack, batch_size=batch_size, engine=engine)
    assert (set(opened.inputs), set(opened.outputs)) == ({"zebra", "ape"}, {"x", "y"})
    assert opened.batch_size == (batch_size or 1)
    assert opened.engine == (engine or engine_name())
    seen = []
    found = opened.run({"ape": X[:, :2], "zebra": X}, seen.append)
    assert sum(seen) == 33
    for output, values in expected(model).items():
        np.testing.assert_allclose(found[output], values, atol=1e-5)


def test_quantized_io_is_translated_with_the_tensors_own_scale(model, files):
    opened = open_file(files["int8"])
    info = opened.inputs["zebra"]
    assert info.dtype == "int8"
    by_hand = np.clip(np.round(X / info.scale) + info.zero_point, -128, 127).astype("int8")
    np.testing.assert_array_equal(info.quantize(X), by_hand)
    given = opened.run({"zebra": X, "ape": X[:, :2]})
    raw = opened.run({"zebra": by_hand, "ape": opened.inputs["ape"].quantize(X[:, :2])})
    for name, values in expected(model).items():
        np.testing.assert_array_equal(given[name], raw[name])
        assert given[name].dtype == "float32"
        assert np.abs(given[name] - values).max() < 0.1


def test_quantization_clips_and_round_trips():
    info = TensorInfo("t", 0, (1,), "uint8", scale=0.5, zero_point=10)
    np.testing.assert_array_equal(info.quantize([-100.0, -5.0, 0.0, 0.24, 0.26, 1000.0]), [0, 0, 10, 10, 11, 255])
    np.testing.assert_array_equal(info.dequantize(np.array([0, 10, 255], "uint8")), np.float32([-5, 0, 122.5]))
    every = np.arange(256, dtype="uint8")
    np.testing.assert_array_equal(info.quantize(info.dequantize(every)), every)


def test_a_batch_is_padded_with_its_last_sample():
    padded = pad_batch({"a": np.array([1, 2]), "b": np.array([[3.0, 4.0], [5.0, 6.0]])}, 4)
    np.testing.assert_array_equal(padded["a"], [1, 2, 2, 2])
    np.testing.assert_array_equal(padded["b"], [[3, 4], [5, 6], [5, 6], [5, 6]])


def test_samples_do_not_see_each_others_state(tmp_path):
    from tfdistill.bridge.adopt.adopt import adopt
    from tfdistill.bridge.imports import tf_keras

    layers = tf_keras().layers
    recurrent = adopt(tf_keras().Sequential([layers.Input((4, 3)), layers.LSTM(5)]))
    opened = open_file(export_tflite(recurrent, tmp_path / "m.tflite").path)
    sequence = np.random.default_rng(0).random((1, 4, 3), dtype="float32")
    found = next(iter(opened.run(np.repeat(sequence, 3, axis=0)).values()))
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


WRONG = [
    ({"zebra": X}, "do not fit"),
    ({"zebra": X, "ape": X[:, :2], "cat": X}, "do not fit"),
    ({"zebra": X, "ape": X}, r"Input 'ape' .* shape \(33, 6\)"),
    ({"zebra": X[:0], "ape": X[:0, :2]}, "was given the shape"),
    ({"zebra": X, "ape": X[:9, :2]}, "different lengths"),
    (X, "One array was given"),
]


@pytest.mark.parametrize(("inputs", "match"), WRONG)
def test_wrong_inputs(inputs, match, files):
    with pytest.raises(DataError, match=match):
        open_file(files["float32"]).run(inputs)


@pytest.mark.parametrize("arguments", [{"threads": 0}, {"batch_size": 0}, {"engine": "tensorflow_lite"}])
def test_impossible_arguments(arguments, files):
    with pytest.raises(ConfigurationError):
        open_file(files["float32"], **arguments)


@pytest.mark.parametrize("size", [0, 10, 1000])
@pytest.mark.parametrize("engine", ["ai_edge_litert", "tensorflow"])
def test_damaged_file_names_file_and_cause(size, engine, files, tmp_path):
    path = tmp_path / "cut.tflite"
    with open(files["float32"], "rb") as whole:
        path.write_bytes(whole.read(size))
    with pytest.raises(RuntimeUnavailableError, match=rf"{engine} cannot open '.*cut\.tflite' \({size} bytes\): ."):
        open_file(path, engine=engine)


def test_missing_file(tmp_path):
    with pytest.raises(ConfigurationError, match="There is no file"):
        open_file(tmp_path / "none.tflite")


def test_engine_that_is_not_installed(files):
    absent = next(name for name in ENGINES if name == "tflite_runtime")
    with pytest.raises(RuntimeUnavailableError, match=r"tflite_runtime cannot open .*: No module named 'tflite_runtime'"):
        open_file(files["float32"], engine=absent)


def test_captured_output_holds_native_python_and_warnings(capfd):
    with captured_output() as captured:
        ctypes.CDLL(None).puts(b"from C")
        os.write(2, b"raw bytes\n")
        warnings.warn("a warning", UserWarning, stacklevel=1)
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", "")
    for words in ("from C", "raw bytes", "a warning"):
        assert words in captured.text
    assert captured.last(1) == "UserWarning: a warning"


def test_captured_output_gives_the_descriptors_back_after_an_error(capfd):
    blocks = []

    def fail():
        with captured_output() as captured:
            blocks.append(captured)
            os.write(1, b"before\n")
            raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        fail()
    os.write(1, b"after\n")
    assert blocks[0].text == "before\n"
    assert capfd.readouterr().out == "after\n"
