"""Small .tflite files that tests share, made once for each process."""

import pathlib

import keras
import numpy as np
from process_folder import FOLDER

import tfdistill

CLASSES = 10


def int8_file(io="auto"):
    """A classifier of 8x8 grey images in [0, 1] with an input `image` and ten `logits`, int8: convolutions, a depthwise one, pooling and a dense layer."""
    path = pathlib.Path(FOLDER.name, f"int8_{io}.tflite")
    if path.exists():
        return str(path)
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((8, 8, 1), name="image")
    x = keras.layers.Conv2D(8, 3, padding="same", activation="relu")(x)
    x = keras.layers.DepthwiseConv2D(3, padding="same", activation="relu")(x)
    x = keras.layers.MaxPooling2D()(x)
    x = keras.layers.Flatten()(x)
    model = keras.Model(inputs, keras.layers.Dense(CLASSES, name="logits")(x))
    images = np.random.default_rng(0).random((64, 8, 8, 1), dtype="float32")
    tfdistill.export_tflite(model, path, "int8", calibration=images, io=io)
    return str(path)


def free_file():
    """A float32 file with an input `x` of shape (batch, any, 4) and an output `y`."""
    path = pathlib.Path(FOLDER.name, "free.tflite")
    if path.exists():
        return str(path)
    inputs = keras.Input((None, 4), name="x")
    x = keras.layers.Dense(3)(inputs)
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling1D(name="y")(x))
    tfdistill.export_tflite(model, path, verify_on=np.ones((4, 5, 4), "float32"), batch_size=None)
    return str(path)
