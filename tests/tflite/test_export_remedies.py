"""What errors of states, signatures, split outputs, blame and folders of images say to do works."""

import functools

import keras
import numpy as np
import pytest
from keras import layers as L
from remedies_of_source import Row, check

import tfdistill
from tfdistill.bridge.imports import tf_keras, tfmot
from tfdistill.compress import Quantize
from tfdistill.tflite import FileMetadata, Tolerances, accuracy_by_stage, layers_alone

RNG = np.random.default_rng(0)
X = RNG.normal(size=(32, 6)).astype("float32")
LABELS = np.arange(32) % 3
FRAMES = RNG.normal(size=(20, 3, 4)).astype("float32")
IMAGES = RNG.normal(size=(20, 4, 4, 3)).astype("float32")


@functools.cache
def net():
    return keras.Sequential([keras.Input((6,), name="x"), L.Dense(8, activation="relu", name="hidden"), L.Dense(3, name="logits")])


@functools.cache
def quantized():
    return Quantize().apply(net(), calibration=X)


@functools.cache
def of_tfmot():
    tfk = tf_keras()
    model = tfk.Sequential([tfk.Input((6,)), tfk.layers.Dense(3)])
    return tfdistill.adopt(tfmot().quantization.keras.quantize_model(model))


def streaming(stateful=True, batch=1, wrap=False):
    frames = keras.Input(batch_shape=(batch, 3, 4), name="frames")
    gru = L.GRU(4, stateful=stateful, name="gru")
    return keras.Model(frames, L.Dense(2)(Around(gru)(frames) if wrap else gru(frames)))


@keras.saving.register_keras_serializable(package="test_export_remedies")
class Around(L.Layer):
    """Hides a stateful layer."""

    def __init__(self, inner, **kwargs):
        super().__init__(**kwargs)
        self.inner = inner

    def build(self, shape):
        self.inner.build(shape)
        self.built = True

    def call(self, x):
        return self.inner(x)


@keras.saving.register_keras_serializable(package="test_export_remedies")
class Sum(L.Layer):
    def build(self, shape):
        self.total = self.add_weight((shape[0], shape[-1]), initializer="zeros", trainable=False, name="total")
        self.built = True

    def reset_state(self):
        self.total.assign(keras.ops.zeros_like(self.total))

    def call(self, x):
        self.total.assign(self.total + x)
        return self.total + 0.0


def summing(batch):
    inputs = keras.Input(batch_shape=(batch, 6), name="x")
    return keras.Model(inputs, L.Dense(2)(Sum(name="sum")(inputs)))


def detector(joined=True):
    inputs = keras.Input((6,), name="x")
    branches = {"boxes": L.Dense(4, name="boxes")(inputs), "scores": L.Dense(3, name="scores")(inputs)}
    return keras.Model(inputs, L.Concatenate(name="heads")(list(branches.values())) if joined else branches)


def export(model, folder, variant="float32", data=None, **arguments):
    tolerances = arguments.pop("tolerances", Tolerances())
    return tfdistill.export_tflite(model, folder / "m.tflite", variant, data, tolerances=tolerances, **arguments)


def images_without_classes(folder):
    for i in range(16):
        import tensorflow as tf

        tf.io.write_file(str(folder / f"{i}.png"), tf.io.encode_png(RNG.integers(0, 256, (4, 4, 3)).astype("uint8")))
    return str(folder)


def described(folder):
    record = export({"one": net(), "two": net()}, folder)
    return tfdistill.add_metadata(record.path, FileMetadata(author="Ada"))


STAGES = [("float", net), ("int8", quantized)]
ROWS = {
    "a stateful model as integers": Row(
        "export with states='explicit', which makes each state an input and an output",
        lambda f: export(streaming(), f, "int8", FRAMES),
        lambda f: export(streaming(), f, "int8", FRAMES, states="explicit"),
    ),
    "no states": Row(
        "build its recurrent layers with stateful=True, or leave states= out",
        lambda f: export(streaming(False), f, states="explicit"),
        lambda f: (export(streaming(), f, states="explicit"), export(streaming(False), f)),
    ),
    "states inside of another layer": Row(
        "call it in the model itself, outside of the layer around it",
        lambda f: export(streaming(wrap=True), f, states="explicit"),
        lambda f: export(streaming(), f, states="explicit"),
    ),
    "states of a free batch": Row(
        "leave batch_size= out",
        lambda f: export(streaming(), f, states="explicit", batch_size=None),
        lambda f: export(streaming(), f, states="explicit"),
    ),
    "a state of another batch": Row(
        "give the export that batch_size, or build the model on keras.Input(batch_shape=(1, ...))",
        lambda f: export(summing(4), f, states="explicit"),
        lambda f: (export(summing(4), f, states="explicit", batch_size=4), export(summing(1), f, states="explicit")),
    ),
    "states of a quantized model": Row(
        "give export_tflite the model that was quantized, with calibration= and states='explicit'",
        lambda f: export(quantized(), f, "int8", states="explicit"),
        lambda f: export(streaming(), f, "int8", FRAMES, states="explicit"),
    ),
    "states of several signatures": Row(
        "export with states='explicit'",
        lambda f: export({"one": streaming(), "two": streaming()}, f),
        lambda f: export({"one": streaming(), "two": streaming()}, f, states="explicit"),
    ),
    "metadata of several signatures": Row(
        "add it to the file afterwards: tfdistill.add_metadata(path, ...)",
        lambda f: export({"one": net(), "two": net()}, f, metadata=FileMetadata(author="Ada")),
        described,
    ),
    "a signature's name": Row(
        "write export_tflite({'serving_default': model, 'features': other}, path)",
        lambda f: export({"the net": net()}, f),
        lambda f: export({"serving_default": net(), "features": net()}, f),
    ),
    "nothing to split": Row(
        "leave outputs= out, as there is nothing to split",
        lambda f: export(net(), f, outputs="split"),
        lambda f: export(net(), f),
    ),
    "a quantized model to split": Row(
        "quantize a model whose branches are outputs: keras.Model(inputs, {'boxes': boxes, 'scores': scores})",
        lambda f: export(Quantize().apply(detector(), calibration=X), f, "int8", outputs="split"),
        lambda f: export(Quantize().apply(detector(joined=False), calibration=X), f, "int8"),
    ),
    "boxes beside scores": Row(
        "with outputs='split' a file has the boxes of a detector in an output of their own",
        lambda f: export(detector(), f, verify_on=X, task="boxes"),
        lambda f: export(detector(), f, verify_on=X, outputs="split", task={"boxes": "boxes"}),
    ),
    "a folder of images for a model of vectors": Row(
        "give arrays, or for other data a function that returns them",
        lambda f: export(net(), f, "int8", images_without_classes(f)),
        lambda f: (export(net(), f, "int8", X), export(net(), f, "int8", lambda: X)),
    ),
    "calibration of a quantized model": Row(
        "leave calibration= and step= out",
        lambda f: layers_alone(quantized(), X, calibration=X),
        lambda f: layers_alone(quantized(), X),
    ),
    "a model of tensorflow-model-optimization": Row(
        "give the float model, and calibration=",
        lambda f: layers_alone(of_tfmot(), X),
        lambda f: layers_alone(net(), X, calibration=X),
    ),
    "samples by another name": Row(
        "give the samples as data=",
        lambda f: layers_alone(net(), x=X, calibration=X),
        lambda f: layers_alone(net(), data=X, calibration=X),
    ),
    "one stage": Row(
        "write accuracy_by_stage([('float', model), ('int8', 'model.tflite')], x, y)",
        lambda f: accuracy_by_stage([("float", net())], X, LABELS),
        lambda f: accuracy_by_stage([("float", net()), ("int8", export(net(), f, "int8", X).path)], X, LABELS),
    ),
    "stages by another name": Row(
        "give pairs of a name and a model as stages=",
        lambda f: accuracy_by_stage(models=[("a", net()), ("b", quantized())], x=X, y=LABELS),
        lambda f: accuracy_by_stage(stages=[("a", net()), ("b", quantized())], x=X, y=LABELS),
    ),
    "stages without labels": Row(
        "give them as y=labels, or the data as (x, y)",
        lambda f: accuracy_by_stage([(name, make()) for name, make in STAGES], X),
        lambda f: (
            accuracy_by_stage([(name, make()) for name, make in STAGES], X, y=LABELS),
            accuracy_by_stage([(name, make()) for name, make in STAGES], (X, LABELS)),
        ),
    ),
}


@pytest.mark.parametrize("row", ROWS)
def test_what_an_error_says_to_do_works(row, tmp_path):
    check(ROWS[row], tmp_path)
