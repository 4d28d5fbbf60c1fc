"""Models whose files are read by programs of others, and their data."""

import keras
import numpy as np

L = keras.layers
RNG = np.random.default_rng(0)
# Of different colors, so that not all are of one class.
IMAGES = (RNG.uniform(size=(100, 1, 1, 3)) * RNG.uniform(0.7, 1, (100, 16, 16, 3))).astype("float32")
SERIES = RNG.normal(size=(100, 20, 8)).astype("float32")


def head(classes, activation=None):
    """Scores that are far apart, as those of a trained model are."""
    return L.Dense(classes, activation, kernel_initializer=keras.initializers.RandomNormal(stddev=2.0), name="scores")


def images():
    inputs = keras.Input((16, 16, 3), name="image")
    h = L.BatchNormalization()(L.Conv2D(8, 3, strides=2, activation="relu")(inputs))
    h = L.Conv2D(16, 1, activation="relu6")(L.DepthwiseConv2D(3, padding="same")(h))
    h = L.Add()([h, L.Conv2D(16, 3, padding="same", activation="silu")(h)])
    return keras.Model(inputs, head(5, "softmax")(L.GlobalAveragePooling2D()(h)))


def recurrent():
    """As integers every step is written out: tensors of many steps have names of their own, by which OpenVINO tells them apart."""
    inputs = keras.Input((20, 8), name="series")
    return keras.Model(inputs, head(3)(L.LSTM(4)(inputs)))


def attention():
    inputs = keras.Input((20, 8), name="series")
    h = L.LayerNormalization()(L.Add()([inputs, L.MultiHeadAttention(2, 4)(inputs, inputs)]))
    return keras.Model(inputs, head(3)(L.GlobalAveragePooling1D()(L.Dense(8, activation="gelu")(h))))
