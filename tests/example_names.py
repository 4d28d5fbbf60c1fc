"""What the examples in docstrings may use without defining it, and the files in the folder in which they run."""

import functools
import pathlib
import shutil
import tempfile

import keras
import numpy as np

import tfdistill

CLASSES = 10


def classifier(filters, name):
    """An image classifier with logits; its layers are called conv, norm, pool and logits."""
    inputs = keras.Input((8, 8, 1), name="image")
    x = keras.layers.Conv2D(filters, 3, padding="same", name="conv")(inputs)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.ReLU(name="relu")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, keras.layers.Dense(CLASSES, name="logits")(x), name=name)


def images():
    """64 images of floats, and their integer labels."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(64, 8, 8, 1)).astype("float32"), rng.integers(0, CLASSES, 64).astype("int32")


def names():
    """The names: the usual imports; a `teacher` and a `student`, both built and not compiled; images `x` and labels `y`."""
    x, y = images()
    return {
        "keras": keras,
        "np": np,
        "tfdistill": tfdistill,
        "teacher": classifier(16, "teacher"),
        "student": classifier(8, "student"),
        "x": x,
        "y": y,
    }


@functools.cache
def _files():
    folder = pathlib.Path(tempfile.mkdtemp())
    classifier(16, "teacher").save(folder / "teacher.keras")
    student = classifier(8, "student")
    student.save(folder / "student.keras")
    tfdistill.export_tflite(student, folder / "student.tflite", variant="int8", calibration=images()[0])
    return folder


def put_files(folder):
    """Puts teacher.keras, student.keras and student.tflite (int8) into a folder."""
    for path in _files().iterdir():
        shutil.copy(path, folder)
