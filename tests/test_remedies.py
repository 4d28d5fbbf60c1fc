"""Every remedy in an error works: how the error is provoked, a part of its remedy, and what is done as it says, which then works.

The rooms of teaching have a table of their own.
"""

import dataclasses
import functools
import gzip
import os
import pathlib
from collections.abc import Callable

import keras
import numpy as np
import pytest
from keras import layers
from remedies_of_source import claimed, remedies, require_said

import tfdistill
from tfdistill.benchmarking import Cpu, Timing
from tfdistill.bridge.imports import tf_keras
from tfdistill.cli.data import load_all, load_data
from tfdistill.cli.files import refuse_folder
from tfdistill.compress import Cluster, LowRank, Prune, PruneChannels, Quantize, QuantizeAware
from tfdistill.convert.census import census, require_no_flex
from tfdistill.demo import datasets
from tfdistill.errors import TfdistillError
from tfdistill.tflite import Tolerances
from tfdistill.utils.deprecation import renamed_arguments
from tfdistill.utils.files import writable_folder

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 6)).astype("float32")
SERIES = RNG.normal(size=(20, 5, 4)).astype("float32")
IMAGES = RNG.integers(0, 256, (40, 8, 8, 3)).astype("uint8")
LABELS = np.arange(40) % 3
WHOLE = RNG.integers(0, 8, (20, 5)).astype("int32")
AFTER_THE_LOOKUP = "look up before the model, in the data pipeline, and export what comes after: keras.Model(model.get_layer('lookup').output, model.output)"
PRUNE = Prune(0.5, end_step=1, frequency=1)
QUICK = Timing(min_seconds=0.01, max_seconds=0.05, warmup_seconds=0, processes=1)


@functools.cache
def net():
    return keras.Sequential(
        [keras.Input((6,), name="x"), layers.Dense(8, activation="relu", name="hidden"), layers.Dense(3, name="logits")], name="net"
    )


def activated_net(activation):
    return keras.Sequential(
        [keras.Input((6,), name="x"), layers.Dense(8, activation=activation, name="hidden"), layers.Dense(3, name="logits")]
    )


@functools.cache
def pruning():
    return Prune(0.5, end_step=1, frequency=1).apply(net())


@functools.cache
def int8_file():
    return tfdistill.export_tflite(net(), "int8.tflite", "int8", calibration=X).path


def export(model, variant="float32", data=X, **arguments):
    path = "m.tflite"
    return tfdistill.export_tflite(model, path, variant, calibration=data, **arguments)


@functools.cache
def made(kind):
    """The models that the rows are about."""
    if kind == "uint8":
        inputs = keras.Input((8, 8, 3), dtype="uint8", name="image")
        return keras.Model(inputs, layers.Dense(4)(layers.Flatten()(layers.Rescaling(1 / 255.0)(inputs))))
    if kind == "words":
        words = keras.Input((2,), dtype="string")
        found = layers.StringLookup(vocabulary=["a", "b"], name="lookup")(words)
        return keras.Model(words, layers.Dense(2)(layers.Flatten()(layers.Embedding(4, 3)(found))))
    if kind == "numbers":
        numbers = keras.Input((2,), dtype="int64")
        found = layers.IntegerLookup(vocabulary=[3, 7], name="lookup")(numbers)
        return keras.Model(numbers, layers.Dense(2)(layers.Flatten()(layers.Embedding(4, 3)(found))))
    if kind == "lambda":
        return keras.Sequential([keras.Input((6,)), layers.Dense(4), layers.Lambda(lambda x: x * 2.0), layers.Dense(3)])
    if kind == "GRU":
        return keras.Sequential([keras.Input((5, 4)), layers.GRU(3)])
    if kind == "stateful":
        return keras.Sequential([keras.Input(batch_shape=(1, 5, 4)), layers.LSTM(3, stateful=True)])
    if kind == "free":
        return keras.Sequential([keras.Input((None, 4)), layers.Dense(3), layers.GlobalAveragePooling1D()])
    if kind == "fixed":
        return keras.Sequential([keras.Input((5, 4)), layers.Dense(3), layers.GlobalAveragePooling1D()])
    if kind == "batch of 4":
        return keras.Sequential([keras.Input(batch_shape=(4, 6)), layers.Dense(3)])
    if kind == "cumprod":
        inputs = keras.Input((6,))
        return keras.Model(inputs, keras.ops.cumprod(layers.Dense(4)(inputs), axis=-1))
    if kind == "indices":
        inputs = keras.Input((2,), dtype="int32")
        return keras.Model(inputs, layers.Dense(2)(layers.Flatten()(layers.Embedding(4, 3)(inputs))))
    if kind == "normalized":
        return keras.Sequential([keras.Input((6,)), layers.Dense(4), layers.LayerNormalization(name="norm"), layers.Dense(3)])
    if kind in ("images", "grey"):
        return keras.Sequential([keras.Input((8, 8, 3 if kind == "images" else 1)), layers.Flatten(), layers.Dense(2)])
    if kind == "of tf_keras":
        return tf_keras().Sequential([tf_keras().Input((6,)), tf_keras().layers.Dense(3)])
    raise KeyError(kind)


class Two(keras.Model):
    """A call of two tensors."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(3)

    def call(self, x, y):
        return self.dense(x) + self.dense(y)


class Bits(keras.Model):
    """A subclassed model that takes nothing but whole numbers."""

    def __init__(self):
        super().__init__()
        self.embedding, self.dense = layers.Embedding(8, 4), layers.Dense(3, name="head")

    def call(self, inputs):
        if not keras.backend.is_int_dtype(inputs.dtype):
            raise TypeError(f"{inputs.dtype} is no type of whole numbers")
        return self.dense(keras.ops.mean(self.embedding(inputs), axis=1))


@functools.cache
def bits():
    model = Bits()
    model(WHOLE)
    return model


def functional_of_bits():
    inputs = keras.Input((5,), dtype="int32")
    return keras.Model(inputs, bits()(inputs))


class Tokens(keras.Model):
    """A subclassed model of whole numbers."""

    def __init__(self):
        super().__init__()
        self.embedding, self.dense = layers.Embedding(9, 4), layers.Dense(3, name="head")

    def call(self, inputs):
        return self.dense(keras.ops.mean(self.embedding(inputs), axis=1))


@functools.cache
def two():
    model = Two()
    model(X, X)
    return model


def functional_of_two():
    x, y = keras.Input((6,)), keras.Input((6,))
    return keras.Model([x, y], two()(x, y))


def on_floats():
    model = made("uint8")
    fresh = keras.models.clone_model(model, input_tensors=keras.Input((8, 8, 3)))
    fresh.set_weights(model.get_weights())
    return fresh


def after_the_lookup(kind, shape=(40, 2)):
    model = made(kind)
    after = keras.Model(model.get_layer("lookup").output, model.output)
    return export(after, "int8", RNG.integers(0, 3, shape))


def pruned_as_adopted(model, x=X, **arguments):
    step = Prune(0.5, end_step=1, frequency=1)
    stripped = step.strip(trained(step, tfdistill.adopt(tfdistill.to_tf_keras(model, **arguments)), x))
    step.check(stripped)
    return export(stripped, data=x)


def trained(step, start=None, x=X):
    model = step.apply(net() if start is None else start)
    model.compile("sgd", "mse")
    model.fit(x, np.zeros((len(x), 3)), epochs=2, verbose=0, callbacks=step.callbacks())
    return model


def quantized():
    return trained(QuantizeAware())


def stripped_of(model):
    return Prune(0.5, end_step=1, frequency=1).strip(model)


def mistaken_scale():
    return export(net(), "int8", X * 300, verify_on=(X, net().predict(X, verbose=0).argmax(-1)))


def tf_idiom():
    def representative_dataset():
        for row in X:
            yield [row[None]]

    return export(net(), "int8", representative_dataset)


def damaged(path="int8.tflite"):
    pathlib.Path("damaged.tflite").write_bytes(pathlib.Path(int8_file()).read_bytes()[:400])
    return census("damaged.tflite")


@dataclasses.dataclass(frozen=True)
class Row:
    provoke: Callable
    said: str
    remedy: Callable


def _weights_alone():
    net().save_weights("alone.weights.h5")
    return tfdistill.load_model("alone.weights.h5")


def _loaded_weights():
    fresh = keras.models.clone_model(net())
    fresh.load_weights("alone.weights.h5")
    return fresh


def _exported_folder():
    made("fixed").export("program", verbose=False)
    return tfdistill.load_model("program")


ROWS = {
    # tflite
    "a path that ends otherwise": Row(lambda: tfdistill.export_tflite(net(), "m.lite"), "a name ending in .tflite", lambda: export(net())),
    "a folder to export to": Row(
        lambda: tfdistill.export_tflite(net(), "."),
        "give the name of a file in it: 'model.tflite'",
        lambda: tfdistill.export_tflite(net(), "model.tflite"),
    ),
    "another ending": Row(
        lambda: tfdistill.export_tflite(net(), "m.lite"),
        "give it that ending: 'm.tflite'",
        lambda: tfdistill.export_tflite(net(), "m.tflite"),
    ),
    "an operation that the runtime lacks": Row(
        lambda: tfdistill.export_tflite(activated_net("gelu"), "m.tflite", runtime="tflite-micro"),
        "replace the layers that they come from, or leave runtime= out for a device that has LiteRT",
        lambda: (
            tfdistill.export_tflite(activated_net("relu"), "m.tflite", runtime="tflite-micro"),
            tfdistill.export_tflite(activated_net("gelu"), "m.tflite"),
        ),
    ),
    "path and model the wrong way round": Row(
        lambda: tfdistill.export_tflite("model.tflite", net()),
        "write export_tflite(model, 'model.tflite')",
        lambda: tfdistill.export_tflite(net(), "model.tflite"),
    ),
    "one sample": Row(
        lambda: export(net(), "int8", X[0]),
        "this is one sample: give an array of many, as np.stack(list_of_samples) makes it",
        lambda: export(net(), "int8", np.stack(list(X))),
    ),
    "channels first": Row(
        lambda: export(made("images"), "int8", np.moveaxis(IMAGES, -1, 1)),
        "its channels come first: give np.moveaxis(x, 1, -1)",
        lambda: export(made("images"), "int8", np.moveaxis(np.moveaxis(IMAGES, -1, 1), 1, -1)),
    ),
    "no axis of channels": Row(
        lambda: export(made("grey"), "int8", IMAGES[..., 0]),
        "give x[..., None], which has an axis of one channel",
        lambda: export(made("grey"), "int8", IMAGES[..., 0][..., None]),
    ),
    "a file as samples": Row(
        lambda: export(net(), "int8", _saved_array()),
        "load them first: np.load(file) for arrays",
        lambda: export(net(), "int8", np.load(_saved_array())),
    ),
    "NaN in some samples": Row(
        lambda: export(net(), "int8", with_holes()),
        "leave these samples out: x[np.isfinite(x).reshape(len(x), -1).all(axis=1)]",
        lambda: export(net(), "int8", with_holes()[np.isfinite(with_holes()).reshape(len(X), -1).all(axis=1)]),
    ),
    "no calibration": Row(
        lambda: tfdistill.export_tflite(net(), "m.tflite", "int8"), "export_tflite(..., calibration=samples)", lambda: export(net(), "int8")
    ),
    "few samples": Row(lambda: export(net(), "int8", X[:3]), "give more samples", lambda: export(net(), "int8", X)),
    "an endless dataset": Row(
        lambda: export(net(), verify_on=_dataset().repeat()),
        "dataset.take(n)",
        lambda: export(net(), verify_on=_dataset().repeat().take(2)),
    ),
    "a used iterator": Row(lambda: export(net(), "int8", iter([])), "make a new one", lambda: export(net(), "int8", iter([X]))),
    "an unknown variant": Row(lambda: export(net(), "int_8"), "'int8'", lambda: export(net(), "int8")),
    "an unknown argument": Row(
        lambda: export(net(), quantize=True), "give variant='int8' and calibration=", lambda: export(net(), variant="int8")
    ),
    "TensorFlow's argument": Row(
        lambda: tfdistill.export_tflite(net(), "m.tflite", "int8", representative_dataset=X), "give it as calibration=", tf_idiom
    ),
    "calibration data of a check": Row(
        lambda: tfdistill.check(net(), calibration=X), "give it as data=", lambda: tfdistill.check(net(), data=X)
    ),
    "a model in pruning": Row(lambda: export(pruning(), "int8"), "step.strip(model)", lambda: export(stripped_of(pruning()), "int8")),
    "a tf_keras model": Row(
        lambda: export(made("of tf_keras")), "tfdistill.bridge.adopt", lambda: export(tfdistill.bridge.adopt(made("of tf_keras")))
    ),
    "a tf_keras model again": Row(
        lambda: export(made("of tf_keras")), "tfdistill.bridge.adopt", lambda: export(tfdistill.to_keras(made("of tf_keras")))
    ),
    "text": Row(lambda: export(made("words")), AFTER_THE_LOOKUP, lambda: after_the_lookup("words")),
    "a lookup of numbers": Row(lambda: export(made("numbers")), AFTER_THE_LOOKUP, lambda: after_the_lookup("numbers")),
    "a call of two": Row(
        lambda: export(two(), data=[X, X]), "keras.Model([x, y], model(x, y))", lambda: export(functional_of_two(), "int8", [X, X])
    ),
    "uint8 images in int8": Row(
        lambda: export(made("uint8"), "int8", IMAGES),
        "keras.models.clone_model(model, input_tensors=",
        lambda: export(on_floats(), "int8", IMAGES, io="uint8"),
    ),
    "a GRU in int8": Row(
        lambda: export(made("GRU"), "int8", SERIES, road="converter"),
        "train it with tfdistill.compress.QuantizeAware, which computes recurrent layers in integers",
        lambda: export(trained(QuantizeAware(), made("GRU"), SERIES), "int8", SERIES),
    ),
    "a GRU in int8, exported otherwise": Row(
        lambda: export(made("GRU"), "int8", SERIES, road="converter"),
        "or export as dynamic_range or float16",
        lambda: export(made("GRU"), "dynamic_range", SERIES),
    ),
    "a stateful LSTM": Row(
        lambda: export(made("stateful"), "int8", SERIES),
        "or export as dynamic_range or float16",
        lambda: export(made("stateful"), "float16", SERIES),
    ),
    "a free axis": Row(
        lambda: export(made("free"), data=SERIES), "a keras.Input of fixed shape", lambda: export(made("fixed"), data=SERIES)
    ),
    "a free axis, kept": Row(
        lambda: export(made("free"), data=SERIES), "batch_size=None", lambda: export(made("free"), data=SERIES, batch_size=None)
    ),
    "another batch": Row(lambda: export(made("batch of 4")), "batch_size=4", lambda: export(made("batch of 4"), batch_size=4)),
    "an operation that TFLite lacks": Row(
        lambda: export(made("cumprod")),
        ", or export with allow_flex=True, for an interpreter that has TensorFlow's operations",
        lambda: export(made("cumprod"), allow_flex=True),
    ),
    "a subclassed model that was not called": Row(
        lambda: export(Tokens(), data=np.ones((20, 5))),
        "call it once, or give it a keras.Input",
        lambda: export(_called(Tokens()), data=np.ones((20, 5))),
    ),
    "data of another scale": Row(
        mistaken_scale, "scale calibration and verification data alike", lambda: export(net(), "int8", X, verify_on=X)
    ),
    "an untrained range": Row(
        lambda: export(QuantizeAware().apply(net()), "int8"), "train the model with fit", lambda: export(quantized(), "int8")
    ),
    "a trained int8 model as float16": Row(
        lambda: export(quantized(), "float16"), "export it as int8, train it with", lambda: export(quantized(), "int8")
    ),
    "tolerances that a good file fails": Row(
        lambda: tfdistill.verify(int8_file(), net(), X, variant="float32"),
        ", or set max_relative_error of the tolerances if this is good enough",
        lambda: tfdistill.verify(int8_file(), net(), X, variant="float32", tolerances=Tolerances(max_relative_error=0.1)),
    ),
    "verify with data=": Row(
        lambda: tfdistill.verify(int8_file(), net(), data=X), "give the samples as x=", lambda: tfdistill.verify(int8_file(), net(), x=X)
    ),
    "tolerances as a dict": Row(
        lambda: export(net(), tolerances={"max_relative_error": 1}),
        "tfdistill.tflite.Tolerances",
        lambda: export(net(), tolerances=Tolerances(max_relative_error=1)),
    ),
    "an unknown task": Row(lambda: export(net(), task="multi_class"), "'multiclass'", lambda: export(net(), task="multiclass")),
    "a subclassed model of whole numbers to export": Row(
        lambda: export(bits(), data=WHOLE), "keras.Model(inputs, model(inputs))", lambda: export(functional_of_bits(), "int8", WHOLE)
    ),
    "a quantization by its list": Row(
        lambda: export(net(), optimizations=["DEFAULT"]),
        "give variant='int8', 'float16' or 'dynamic_range'",
        lambda: [export(net(), variant) for variant in ("int8", "float16", "dynamic_range")],
    ),
    "the type of an input": Row(
        lambda: export(net(), "int8", inference_input_type="uint8"),
        "give io='int8', 'uint8' or 'float32'",
        lambda: [export(net(), "int8", io=io) for io in ("int8", "uint8", "float32")],
    ),
    "labels as y=": Row(
        lambda: export(net(), y=LABELS),
        "give the labels along with the inputs: verify_on=(x, y)",
        lambda: export(net(), verify_on=(X, LABELS)),
    ),
    "labels to verify": Row(
        lambda: tfdistill.verify(int8_file(), net(), X, labels=LABELS),
        "give the labels as y=",
        lambda: tfdistill.verify(int8_file(), net(), X, y=LABELS),
    ),
    "a layer of an operation that TFLite lacks": Row(
        lambda: export(made("cumprod")), "replace the layers that these come from", lambda: export(net())
    ),
    "a loop over batches of any size": Row(
        lambda: export(made("GRU"), data=SERIES, batch_size=None),
        "set batch_size to a number, as TFLite has no lists of tensors of any size, or export with allow_flex=True",
        lambda: (export(made("GRU"), data=SERIES, batch_size=1), export(made("GRU"), data=SERIES, batch_size=None, allow_flex=True)),
    ),
    "a file with TensorFlow's operations": Row(
        lambda: require_no_flex(export(made("cumprod"), allow_flex=True).census),
        "replace the layers that they come from, set batch_size to a number, or export with allow_flex=True",
        lambda: require_no_flex(export(net()).census) or export(made("cumprod"), allow_flex=True),
    ),
    "a layer that stays float": Row(
        lambda: export(made("normalized"), "int8", road="converter"),
        "leave these layers out or replace them, or export as dynamic_range or float16",
        lambda: (export(net(), "int8", road="converter"), [export(made("normalized"), v) for v in ("dynamic_range", "float16")]),
    ),
    "a subclassed model whose shapes Keras has not kept": Row(
        lambda: export(marked_built(Tokens()), data=np.ones((20, 5))),
        "call it once on a batch of data",
        lambda: export(_called(Tokens()), data=np.ones((20, 5))),
    ),
    "text to calibrate on": Row(
        lambda: Quantize().apply(made("words"), calibration=X),
        "turn text into indices in the data pipeline, and give the model a keras.Input of dtype='int32'",
        lambda: Quantize().apply(made("indices"), calibration=RNG.integers(0, 3, (40, 2))),
    ),
    "a road that does not lead there": Row(
        lambda: export(net(), "float16", road="bridge"),
        "road='auto' or road='converter'",
        lambda: [export(net(), "float16", road=road) for road in ("auto", "converter")],
    ),
    "calibration of another kind": Row(
        lambda: tfdistill.verify(export(net(), "int8", X / 50, verify_on=X / 50).path, net(), X),
        "calibrate on samples of the kind that the model will meet",
        lambda: tfdistill.verify(export(net(), "int8", X).path, net(), X),
    ),
    "values of different units": Row(
        lambda: export(of_units(1e-4), "int8"),
        "give values of different units outputs of their own, or scale them to one unit",
        lambda: (export(apart(of_units(1e-4)), "int8"), export(of_units(1.0), "int8")),
    ),
    # tasks
    "one score for many classes": Row(
        lambda: tasked("multiclass", 1),
        "task='binary' for one binary score, task='regression' for a number",
        lambda: (tasked("binary", 1, LABELS % 2), tasked("regression", 1, X[:, :1])),
    ),
    "many scores for two classes": Row(
        lambda: tasked("binary", 3),
        "task='multilabel' for independent binary scores, task='multiclass' for classes that exclude each other",
        lambda: (tasked("multilabel", 3, np.eye(3)[LABELS]), tasked("multiclass", 3, LABELS)),
    ),
    "no positions to label": Row(
        lambda: tasked("segmentation", 3), "task='multiclass' for one class per sample", lambda: tasked("multiclass", 3, LABELS)
    ),
    "numbers as labels of several": Row(
        lambda: tasked("multilabel", 3, 5.0 * np.eye(3)[LABELS]),
        "task='regression' if they are numbers",
        lambda: tasked("regression", 3, 5.0 * np.eye(3)[LABELS]),
    ),
    "fractions as classes": Row(
        lambda: tasked("multiclass", 3, LABELS * 0.5),
        "use task='regression' for numbers, with labels of the output's shape",
        lambda: tasked("regression", 3, np.stack([LABELS * 0.5] * 3, axis=-1)),
    ),
    # runtime and benchmarking
    "without XNNPACK": Row(
        lambda: tfdistill.benchmark(int8_file(), xnnpack=False),
        "benchmark(path, tfdistill.benchmarking.Cpu(kernels='builtin'))",
        lambda: tfdistill.benchmark(int8_file(), Cpu(kernels="builtin"), timing=QUICK),
    ),
    "another engine": Row(
        lambda: tfdistill.benchmark(int8_file(), engine="tensorflow"),
        "benchmark(path, tfdistill.benchmarking.Cpu(engine='tensorflow'))",
        lambda: tfdistill.benchmark(int8_file(), Cpu(engine="tensorflow"), timing=QUICK),
    ),
    "runs before": Row(
        lambda: tfdistill.benchmark(int8_file(), warmup=20),
        "benchmark(path, timing=tfdistill.benchmarking.Timing(warmup_runs=20))",
        lambda: tfdistill.benchmark(int8_file(), timing=dataclasses.replace(QUICK, warmup_runs=20)),
    ),
    "shapes by another name": Row(
        lambda: tfdistill.benchmark(int8_file(), input_shapes={"x": (1, 6)}),
        "give shapes={name: shape}",
        lambda: tfdistill.benchmark(int8_file(), shapes={"x": (1, 6)}, timing=QUICK),
    ),
    "a target as text": Row(
        lambda: tfdistill.benchmark(int8_file(), "cpu"),
        "tfdistill.benchmarking.Cpu()",
        lambda: tfdistill.benchmark(int8_file(), Cpu(), timing=QUICK),
    ),
    "too little time": Row(
        lambda: tfdistill.benchmark(int8_file(), timing=QUICK, timeout_seconds=0.01),
        "raise timeout_seconds, or lower max_seconds of the timing",
        lambda: (tfdistill.benchmark(int8_file(), timing=QUICK, timeout_seconds=60.0), tfdistill.benchmark(int8_file(), timing=QUICK)),
    ),
    "a limit that is none": Row(
        lambda: limited("soon"), "unset TFDISTILL_PROBE_SECONDS", lambda: os.environ.pop("TFDISTILL_PROBE_SECONDS") and census(int8_file())
    ),
    # files
    "a folder that is a file": Row(
        lambda: (pathlib.Path("a_file").write_text("mine"), writable_folder("a_file")),
        "choose another folder, or change its permissions",
        lambda: writable_folder("another"),
    ),
    "a read-only file": Row(
        lambda: export_onto("kept.tflite", 0o444),
        "write to another file, or allow it: os.chmod('",
        lambda: (export_onto("another.tflite", 0o644), export_onto("kept.tflite", 0o644)),
    ),
    "two names of one argument": Row(
        lambda: renamed()(say=print, log_fn=print), "leave out `say`", lambda: renamed()(log_fn=print) or "done"
    ),
    # the demo
    "a folder for data that needs none": Row(
        lambda: datasets.load("digits", "here"), "leave the folder out", lambda: datasets.load("digits")
    ),
    "a folder without the data": Row(
        lambda: datasets.load("fashion-mnist", "."),
        "apt install dataset-fashion-mnist installs them",
        lambda: datasets.load("fashion-mnist", as_installed("installed")),
    ),
    "half a download": Row(
        lambda: datasets.load("fashion-mnist", as_installed("half", -3)),
        "download it again",
        lambda: datasets.load("fashion-mnist", as_installed("half")),
    ),
    "a road of unknown length": Row(
        lambda: on_the_road(), "give fit={'steps_per_epoch': n} in the settings", lambda: on_the_road(steps_per_epoch=2)
    ),
    "a road with a step that takes data": Row(
        lambda: on_the_road(channels(), steps_per_epoch=2),
        "do this step yourself: apply(model, data), before under_teacher",
        lambda: channels_then_the_road(),
    ),
    "a profile of a file": Row(
        lambda: tfdistill.profile(saved()),
        "load it first: tfdistill.load_model(path)",
        lambda: tfdistill.profile(tfdistill.load_model(saved())),
    ),
    "a profile of a tf_keras model": Row(
        lambda: tfdistill.profile(made("of tf_keras")),
        "tfdistill.to_keras(model) makes a Keras 3 model of it",
        lambda: tfdistill.profile(tfdistill.to_keras(made("of tf_keras"))),
    ),
    "channels of a file": Row(
        lambda: PruneChannels(keep_macs=0.7, divisor=1).plan(saved()),
        "load it first: tfdistill.load_model(path)",
        lambda: PruneChannels(keep_macs=0.7, divisor=1).plan(tfdistill.load_model(saved())),
    ),
    "a model to load": Row(
        lambda: tfdistill.load_model(net()), "what is in memory needs no loading: use it as it is", lambda: export(net())
    ),
    "no file to load": Row(
        lambda: tfdistill.load_model("nowhere/model.keras"), "write one: model.save('model.keras')", lambda: tfdistill.load_model(saved())
    ),
    "data for layers": Row(
        lambda: Quantize(X).apply(net()), "give data to apply: step.apply(model, data)", lambda: Quantize().apply(net(), X)
    ),
    "data for layers, of channels": Row(
        lambda: PruneChannels(keep_macs=0.7, divisor=1, layers=X),
        "give data to apply: step.apply(model, data)",
        lambda: channels().apply(net(), X),
    ),
    "a layer for its name": Row(
        lambda: QuantizeAware(layers=net().layers[0]),
        "give the name of a layer: layer.name",
        lambda: QuantizeAware(layers=net().layers[0].name).plan(net(), dry_run=False),
    ),
    "a class of layers": Row(
        lambda: QuantizeAware(exclude=keras.layers.Dense),
        "give a predicate of a layer: lambda layer: type(layer).__name__ == 'Dense'",
        lambda: QuantizeAware(exclude=lambda layer: type(layer).__name__ == "Dense").plan(net(), dry_run=False),
    ),
    "a road of a student in a file": Row(
        lambda: on_the_road(student=saved(), steps_per_epoch=2),
        "load it first: tfdistill.load_model(path)",
        lambda: on_the_road(student=tfdistill.load_model(saved()), steps_per_epoch=2),
    ),
    "a road with one step": Row(
        lambda: under(QuantizeAware()), "put it into a list, also if it is one: [step]", lambda: under([QuantizeAware()])
    ),
    "a road with the class of a step": Row(
        lambda: under([QuantizeAware]),
        "make one of the class with its settings, as in QuantizeAware() or functools.partial(Prune.for_training, sparsity=0.5)",
        lambda: under([functools.partial(Prune.for_training, sparsity=0.5), QuantizeAware()]),
    ),
    # training data
    "fewer labels than inputs": Row(
        lambda: taught(X, LABELS[:30]),
        "give the inputs and labels of one and the same data set, cut alike: x[:n], y[:n]",
        lambda: taught(X[:30], LABELS[:30]),
    ),
    "labels with a number for each class": Row(
        lambda: taught(X, np.eye(3)[LABELS]),
        "write loss=keras.losses.CategoricalCrossentropy(from_logits=True), or give y.argmax(-1)",
        lambda: (taught(X, np.eye(3)[LABELS], loss=CROSS_ENTROPIES[1]), taught(X, np.eye(3)[LABELS].argmax(-1))),
    ),
    "an index for each sample": Row(
        lambda: taught(X, LABELS, loss=CROSS_ENTROPIES[1]),
        "write loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), or give keras.utils.to_categorical(y, 3)",
        lambda: (taught(X, LABELS), taught(X, keras.utils.to_categorical(LABELS, 3), loss=CROSS_ENTROPIES[1])),
    ),
    "classes that are not there": Row(
        lambda: taught(X, LABELS * 10),
        "number the classes from 0, as np.unique(y, return_inverse=True)[1] does, or give both models as many classes as there are",
        lambda: (taught(X, np.unique(LABELS * 10, return_inverse=True)[1]), taught(X, LABELS * 10, of_features(6, 21))),
    ),
    "inputs of another shape": Row(
        lambda: taught(X[:, :5], LABELS),
        "resize the data in its pipeline, or make a model on a keras.Input of the data's shape",
        lambda: (taught(np.pad(X[:, :5], ((0, 0), (0, 1))), LABELS), taught(X[:, :5], LABELS, of_features(5))),
    ),
    "half a file": Row(damaged, "write it again", lambda: census(int8_file())),
    "a model to benchmark": Row(
        lambda: tfdistill.benchmark(net()),
        "export_tflite(model, 'm.tflite').path",
        lambda: tfdistill.benchmark(export(net()).path, timing=QUICK),
    ),
    "a record to benchmark": Row(
        lambda: tfdistill.benchmark(export(net())), "record.path", lambda: tfdistill.benchmark(export(net()).path, timing=QUICK)
    ),
    "threads": Row(
        lambda: tfdistill.benchmark(int8_file(), threads=2),
        "Cpu(threads=2)",
        lambda: tfdistill.benchmark(int8_file(), Cpu(threads=2), timing=QUICK),
    ),
    "runs": Row(
        lambda: tfdistill.benchmark(int8_file(), runs=3),
        "Timing(min_runs=200)",
        lambda: tfdistill.benchmark(int8_file(), timing=dataclasses.replace(QUICK, min_runs=3)),
    ),
    "a file of any shape": Row(
        lambda: tfdistill.benchmark(export(made("free"), data=SERIES, batch_size=None).path, timing=QUICK),
        "benchmark(path, shapes={'",
        lambda: tfdistill.benchmark("m.tflite", timing=QUICK, shapes={_only_input(made("free")): (1, 32, 4)}),
    ),
    "no file to benchmark": Row(
        lambda: tfdistill.benchmark("none.tflite"),
        "export_tflite writes one",
        lambda: tfdistill.benchmark(export(net()).path, timing=QUICK),
    ),
    "a saved model to benchmark": Row(
        lambda: tfdistill.benchmark(saved()),
        "export it first: export_tflite('saved.keras', 'model.tflite'); on the command line, tfdistill export saved.keras --out model.tflite",
        lambda: tfdistill.benchmark(tfdistill.export_tflite(saved(), "model.tflite").path, timing=QUICK),
    ),
    # settings
    "a share in percent": Row(lambda: Prune(50), "for 50 % write 0.5", lambda: Prune(0.5, end_step=9).plan(net())),
    "a share as text": Row(
        lambda: PruneChannels(keep_macs="0.5"), "write 0.5, without quotes", lambda: PruneChannels(keep_macs=0.5, divisor=1).plan(net())
    ),
    "a whole number as text": Row(
        lambda: PruneChannels(keep_macs=0.5, divisor="8"), "write 8, without quotes", lambda: PruneChannels(keep_macs=0.5, divisor=8)
    ),
    "no budget": Row(
        lambda: PruneChannels(),
        "for half of the multiply-accumulates give keep_macs=0.5",
        lambda: PruneChannels(keep_macs=0.5, divisor=1).plan(net()),
    ),
    "two budgets": Row(
        lambda: LowRank(keep_macs=0.5, energy=0.9), "leave out all but one of them", lambda: LowRank(energy=0.9).plan(net())
    ),
    # compress
    "a model without the step's wrappers to strip": Row(
        lambda: PRUNE.strip(net()),
        "a model without the wrappers of the step needs no strip: use it as it is",
        lambda: (PRUNE.strip(PRUNE.apply(net())), export(net())),
    ),
    "a Distiller to compress": Row(
        lambda: PRUNE.apply(teaching(net())), "give its student: distiller.student", lambda: PRUNE.apply(teaching(net()).student)
    ),
    "a Distiller to strip": Row(
        lambda: PRUNE.strip(teaching(PRUNE.apply(net()))),
        "give its student: distiller.student",
        lambda: PRUNE.strip(teaching(PRUNE.apply(net())).student),
    ),
    "an unknown layer": Row(
        lambda: Prune(0.5, end_step=9, layers="hiden").plan(net()), "'hidden'", lambda: Prune(0.5, end_step=9, layers="hidden").plan(net())
    ),
    "no end": Row(lambda: Prune(0.5), "Prune.for_training(steps_per_epoch, epochs", lambda: Prune.for_training(10, 2, sparsity=0.5)),
    "clusters of a model in pruning": Row(
        lambda: QuantizeAware().apply(pruning()),
        "give it what the earlier step's strip(model) returned",
        lambda: QuantizeAware().apply(stripped_of(pruning())),
    ),
    "zeros to keep where there are none": Row(
        lambda: Cluster(4, preserve_sparsity=True).apply(net()),
        "prune it first, or use 'auto'",
        lambda: Cluster(4, preserve_sparsity="auto").apply(net()),
    ),
    "kernels of four bits and activations of 16": Row(
        lambda: QuantizeAware(weight_bits=16),
        "for more precision give activation_bits=16",
        lambda: QuantizeAware(activation_bits=16).apply(net()),
    ),
    "a Lambda layer": Row(
        lambda: Prune(0.5, end_step=9).apply(made("lambda")),
        "tfdistill.adopt(tfdistill.to_tf_keras(model, allow_lambda=True))",
        lambda: pruned_as_adopted(made("lambda"), allow_lambda=True),
    ),
    "a subclassed model of whole numbers": Row(
        lambda: Prune(0.5, end_step=9).apply(bits.__wrapped__()),
        "tfdistill.adopt(tfdistill.to_tf_keras(model, inputs=keras.Input(shape, dtype=...)))",
        lambda: pruned_as_adopted(bits(), WHOLE, inputs=keras.Input((5,), dtype="int32")),
    ),
    # bridge
    "a Lambda layer over the bridge": Row(
        lambda: tfdistill.to_tf_keras(made("lambda")), "allow_lambda=True", lambda: tfdistill.to_tf_keras(made("lambda"), allow_lambda=True)
    ),
    "a Keras 3 model to adopt": Row(
        lambda: tfdistill.adopt(net()), "to_tf_keras first", lambda: tfdistill.adopt(tfdistill.to_tf_keras(net()))
    ),
    "to_keras of a Keras 3 model": Row(
        lambda: tfdistill.to_keras(net()), "a Keras 3 model needs no bridge: use it as it is", lambda: export(net())
    ),
    "a file of weights alone": Row(_weights_alone, "model.load_weights(path)", _loaded_weights),
    "a program without layers": Row(
        _exported_folder, "tfdistill.distill.SavedModelTeacher(path)", lambda: tfdistill.distill.SavedModelTeacher("program")
    ),
    # command line
    "no such data": Row(lambda: load_data("none.npz", net()), "an .npz or .npy file", lambda: load_data(_saved_array(), net())),
    "a factor without images": Row(
        lambda: load_all([_saved_array()], net(), 0.5),
        "leave it out, and scale arrays where they are made",
        lambda: load_all([_saved_array()], net(), 1.0),
    ),
    "a folder as a record": Row(
        lambda: refuse_folder(pathlib.Path(".")), "write --record record.json", lambda: refuse_folder(pathlib.Path("record.json")) or "done"
    ),
    "arrays of other names": Row(
        lambda: load_data(_labels_alone(), net()), "np.savez('data.npz', x=x, y=y)", lambda: load_data(_saved_arrays(), net())
    ),
}


def marked_built(model):
    """As a user's own `build` may leave a model: with weights, and without shapes that Keras knows."""
    model.embedding.build((None, 5))
    model.dense.build((None, 4))
    model.built = True
    return model


def of_units(scale):
    model = keras.Sequential([keras.Input((6,)), layers.Dense(2, name="both")])
    kernel = RNG.normal(size=(6, 2)).astype("float32")
    model.set_weights([kernel * [1.0, scale], np.zeros(2)])
    return model


def apart(model):
    """The two columns of a model's output as outputs of their own, each computed by a layer of its own."""
    inputs, (kernel, bias) = keras.Input((6,)), model.get_weights()
    parts = [layers.Dense(1, name=name) for name in ("first", "second")]
    made = keras.Model(inputs, {part.name: part(inputs) for part in parts})
    for i, part in enumerate(parts):
        part.set_weights([kernel[:, i : i + 1], bias[i : i + 1]])
    return made


@functools.cache
def of_width(width):
    return keras.Sequential([keras.Input((6,)), layers.Dense(width, name="scores")])


def tasked(task, width, labels=None):
    return export(of_width(width), verify_on=X if labels is None else (X, labels), task=task)


def limited(seconds):
    os.environ["TFDISTILL_PROBE_SECONDS"] = seconds
    return census(int8_file())


def export_onto(name, mode):
    path = pathlib.Path(name)
    if not path.exists():
        path.write_text("kept")
    path.chmod(mode)
    return tfdistill.export_tflite(net(), path, verify_on=X)


def renamed():
    @renamed_arguments("0.1", say="log_fn")
    def work(log_fn=print):
        log_fn("done")

    return work


def as_installed(folder, cut=None):
    """The four files, as the package installs them, of a few small images."""
    pathlib.Path(folder).mkdir(exist_ok=True)
    for (_, what), name in datasets.FASHION_MNIST_FILES.items():
        sizes = (4, 2, 2) if what == "x" else (4,)
        content = bytes([0, 0, 8, len(sizes)]) + np.array(sizes, ">u4").tobytes() + bytes(int(np.prod(sizes)))
        (pathlib.Path(folder) / name).write_bytes(gzip.compress(content[:cut]))
    return folder


def on_the_road(step=None, student=None, **fit):
    import tensorflow as tf

    settings = tfdistill.distill.ChainSettings(tfdistill.losses.SoftTargets(), student_loss_weight=0.0, fit=fit, epochs=1)
    teacher, copy = (keras.models.clone_model(net()) for _ in range(2))
    dataset = tf.data.Dataset.from_tensor_slices(X).repeat().batch(20)
    return tfdistill.under_teacher(
        teacher, student or copy, [step or functools.partial(Prune.for_training, sparsity=0.5)], settings, dataset
    )


def saved():
    net().save("saved.keras")
    return "saved.keras"


def channels():
    return PruneChannels(keep_macs=0.7, divisor=1, criterion="output_distance")


def channels_then_the_road():
    on_the_road(student=channels().apply(net(), X), steps_per_epoch=2)
    return channels().apply(on_the_road(steps_per_epoch=2).model, X)


def _dataset():
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices(X).batch(20)


def image_folder():
    pathlib.Path("pictures/all").mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(IMAGES):
        keras.utils.save_img(f"pictures/all/{number}.png", image, scale=False)
    return "pictures"


def with_holes():
    return np.where(np.arange(len(X))[:, None] % 20 == 3, np.nan, X)


def of_features(number, classes=3):
    return keras.Sequential([keras.Input((number,)), layers.Dense(classes)])


def teaching(student):
    teacher = of_features(student.input_shape[-1], student.output_shape[-1])
    return tfdistill.Distiller(teacher, student, tfdistill.losses.SoftTargets())


CROSS_ENTROPIES = [kind(from_logits=True) for kind in (keras.losses.SparseCategoricalCrossentropy, keras.losses.CategoricalCrossentropy)]


def taught(x, y, student=None, loss=CROSS_ENTROPIES[0]):
    distiller = teaching(student or of_features(6))
    distiller.compile("sgd", loss, run_eagerly=True)
    return distiller.fit(x, y, verbose=0)


def under(steps):
    settings = tfdistill.distill.ChainSettings(tfdistill.losses.SoftTargets(), student_loss_weight=0.0, epochs=1)
    teacher, student = (keras.models.clone_model(net()) for _ in range(2))
    return tfdistill.under_teacher(teacher, student, steps, settings, X)


def _called(model):
    model(np.ones((2, 5)))
    return model


def _only_input(model):
    from tfdistill.convert.signature import describe

    return describe(model).inputs[0].name


def _saved_array():
    np.save("x.npy", X)
    return "x.npy"


def _labels_alone():
    np.savez("labels.npz", y=np.zeros(3))
    return "labels.npz"


def _saved_arrays():
    np.savez("data.npz", x=X, y=np.zeros(40))
    return "data.npz"


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory):
    before = os.getcwd()
    os.chdir(tmp_path_factory.mktemp("remedies"))
    yield
    os.chdir(before)


def test_there_are_many_remedies():
    assert len(ROWS) >= 30


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.filterwarnings(
    "ignore:.*reaches from:UserWarning", "ignore:Calibration sample:UserWarning", "ignore:Keras decides clearly:UserWarning"
)
def test_a_remedy_works(name):
    row = ROWS[name]
    with pytest.raises(TfdistillError) as error:
        row.provoke()
    assert row.said in str(error.value)
    if claimed(row.said, remedies()):
        require_said(row.said, error.value)
    assert row.remedy() is not None
