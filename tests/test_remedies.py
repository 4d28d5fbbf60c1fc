"""Every remedy in an error works: how the error is provoked, a part of its remedy, and what is done as it says, which then works.

The rooms of teaching have a table of their own.
"""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable

import keras
import numpy as np
import pytest
from keras import layers

import tfdistill
from tfdistill.benchmarking import Cpu, Timing
from tfdistill.bridge.imports import tf_keras
from tfdistill.cli.data import load_data
from tfdistill.compress import Cluster, Prune, QuantizeAware
from tfdistill.convert.census import census
from tfdistill.errors import TfdistillError
from tfdistill.tflite import Tolerances

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 6)).astype("float32")
SERIES = RNG.normal(size=(20, 5, 4)).astype("float32")
IMAGES = RNG.integers(0, 256, (40, 8, 8, 3)).astype("uint8")
WHOLE = RNG.integers(0, 8, (20, 5)).astype("int32")
QUICK = Timing(min_seconds=0.01, max_seconds=0.05, warmup_seconds=0)


@functools.cache
def net():
    return keras.Sequential(
        [keras.Input((6,), name="x"), layers.Dense(8, activation="relu", name="hidden"), layers.Dense(3, name="logits")], name="net"
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
    "no calibration": Row(lambda: tfdistill.export_tflite(net(), "m.tflite", "int8"), "calibration=samples", lambda: export(net(), "int8")),
    "few samples": Row(lambda: export(net(), "int8", X[:3]), "give more samples", lambda: export(net(), "int8", X)),
    "an endless dataset": Row(
        lambda: export(net(), verify_on=_dataset().repeat()),
        "dataset.take(n)",
        lambda: export(net(), verify_on=_dataset().repeat().take(2)),
    ),
    "a used iterator": Row(lambda: export(net(), "int8", iter([])), "make a new one", lambda: export(net(), "int8", iter([X]))),
    "an unknown variant": Row(lambda: export(net(), "int_8"), "'int8'", lambda: export(net(), "int8")),
    "an unknown argument": Row(lambda: export(net(), quantize=True), "variant='int8'", lambda: export(net(), variant="int8")),
    "TensorFlow's argument": Row(
        lambda: tfdistill.export_tflite(net(), "m.tflite", "int8", representative_dataset=X), "calibration=", tf_idiom
    ),
    "a model in pruning": Row(lambda: export(pruning(), "int8"), "step.strip(model)", lambda: export(stripped_of(pruning()), "int8")),
    "a tf_keras model": Row(
        lambda: export(made("of tf_keras")), "tfdistill.bridge.adopt", lambda: export(tfdistill.bridge.adopt(made("of tf_keras")))
    ),
    "a tf_keras model again": Row(
        lambda: export(made("of tf_keras")), "tfdistill.bridge.adopt", lambda: export(tfdistill.to_keras(made("of tf_keras")))
    ),
    "text": Row(lambda: export(made("words")), "model.get_layer('lookup').output", lambda: after_the_lookup("words")),
    "a lookup of numbers": Row(lambda: export(made("numbers")), "model.get_layer('lookup').output", lambda: after_the_lookup("numbers")),
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
        "tfdistill.compress.QuantizeAware",
        lambda: export(trained(QuantizeAware(), made("GRU"), SERIES), "int8", SERIES),
    ),
    "a GRU in int8, exported otherwise": Row(
        lambda: export(made("GRU"), "int8", SERIES, road="converter"), "dynamic_range", lambda: export(made("GRU"), "dynamic_range", SERIES)
    ),
    "a stateful LSTM": Row(
        lambda: export(made("stateful"), "int8", SERIES), "export as dynamic_range", lambda: export(made("stateful"), "float16", SERIES)
    ),
    "a free axis": Row(
        lambda: export(made("free"), data=SERIES), "a keras.Input of fixed shape", lambda: export(made("fixed"), data=SERIES)
    ),
    "a free axis, kept": Row(
        lambda: export(made("free"), data=SERIES), "batch_size=None", lambda: export(made("free"), data=SERIES, batch_size=None)
    ),
    "another batch": Row(lambda: export(made("batch of 4")), "batch_size=4", lambda: export(made("batch of 4"), batch_size=4)),
    "an operation that TFLite lacks": Row(
        lambda: export(made("cumprod")), "allow_flex=True", lambda: export(made("cumprod"), allow_flex=True)
    ),
    "a subclassed model that was not called": Row(
        lambda: export(Tokens(), data=np.ones((20, 5))), "call it once", lambda: export(_called(Tokens()), data=np.ones((20, 5)))
    ),
    "data of another scale": Row(
        mistaken_scale, "scale calibration and verification data alike", lambda: export(net(), "int8", X, verify_on=X)
    ),
    "an untrained range": Row(lambda: export(QuantizeAware().apply(net()), "int8"), "train", lambda: export(quantized(), "int8")),
    "a trained int8 model as float16": Row(
        lambda: export(quantized(), "float16"), "export it as int8", lambda: export(quantized(), "int8")
    ),
    "tolerances that a good file fails": Row(
        lambda: tfdistill.verify(int8_file(), net(), X, variant="float32"),
        "set max_relative_error",
        lambda: tfdistill.verify(int8_file(), net(), X),
    ),
    "verify with data=": Row(lambda: tfdistill.verify(int8_file(), net(), data=X), "x=", lambda: tfdistill.verify(int8_file(), net(), x=X)),
    "tolerances as a dict": Row(
        lambda: export(net(), tolerances={"max_relative_error": 1}),
        "tfdistill.tflite.Tolerances",
        lambda: export(net(), tolerances=Tolerances(max_relative_error=1)),
    ),
    "an unknown task": Row(lambda: export(net(), task="multi_class"), "'multiclass'", lambda: export(net(), task="multiclass")),
    "a subclassed model of whole numbers to export": Row(
        lambda: export(bits(), data=WHOLE), "keras.Model(inputs, model(inputs))", lambda: export(functional_of_bits(), "int8", WHOLE)
    ),
    # runtime and benchmarking
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
        "shapes=",
        lambda: tfdistill.benchmark("m.tflite", timing=QUICK, shapes={_only_input(made("free")): (1, 32, 4)}),
    ),
    "no file to benchmark": Row(
        lambda: tfdistill.benchmark("none.tflite"),
        "export_tflite writes one",
        lambda: tfdistill.benchmark(export(net()).path, timing=QUICK),
    ),
    # compress
    "an unknown layer": Row(
        lambda: Prune(0.5, end_step=9, layers="hiden").plan(net()), "'hidden'", lambda: Prune(0.5, end_step=9, layers="hidden").plan(net())
    ),
    "no end": Row(lambda: Prune(0.5), "Prune.for_training(steps_per_epoch, epochs", lambda: Prune.for_training(10, 2, sparsity=0.5)),
    "clusters of a model in pruning": Row(
        lambda: QuantizeAware().apply(pruning()), "strip(model)", lambda: QuantizeAware().apply(stripped_of(pruning()))
    ),
    "zeros to keep where there are none": Row(
        lambda: Cluster(4, preserve_sparsity=True).apply(net()), "use 'auto'", lambda: Cluster(4, preserve_sparsity="auto").apply(net())
    ),
    "kernels of four bits and activations of 16": Row(
        lambda: QuantizeAware(weight_bits=16), "activation_bits=16", lambda: QuantizeAware(activation_bits=16).apply(net())
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
    "to_keras of a Keras 3 model": Row(lambda: tfdistill.to_keras(net()), "use it as it is", lambda: export(net())),
    "a file of weights alone": Row(_weights_alone, "model.load_weights(path)", _loaded_weights),
    "a program without layers": Row(
        _exported_folder, "tfdistill.distill.SavedModelTeacher(path)", lambda: tfdistill.distill.SavedModelTeacher("program")
    ),
    # command line
    "no such data": Row(lambda: load_data("none.npz", net()), "an .npz or .npy file", lambda: load_data(_saved_array(), net())),
    "arrays of other names": Row(
        lambda: load_data(_labels_alone(), net()), "np.savez('data.npz', x=x, y=y)", lambda: load_data(_saved_arrays(), net())
    ),
}


def _dataset():
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices(X).batch(20)


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
    assert row.remedy() is not None
