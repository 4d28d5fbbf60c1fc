"""Small models, each with one fault that `check` finds, and the same without it."""

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

import tfdistill
from tfdistill.bridge import to_tf_keras

RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 8)).astype("float32")
# One feature has a thousand times the spread of the others.
WEATHER = np.where(np.arange(8) == 2, 1000 * X, X)


@keras.saving.register_keras_serializable("tests")
class PythonTanh(layers.Layer):
    """Computes in Python what `keras.ops.tanh` computes."""

    def call(self, inputs):
        outputs = tf.numpy_function(np.tanh, [inputs], tf.float32)
        outputs.set_shape(inputs.shape)
        return outputs

    def compute_output_shape(self, input_shape):
        return input_shape


@keras.saving.register_keras_serializable("tests")
class Settling(layers.Layer):
    """Adds a tensor again and again, in a loop of the graph or of Python."""

    def __init__(self, written_out=False, **kwargs):
        super().__init__(**kwargs)
        self.written_out = written_out

    def call(self, inputs):
        def step(i, x):
            return ops.tanh(x + inputs)

        if not self.written_out:
            return ops.fori_loop(0, 3, step, inputs)
        x = inputs
        for i in range(3):
            x = step(i, x)
        return x

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "written_out": self.written_out}


@keras.saving.register_keras_serializable("tests")
class TwoArguments(keras.Model):
    """A model whose call takes two arguments."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(8)

    def call(self, left, right):
        return self.dense(left + right)


def chain(*stack, shape=(8,), dtype=None):
    return keras.Sequential([keras.Input(shape, name="x", dtype=dtype), *stack], name="chain")


def between(function):
    """A net with a function between two dense layers; what computes it is called as Keras calls it."""
    inputs = keras.Input((8,), name="x")
    return keras.Model(inputs, layers.Dense(3, name="last")(function(layers.Dense(8, name="first")(inputs))), name="between")


def recurrent(kind=layers.GRU, steps=None, **settings):
    return chain(kind(8, name="loop", **settings), layers.Dense(8), shape=(steps, 4))


def log(floor):
    return between(lambda x: ops.log(ops.relu(x) + floor if floor else x - 9.0))


def weights_of(value):
    model = chain(layers.Dense(8, name="broken"), layers.Dense(3))
    model.get_layer("broken").kernel.assign(np.full((8, 8), value))
    return model


def pairs():
    """A tf_keras model, adopted, that takes no batch of one."""
    made = between(layers.Lambda(lambda x: ops.reshape(x, (2, 16)), name="pairs"))
    return tfdistill.adopt(to_tf_keras(made, allow_lambda=True, check=False))


def of_bytes():
    inputs = keras.Input((8, 8, 3), dtype="uint8", name="image")
    x = layers.Flatten()(layers.Rescaling(1 / 255.0)(inputs))
    return keras.Model(inputs, layers.Dense(4)(x))


def looked_up():
    numbers = keras.Input((2,), dtype="int64")
    found = layers.IntegerLookup(vocabulary=[3, 7], name="lookup")(numbers)
    return keras.Model(numbers, layers.Dense(8)(layers.Flatten()(layers.Embedding(4, 8)(found))))


def two_arguments():
    model = TwoArguments(name="two")
    model(X, X)
    return model


def largest(layer):
    inputs = keras.Input((8,), name="x")
    return keras.Model(inputs, layers.Dense(3)(layer([layers.Dense(8, name=side)(inputs) for side in ("left", "right")])))


def first_step(pool):
    inputs = keras.Input((6, 8), name="x")
    x = layers.Dense(8)(inputs)
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling1D()(x) if pool else x[:, 0]))


def detector(scale=1.0, joined=True, activation="sigmoid"):
    """Boxes and scores, in one output or in two."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8,), name="x")
    x = layers.Dense(16, activation="relu")(inputs)
    layer = layers.Dense(4, name="boxes")
    boxes = layer(x)
    layer.kernel.assign(layer.kernel * scale)
    scores = layers.Dense(3, activation=activation, name="scores")(x)
    outputs = layers.Concatenate(name="heads")([boxes, layers.Dropout(0.5)(scores)]) if joined else {"boxes": boxes, "scores": scores}
    return keras.Model(inputs, outputs, name="detector")


def normalizing(mean, variance):
    normalization = layers.Normalization(axis=-1, mean=mean, variance=variance, name="normalization")
    return chain(normalization, layers.Dense(8), shape=(2,))


def apart():
    """One input for features of one unit, and one for the feature of another."""
    inputs = [keras.Input((7,), name="others"), keras.Input((1,), name="third")]
    return keras.Model(inputs, layers.Dense(8)(layers.Concatenate()(inputs)))


def attending():
    inputs = keras.Input((6, 8), name="x")
    x = layers.LayerNormalization(name="norm")(layers.MultiHeadAttention(2, 4, name="attention")(inputs, inputs))
    x = layers.Dense(8, activation="gelu", name="wide")(x)
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)), name="attending")
