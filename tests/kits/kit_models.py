"""Small files of every kind that a kit is made of, each exported once."""

import functools
import pathlib
import tempfile

import keras
import numpy as np

import tfdistill
from tfdistill.kits.devices import DEVICES
from tfdistill.tflite import FileMetadata, Normalization

LABELS = ("boot", "bag", "coat", "dress", "pullover", "sandal", "shirt", "sneaker", "top", "trousers")
ABOUT = FileMetadata(name="Ten things", author="Ada", license="Apache-2.0", labels=LABELS, normalization=Normalization(0, 1))
ROOT = pathlib.Path(tfdistill.__path__[0]).parent
# Devices whose files are here; each is one of `DEVICES`.
HERE = tuple(
    name for name in DEVICES if (ROOT / "tfdistill" / "kits" / "devices" / f"{name}.py").is_file() and (ROOT / "export" / name).is_dir()
)


@functools.cache
def _folder():
    return pathlib.Path(tempfile.mkdtemp())


def pixels(count=32, size=16, channels=3):
    x = np.random.default_rng(0).uniform(0, 255, (count, size, size, channels)).astype("float32")
    x[0], x[1] = 0, 255
    return x


def _classifier(ending, channels=3):
    keras.utils.set_random_seed(1 if channels == 3 else 7)
    inputs = keras.Input((16, 16, channels), name="image")
    x = keras.layers.Rescaling(1 / 127.5, -1)(inputs)
    x = keras.layers.Conv2D(6, 3, strides=2, activation="relu")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    outputs = keras.layers.Dense(10, name="scores", activation=ending, kernel_initializer=keras.initializers.RandomNormal(stddev=1.0))(x)
    return keras.Model(inputs, outputs)


def _image(variant, io="auto", ending=None, metadata=ABOUT, channels=3):
    def export(path):
        x = pixels(channels=channels)
        tfdistill.export_tflite(_classifier(ending, channels), path, variant, calibration=x, io=io, metadata=metadata)

    return export


def _features(path):
    inputs = [keras.Input((5,), name="left"), keras.Input((3,), name="right")]
    joined = keras.layers.Concatenate()(inputs)
    outputs = {"angle": keras.layers.Dense(2, name="angle")(joined), "speed": keras.layers.Dense(1, name="speed")(joined)}
    tfdistill.export_tflite(keras.Model(inputs, outputs), path)


def _dense(variant):
    def export(path):
        inputs = keras.Input((40,), name="features")
        x = keras.layers.Dense(48, "relu")(inputs)  # the converter leaves smaller weights in floats
        tfdistill.export_tflite(keras.Model(inputs, keras.layers.Dense(2, name="scores")(x)), path, variant)

    return export


def _tokens(path):
    inputs = keras.Input((6,), dtype="int32", name="tokens")
    x = keras.layers.GlobalAveragePooling1D()(keras.layers.Embedding(20, 4)(inputs))
    tfdistill.export_tflite(keras.Model(inputs, keras.layers.Dense(3, name="kind")(x)), path)


def streaming_net():
    """A net of a window that moves on by one row in each run: the window is its state."""
    keras.utils.set_random_seed(2)
    window, row = keras.Input((3, 4), name="window"), keras.Input((1, 4), name="row")
    moved = keras.layers.Concatenate(axis=1, name="moved")([window[:, 1:], row])
    scores = keras.layers.Dense(3, name="scores")(keras.layers.Flatten()(moved))
    return keras.Model([window, row], {"scores": scores, "moved": moved})


def _streaming(variant):
    def export(path):
        rng = np.random.default_rng(0)
        data = {name: rng.uniform(-1, 1, (40, rows, 4)).astype("float32") for name, rows in (("window", 3), ("row", 1))}
        for array in data.values():  # one range, so that state and input have one scale
            array[0], array[1] = -1, 1
        tfdistill.export_tflite(streaming_net(), path, variant, calibration=data)

    return export


def _any_size(path):
    inputs = keras.Input((None, None, 3), name="image")
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(inputs))
    tfdistill.export_tflite(keras.Model(inputs, keras.layers.Dense(2)(x)), path, batch_size=None, verify_on=pixels(4))


STATES = {"window": "moved"}
# Name of a file -> function of a path that writes it.
FILES = {
    "int8": _image("int8"),
    "uint8": _image("int8", io="uint8"),
    "int8 with float inputs": _image("int8", io="float32"),
    "softmax": _image("int8", io="uint8", ending="softmax"),
    "sigmoid": _image("int8", io="uint8", ending="sigmoid"),
    "gray": _image("int8", io="uint8", channels=1),
    "float32": _image("float32"),
    "dynamic_range": _dense("dynamic_range"),
    "unlabelled": _image("int8", metadata=None),
    "features": _features,
    "tokens": _tokens,
    "streaming": _streaming("float32"),
    "streaming int8": _streaming("int8"),
    "any size": _any_size,
}


@functools.cache
def file_of(name):
    """Returns the path of a file of `FILES`."""
    path = _folder() / f"{name.replace(' ', '_')}.tflite"
    FILES[name](path)
    return path


def arguments_of(name):
    """Returns the arguments of `kit` that a file needs beside the device."""
    return {"states": STATES} if name.startswith("streaming") else {}


@functools.cache
def kit_of(name, device):
    """Returns the `KitRecord` of a file and a device."""
    folder = pathlib.Path(tempfile.mkdtemp()) / "kit"
    return tfdistill.kit(file_of(name), device, folder, **arguments_of(name))
