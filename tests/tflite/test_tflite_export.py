"""Every variant of small models: exported, whole, of the right types, verified; and every way it must refuse."""

import functools
import os
import signal

import fresh
import keras
import numpy as np
import pytest

from tfdistill.bridge.adopt.adopt import adopt
from tfdistill.bridge.imports import tf_keras, tfmot
from tfdistill.convert.census import FLOAT_TYPES
from tfdistill.errors import ConfigurationError, DataError, ExportError, ModelError
from tfdistill.tflite import VARIANTS as KINDS
from tfdistill.tflite import ExportRecord, Tolerances, export_tflite

SAMPLES = 40


def images(*shape, seed=0):
    return np.random.default_rng(seed).random((SAMPLES, *shape), dtype="float32")


def dense():
    keras.utils.set_random_seed(1)
    return keras.Sequential([keras.Input((12,)), keras.layers.Dense(16, activation="relu"), keras.layers.Dense(4)]), images(12)


@functools.cache
def conv():
    keras.utils.set_random_seed(2)
    x = keras.Input((8, 8, 1), name="image")
    h = keras.layers.Conv2D(8, 3, use_bias=False)(x)
    h = keras.layers.ReLU()(keras.layers.BatchNormalization()(h))
    h = keras.layers.Flatten()(keras.layers.DepthwiseConv2D(3)(h))
    return keras.Model(x, keras.layers.Dense(10, activation="softmax", name="classes")(h)), images(8, 8, 1)


def two_in_two_out():
    keras.utils.set_random_seed(3)
    x, words = keras.Input((5,), name="x.y"), keras.Input((3,), dtype="int32", name="words")
    h = keras.layers.Flatten()(keras.layers.Embedding(7, 4)(words))
    h = keras.layers.Concatenate()([keras.layers.Dense(6, activation="relu")(x), h])
    model = keras.Model({"x.y": x, "words": words}, {"kind": keras.layers.Dense(3)(h), "size": keras.layers.Dense(1)(h)})
    return model, {"x.y": images(5), "words": np.random.default_rng(0).integers(0, 7, (SAMPLES, 3))}


@keras.saving.register_keras_serializable(package="test_tflite_export")
class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first, self.second = keras.layers.Dense(6, activation="relu"), keras.layers.Dense(3)

    def call(self, x, training=False):
        return self.second(self.first(x))


def subclassed():
    keras.utils.set_random_seed(4)
    model, data = Subclassed(), images(5)
    model(data)
    return model, data


def mobilenet():
    keras.utils.set_random_seed(5)
    return keras.applications.MobileNetV2((64, 64, 3), alpha=0.35, weights=None, classes=10), images(64, 64, 3)


@functools.cache
def quantization_aware():
    tfk = tf_keras()
    tfk.utils.set_random_seed(6)
    plain = tfk.Sequential(
        [tfk.layers.Input((8, 8, 1)), tfk.layers.Conv2D(4, 3, activation="relu"), tfk.layers.Flatten(), tfk.layers.Dense(10)]
    )
    model, data = tfmot().quantization.keras.quantize_model(plain), images(8, 8, 1)
    model.compile("sgd", "mse")
    model.fit(data, np.zeros((SAMPLES, 10)), epochs=2, verbose=0)
    return adopt(model), data


@functools.cache
def fused_recurrent():
    tfk = tf_keras()
    tfk.utils.set_random_seed(7)
    return adopt(tfk.Sequential([tfk.layers.Input((6, 8)), tfk.layers.LSTM(8), tfk.layers.Dense(3)])), images(6, 8)


def recurrent():
    keras.utils.set_random_seed(8)
    return keras.Sequential([keras.Input((6, 8)), keras.layers.LSTM(8), keras.layers.Dense(3)]), images(6, 8)


VARIANTS = [
    ("float32", "float32"),
    ("float16", "float32"),
    ("dynamic_range", "float32"),
    ("int8", "int8"),
    ("int8", "uint8"),
    ("int8", "float32"),
]
VARIANTS += [("int16x8", "int16"), ("int16x8", "float32")]
VARIANTS += [("int4_weights", "float32"), ("int8_int4_mixed", "int8"), ("int8_int4_mixed", "float32")]
FLOAT_ONLY = [("float32", "float32"), ("dynamic_range", "float32")]
TABLE = [(conv, variant, io) for variant, io in VARIANTS]
TABLE += [(build, variant, io) for build in (dense, two_in_two_out, subclassed) for variant, io in (VARIANTS[0], VARIANTS[3])]
TABLE += [(fused_recurrent, "float32", "float32"), (fused_recurrent, "int8", "int8")]
TABLE += [(recurrent, variant, io) for variant, io in FLOAT_ONLY]
TABLE += [(quantization_aware, "int8", io) for io in ("int8", "uint8", "float32")] + [(quantization_aware, "float32", "float32")]
SLOW = [pytest.param(mobilenet, variant, io, marks=pytest.mark.slow) for variant, io in (VARIANTS[0], VARIANTS[3])]


@pytest.mark.parametrize(("build", "variant", "io"), TABLE + SLOW)
def test_export_is_whole_typed_and_verified(build, variant, io, tmp_path):
    model, data = build()
    path = tmp_path / "made" / "model.tflite"
    record = export_tflite(model, path, variant, calibration=data, io=io)
    assert os.listdir(path.parent) == ["model.tflite"]
    assert record.size_bytes == path.stat().st_size
    assert record.verified_on == "calibration"
    assert record.verification.samples == SAMPLES
    assert record.max_abs_error >= 0
    assert record.argmax_agreement is not None
    assert record.census.flex_ops == ()
    if KINDS[variant].integer_only:
        allowed = {"float32"} if io == "float32" or build is fused_recurrent else set()
        assert set(record.dtypes) & FLOAT_TYPES <= allowed
        assert record.calibration_samples == SAMPLES
        inputs = record.census.stray_floats(float_io=True)
        assert inputs == ()
    assert sum(record.dtypes.values()) > 0
    saved = ExportRecord.load(record.save(tmp_path / "record.json"))
    assert saved == record
    shown = {"variant", "path", "size_bytes", "accuracy", "keras_accuracy", "max_abs_error", "argmax_agreement", "dtypes", "io", "notes"}
    assert set(record.summary()) == shown
    assert all(tensor.name and tensor.shape for tensor in (*record.inputs, *record.outputs))
    assert {tensor.scale is None for tensor in record.outputs} == {io == "float32"}


def test_int8_is_smaller_and_close(tmp_path):
    model, data = dense()
    big = export_tflite(model, tmp_path / "f.tflite", "float32", calibration=data)
    small = export_tflite(model, tmp_path / "i.tflite", "int8", calibration=data)
    assert small.census.weights_bytes < 0.4 * big.census.weights_bytes
    assert small.max_abs_error < 0.05 * small.verification.outputs[next(iter(small.verification.outputs))].scale
    assert big.max_abs_error < 1e-5


def test_trained_ranges_need_no_calibration(tmp_path):
    model, data = quantization_aware()
    record = export_tflite(model, tmp_path / "m.tflite", "int8", verify_on=data)
    assert record.calibration_samples == 0
    assert not set(record.dtypes) & FLOAT_TYPES


def test_accuracy_comes_from_labels(tmp_path):
    model, data = dense()
    labels = model(data).numpy().argmax(-1)
    labels[:10] = (labels[:10] + 1) % 4
    record = export_tflite(model, tmp_path / "m.tflite", verify_on=(data, labels))
    assert record.accuracy == record.verification.keras_accuracy == pytest.approx(0.75)
    assert record.verified_on == "verify_on"


@pytest.mark.parametrize(("batch_size", "shape"), [(1, (1, 12)), (4, (4, 12)), (None, (1, 12))])
def test_batch(batch_size, shape, tmp_path):
    from tfdistill.runtime.interpreter import open_file

    model, data = dense()
    record = export_tflite(model, tmp_path / "m.tflite", "int8", calibration=data[:18], batch_size=batch_size)
    assert record.batch_size == batch_size
    assert next(iter(open_file(record.path).inputs.values())).shape == shape


def test_without_data_it_says_that_it_was_not_verified(tmp_path):
    record = export_tflite(dense()[0], tmp_path / "m.tflite")
    assert record.verification is None
    assert record.verified_on is None
    assert record.accuracy is None


class Erf(keras.layers.Layer):
    def call(self, x):
        import tensorflow as tf

        return tf.math.erf(x)


def with_flex():
    x = keras.Input((12,))
    return keras.Model(x, Erf()(x))


def test_flex_only_when_asked(tmp_path):
    with pytest.raises(ExportError, match="TFLite lacks Erf"):
        export_tflite(with_flex(), tmp_path / "m.tflite")
    assert os.listdir(tmp_path) == []
    record = export_tflite(with_flex(), tmp_path / "m.tflite", allow_flex=True, verify_on=images(12))
    assert record.census.flex_ops == ("FlexErf",)
    assert record.verified_on is None


def fixed_batch():
    return keras.Sequential([keras.Input(batch_shape=(8, 12)), keras.layers.Dense(4)])


def any_length():
    return keras.Sequential([keras.Input((None, 4)), keras.layers.Dense(4)])


REFUSED = [
    (dense, {"variant": "int7"}, ConfigurationError, "There is no variant 'int7'"),
    (dense, {"variant": "float32", "io": "int8"}, ConfigurationError, "cannot have io='int8'"),
    (dense, {"variant": "int8"}, DataError, "needs calibration data"),
    (dense, {"variant": "int8", "calibration": images(12)[:15]}, DataError, "holds 15 samples.\nExpected: at least 16"),
    (dense, {"path": "m.tfl"}, ConfigurationError, "does not end in .tflite"),
    (dense, {"batch_size": 0}, ConfigurationError, "batch_size=0 is impossible"),
    (dense, {"tolerances": 0.1}, ConfigurationError, "tolerances=0.1 is a float"),
    (dense, {"max_calibration_samples": 3}, ConfigurationError, "max_calibration_samples=3 is too few"),
    (lambda: (Subclassed(), None), {}, ModelError, "is not built"),
    (lambda: (keras.Sequential([keras.layers.Dense(2)]), None), {}, ModelError, "is not built"),
    (lambda: (object(), None), {}, ModelError, "cannot be exported"),
    (lambda: (fixed_batch(), None), {}, ConfigurationError, "built for a batch of 8"),
    (lambda: (any_length(), None), {}, ModelError, "axes of any length"),
    (recurrent, {"variant": "int8", "calibration": images(6, 8), "road": "converter"}, ModelError, "holds a loop"),
    (recurrent, {"variant": "int16x8", "calibration": images(6, 8)}, ModelError, "holds a loop"),
    (dense, {"road": "bridge"}, ConfigurationError, "road='bridge' for the variant 'float32'"),
    (dense, {"road": "bridges"}, ConfigurationError, "road='bridges' is unknown"),
    (quantization_aware, {"variant": "float16"}, ConfigurationError, "trained quantization-aware for int8"),
]


@pytest.mark.parametrize(("build", "arguments", "error", "match"), REFUSED)
def test_refused_and_nothing_left(build, arguments, error, match, tmp_path):
    model = build()[0]
    arguments = {"path": "m.tflite", **arguments}
    with pytest.raises(error, match=match):
        export_tflite(model, tmp_path / arguments.pop("path"), **arguments)
    assert os.listdir(tmp_path) == []


def test_file_that_fails_verification_does_not_appear(tmp_path):
    from tfdistill.errors import VerificationError

    model, data = dense()
    with pytest.raises(VerificationError, match=r"m\.tflite"):
        export_tflite(model, tmp_path / "m.tflite", "int8", calibration=data, tolerances=Tolerances(max_relative_error=1e-6))
    assert os.listdir(tmp_path) == []


def test_unwritable_folder(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigurationError, match="cannot be written"):
        export_tflite(dense()[0], tmp_path / "file" / "m.tflite")


def test_interrupted_export_keeps_the_old_file(tmp_path, monkeypatch):
    from tfdistill.tflite import export

    def interrupt(*arguments):
        raise KeyboardInterrupt

    path = tmp_path / "m.tflite"
    path.write_bytes(b"old")
    monkeypatch.setattr(export, "census", interrupt)
    with pytest.raises(KeyboardInterrupt):
        export_tflite(dense()[0], path)
    assert os.listdir(tmp_path) == ["m.tflite"]
    assert path.read_bytes() == b"old"


KILLED = """
import os, pathlib, signal, sys
import keras
from tfdistill.tflite import export_tflite

def half(self, data):
    with open(self, "wb") as file:
        file.write(data[: len(data) // 2])
        file.flush()
    os.kill(os.getpid(), signal.SIGKILL)

pathlib.Path.write_bytes = half
export_tflite(keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]), sys.argv[1])
"""


@pytest.mark.slow
def test_kill_in_the_middle_of_writing_leaves_no_file(tmp_path):
    path, program = tmp_path / "m.tflite", tmp_path / "program.py"
    program.write_text(KILLED, encoding="utf-8")
    ended = fresh.run(program, path)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert not path.exists()


def test_converter_noise_stays_out_of_the_terminal(tmp_path, capfd):
    model, data = conv()
    capfd.readouterr()
    export_tflite(model, tmp_path / "m.tflite", "int8", calibration=data)
    printed = capfd.readouterr()
    assert printed.out == ""
    assert printed.err == ""
