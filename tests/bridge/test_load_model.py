"""Saved models of both Keras, in every format, as Keras 3 models; and files that are damaged, hostile or no models."""

import json
import os
import pathlib
import zipfile

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from small import Subclassed, mlp

import tfdistill
from tfdistill.bridge import AdoptedModel, adopt, load_model, to_keras, to_tf_keras
from tfdistill.bridge.imports import tf_keras
from tfdistill.errors import BridgeError, ConfigurationError, ModelError

TFK = tf_keras().layers
X = np.random.default_rng(0).normal(size=(4, 8)).astype("float32")


def of_keras_2(kind="functional"):
    """A tf_keras model of eight numbers."""
    body = [TFK.Dense(6, activation="swish", kernel_regularizer="l2"), TFK.BatchNormalization(), TFK.LeakyReLU(0.2), TFK.Dropout(0.5)]
    if kind == "sequential":
        return tf_keras().Sequential([tf_keras().Input((8,)), *body, TFK.Dense(3)], name="net")
    x = inputs = tf_keras().Input((8,), name="features")
    for layer in body:
        x = layer(x)
    x = TFK.Reshape((3, 2))(tf.nn.relu(x - 0.1))
    return tf_keras().Model(inputs, TFK.Dense(3, activation="softmax")(TFK.GRU(4)(x)), name="net")


def saved(model, folder, form):
    path = folder / {"keras": "m.keras", "h5": "m.h5", "SavedModel": "m"}[form]
    model.save(path, **({"save_format": "tf"} if form == "SavedModel" else {}))
    return path


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
@pytest.mark.parametrize("kind", ["functional", "sequential"])
@pytest.mark.parametrize("form", ["keras", "h5", "SavedModel"])
def test_models_of_keras_2(tmp_path, form, kind):
    model = of_keras_2(kind)
    loaded = load_model(saved(model, tmp_path, form))
    assert type(loaded) is (keras.Sequential if kind == "sequential" else type(mlp(2)))
    assert isinstance(loaded, keras.Model)
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), loaded.get_weights(), strict=True))
    np.testing.assert_allclose(loaded(X), model(X), atol=1e-6)
    assert [layer.name for layer in loaded.layers][-1] == model.layers[-1].name


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
@pytest.mark.parametrize("name", ["m.keras", "m.h5"])
def test_models_of_keras_3(tmp_path, name):
    model = mlp(6, 5)
    model.compile("adam", "mse")
    model.save(tmp_path / name)
    loaded = load_model(tmp_path / name)
    np.testing.assert_array_equal(loaded(X), model(X))
    assert not loaded.compiled


def own_loss(y_true, y_pred):
    return keras.ops.mean(keras.ops.square(y_true - y_pred))


@pytest.mark.parametrize("make", [of_keras_2, lambda: mlp(6)], ids=["Keras 2", "Keras 3"])
def test_what_a_model_was_compiled_with_does_not_matter(tmp_path, make):
    model = make()
    model.compile("sgd", own_loss)
    model.save(tmp_path / "m.keras")
    np.testing.assert_allclose(load_model(tmp_path / "m.keras")(X), model(X), atol=1e-6)


def test_what_this_library_saves(tmp_path):
    model = adopt(to_tf_keras(mlp(6)))
    model.save(tmp_path / "m.keras")
    loaded = load_model(tmp_path / "m.keras")
    assert isinstance(loaded, AdoptedModel)
    np.testing.assert_array_equal(loaded(X), model(X))


def test_a_class_of_the_users_own(tmp_path):
    model = Subclassed()
    model(X)
    model.save(tmp_path / "m.keras")
    with pytest.raises(ModelError, match=r"custom_objects=\{'Subclassed'"):
        load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(load_model(tmp_path / "m.keras", {"Subclassed": Subclassed})(X), model(X))


def test_a_layer_that_keras_3_lacks_is_adopted(tmp_path):
    inputs = tf_keras().Input((8, 1))
    model = tf_keras().Model(inputs, TFK.Flatten()(TFK.LocallyConnected1D(2, 3)(inputs)))
    model.save(tmp_path / "m.keras")
    with pytest.warns(UserWarning, match="LocallyConnected1D"):
        loaded = load_model(tmp_path / "m.keras")
    assert isinstance(loaded, AdoptedModel)
    np.testing.assert_array_equal(loaded(X[..., None]), model(X[..., None]))


def with_config(path, change):
    """Changes the config in an .h5 file."""
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        change(config)
        file.attrs["model_config"] = json.dumps(config)


def a_layer(config):
    return config["config"]["layers"][1]


def link_elsewhere(path):
    with h5py.File(path, "r+") as file:
        name = next(iter(file["model_weights"]))
        del file["model_weights"][name]
        file["model_weights"][name] = h5py.ExternalLink("/etc/passwd", "/")


def values_elsewhere(path):
    with h5py.File(path, "r+") as file:
        file["model_weights"].create_dataset("x", (4,), "u1", external=[("/etc/passwd", 0, 4)])


def no_table(path):
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("assets/vocabulary.txt", "a\nb\n")


def no_config(path):
    with h5py.File(path, "r+") as file:
        del file.attrs["model_config"]


# Row -> (file, what is done to it, what the error says).
REFUSED = {
    "another module's function": (
        "h5",
        lambda p: with_config(
            p,
            lambda c: a_layer(c)["config"].update(
                activation={"module": "os", "class_name": "function", "config": "system", "registered_name": "system"}
            ),
        ),
        "os.system",
    ),
    "another module's class": (
        "h5",
        lambda p: with_config(p, lambda c: a_layer(c).update(class_name="Popen", module="subprocess")),
        "subprocess.Popen",
    ),
    "a lambda": (
        "h5",
        lambda p: with_config(
            p,
            lambda c: a_layer(c).update(
                class_name="Lambda", config={"name": "l", "function": ["x", None, None], "function_type": "lambda"}
            ),
        ),
        "a Lambda layer with Python code",
    ),
    "weights in another file": ("h5", link_elsewhere, "/etc/passwd"),
    "values in another file": ("h5", values_elsewhere, "in another file"),
    "weights alone": ("h5", no_config, "holds weights alone"),
    "half a file": ("h5", lambda p: p.write_bytes(p.read_bytes()[:4000]), "cannot be loaded"),
    "half a zip": ("keras", lambda p: p.write_bytes(p.read_bytes()[:4000]), "cannot be loaded"),
    "lookup tables": ("keras", no_table, "run those in the data pipeline"),
    "text": ("keras", lambda p: p.write_text("hello"), "is no saved model"),
    "a .tflite file": ("keras", lambda p: p.write_bytes(b"\x1c\0\0\0TFL3" + bytes(40)), "is a .tflite file"),
}


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
@pytest.mark.parametrize("row", REFUSED)
def test_what_is_refused(tmp_path, row):
    form, change, said = REFUSED[row]
    path = saved(of_keras_2(), tmp_path, form)
    change(path)
    with pytest.raises(ModelError, match=said):
        load_model(path)


def test_a_missing_file(tmp_path):
    (tmp_path / "student.keras").touch()
    with pytest.raises(ConfigurationError, match=r"Nearest: 'student\.keras'"):
        load_model(tmp_path / "studnet.keras")


def test_programs_without_layers(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"no saved_model\.pb"):
        load_model(tmp_path / "empty")
    mlp(3).export(tmp_path / "exported", verbose=False)
    with pytest.raises(ModelError, match="SavedModelTeacher"):
        load_model(tmp_path / "exported")


def one(layer, *shapes, dtype="float32"):
    """A tf_keras model of one layer."""
    inputs = [tf_keras().Input(shape, dtype=dtype) for shape in shapes]
    return tf_keras().Model(inputs[0] if len(inputs) == 1 else inputs, layer(inputs[0] if len(inputs) == 1 else inputs))


def attention():
    query, value = tf_keras().Input((5, 8)), tf_keras().Input((7, 8))
    return tf_keras().Model([query, value], TFK.MultiHeadAttention(2, 4)(query, value))


def masked():
    tokens = tf_keras().Input((7,), dtype="int32")
    return tf_keras().Model(tokens, TFK.LSTM(4)(TFK.Embedding(11, 6, mask_zero=True)(tokens)))


def operations():
    x = tf_keras().Input((6, 4))
    y = tf.reduce_mean(tf.nn.relu(x + 1.0) * 2.0, axis=1)
    y = tf.reshape(tf.concat([y, y], axis=-1), (-1, 2, 4))[:, 0]
    y = tf.transpose(tf.expand_dims(3.0 - y, 1), (0, 2, 1))
    return tf_keras().Model(x, tf.clip_by_value(y / 2.0, 0.0, 1.0) + tf.cast(y > 0, tf.float32))


def nested():
    inner = tf_keras().Sequential([tf_keras().Input((4,)), TFK.Dense(3, activation="relu")], name="inner")
    inner.trainable = False
    x = tf_keras().Input((6, 4), name="x")
    y = TFK.Bidirectional(TFK.GRU(3, return_sequences=True))(TFK.TimeDistributed(inner)(x))
    return tf_keras().Model({"x": x}, {"out": y})


def normalization():
    layer = TFK.Normalization()
    layer.adapt(np.random.default_rng(0).normal(3.0, 2.0, (50, 6)).astype("float32"))
    return one(layer, (6,))


MODELS = {
    "Dense": lambda: one(TFK.Dense(3, activation="gelu", kernel_constraint="max_norm"), (6,)),
    "a layer as activation": lambda: one(TFK.Dense(3, activation=TFK.LeakyReLU(0.3)), (6,)),
    "LayerNormalization": lambda: one(TFK.LayerNormalization(), (8, 4)),
    "SeparableConv2D": lambda: one(TFK.SeparableConv2D(5, 3), (8, 8, 4)),
    "DepthwiseConv2D": lambda: one(TFK.DepthwiseConv2D(3, depth_multiplier=2), (8, 8, 4)),
    "Conv2DTranspose": lambda: one(TFK.Conv2DTranspose(3, 3, strides=2), (8, 8, 4)),
    "PReLU": lambda: one(TFK.PReLU(), (6,)),
    "Rescaling": lambda: one(TFK.Rescaling(1 / 255.0, -1), (6,)),
    "GRU of before": lambda: one(TFK.GRU(4, reset_after=False), (8, 6)),
    "cells": lambda: one(TFK.RNN([TFK.LSTMCell(4), TFK.GRUCell(3)]), (8, 6)),
    "Bidirectional": lambda: one(TFK.Bidirectional(TFK.LSTM(4), merge_mode="sum"), (8, 6)),
    "Add": lambda: one(TFK.Add(), (6,), (6,)),
    "SpatialDropout1D": lambda: one(TFK.SpatialDropout1D(0.2), (3, 3)),
    "mixed_float16": lambda: one(TFK.Dense(3, dtype="mixed_float16"), (6,)),
    "attention": attention,
    "masks": masked,
    "operations": operations,
    "nested models": nested,
    "Normalization": normalization,
}


@pytest.mark.parametrize("row", MODELS)
def test_tf_keras_models_without_an_original(row):
    model = MODELS[row]()
    rng = np.random.default_rng(1)
    for weight in model.weights if row != "Normalization" else ():
        weight.assign(tf.cast(rng.uniform(0.1, 0.5, weight.shape), weight.dtype))
    made = to_keras(model)  # compares the two, layer by layer
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), made.get_weights(), strict=True))
    assert len(made.trainable_weights) == len(model.trainable_weights)
    assert made.count_params() == model.count_params()
    keras.models.clone_model(made)  # its config is whole


LACKING = {
    "a class": (lambda: one(TFK.ThresholdedReLU(), (3,)), "ThresholdedReLU"),
    "an activation": (lambda: one(TFK.Dense(3, activation="hard_sigmoid"), (3,)), "hard_sigmoid"),
    "a setting": (lambda: one(TFK.LSTM(2, time_major=True), (4, 3)), "time_major=True"),
    "a lambda": (lambda: one(TFK.Lambda(lambda x: x), (3,)), "a Python function"),
    "an operation": (lambda: tf_keras().Model(i := tf_keras().Input((3,)), tf.math.bessel_i0(i)), "bessel_i0"),
}


@pytest.mark.parametrize("row", LACKING)
def test_what_keras_3_lacks_can_be_adopted_as_the_error_says(row):
    make, said = LACKING[row]
    model = make()
    with pytest.raises(BridgeError, match=said) as error:
        to_keras(model)
    assert "tfdistill.adopt(model)" in str(error.value)
    x = np.random.default_rng(0).normal(size=(4, *model.input_shape[1:])).astype("float32")
    np.testing.assert_array_equal(adopt(model)(x), model(x))


def test_to_keras_wants_a_tf_keras_model():
    with pytest.raises(ModelError, match="use it as it is"):
        to_keras(mlp(3))


NETS = ["ad01", "kws_model", "pretrainedResnet", "str_ww_ref_model", "vww_96"]


@pytest.mark.parametrize("net", NETS)
def test_the_trained_nets_of_mlperf_tiny(net):
    path = pathlib.Path(os.environ["TFDISTILL_MLPERF_TINY"]) / f"{net}.h5"
    original = tf_keras().models.load_model(path, compile=False)
    loaded = tfdistill.load_model(path)
    assert not isinstance(loaded, AdoptedModel)
    x = np.random.default_rng(0).random((4, *original.input_shape[1:])).astype("float32")
    assert all(np.array_equal(a, b) for a, b in zip(original.get_weights(), loaded.get_weights(), strict=True))
    np.testing.assert_allclose(loaded(x), original(x), atol=1e-6)
