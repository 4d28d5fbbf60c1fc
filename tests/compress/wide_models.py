"""Small models for activations of 16 bits: each with an operation whose int16 form differs from its int8 one in its own way."""

import functools

import keras
import numpy as np

L, ops = keras.layers, keras.ops


def _image(size=8, channels=4):
    return keras.Input((size, size, channels), name="image")


def _headed(inputs, x):
    if len(x.shape) > 2:
        x = L.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, L.Dense(3, name="head")(x))


def _conv(x, name="conv", **settings):
    return L.Conv2D(8, 3, padding="same", name=name, **settings)(x)


def _of_image(part):
    def make():
        inputs = _image()
        return _headed(inputs, part(_conv(inputs)))

    return make


def _of_two(part):
    def make():
        inputs = _image()
        return _headed(inputs, part(_conv(inputs, "left"), _conv(inputs, "right", activation="relu")))

    return make


def _dense(activation=None):
    inputs = keras.Input((6,), name="x")
    return keras.Model(inputs, L.Dense(3, name="head")(L.Dense(8, activation=activation, name="hidden")(inputs)))


def _attention():
    inputs = keras.Input((6, 8), name="tokens")
    x = L.Add(name="add")([inputs, L.MultiHeadAttention(2, 4, name="attention")(inputs, inputs)])
    return keras.Model(inputs, L.Dense(3, name="head")(L.GlobalAveragePooling1D(name="mean")(L.LayerNormalization(name="norm")(x))))


MODELS = {
    "conv": _of_image(lambda x: x),
    "relu": _of_image(L.ReLU(name="act")),
    "relu6": _of_image(L.ReLU(6.0, name="act")),
    "folded": _of_image(lambda x: L.ReLU(name="act")(L.BatchNormalization(name="norm")(x))),
    "depthwise": _of_image(L.DepthwiseConv2D(3, padding="same", name="depthwise")),
    "transposed": _of_image(L.Conv2DTranspose(4, 3, strides=2, name="transposed")),
    "hard_silu": _of_image(L.Activation("hard_silu", name="act")),
    "silu": _of_image(L.Activation("silu", name="act")),
    "gelu": _of_image(L.Activation("gelu", name="act")),
    "leaky": _of_image(L.LeakyReLU(0.2, name="act")),
    "sigmoid": _of_image(L.Activation("sigmoid", name="act")),
    "tanh": _of_image(L.Activation("tanh", name="act")),
    "max pool": _of_image(L.MaxPooling2D(name="max")),
    "average pool": _of_image(L.AveragePooling2D(2, name="average")),
    "resized": _of_image(lambda x: L.UpSampling2D(interpolation="bilinear", name="bilinear")(L.UpSampling2D(name="nearest")(x))),
    "padded and cropped": _of_image(lambda x: L.Cropping2D(1, name="crop")(L.ZeroPadding2D(2, name="pad")(x))),
    "permuted": _of_image(lambda x: L.Flatten(name="flat")(L.Permute((2, 1, 3), name="permute")(x))),
    "add": _of_two(lambda a, b: L.Add(name="add")([a, b])),
    "subtract": _of_two(lambda a, b: L.Subtract(name="subtract")([a, b])),
    "multiply": _of_two(lambda a, b: L.Multiply(name="multiply")([a, b])),
    "concatenate": _of_two(lambda a, b: L.Concatenate(name="both")([a, b])),
    "maximum": _of_two(lambda a, b: L.Maximum(name="maximum")([a, b])),
    "dense": _dense,
    "dense relu": functools.partial(_dense, "relu"),
    "dense tanh": functools.partial(_dense, "tanh"),
    "attention": _attention,
}


@functools.cache
def model(name):
    keras.utils.set_random_seed(0)
    made = MODELS[name]()
    rng = np.random.default_rng(0)
    for layer in made.layers:
        if isinstance(layer, L.BatchNormalization):
            layer.moving_mean.assign(rng.uniform(-0.3, 0.3, layer.moving_mean.shape))
            layer.moving_variance.assign(rng.uniform(0.3, 1.5, layer.moving_variance.shape))
    return made


def data(name, count=48):
    return np.random.default_rng(1).normal(size=(count, *model(name).inputs[0].shape[1:])).astype("float32")
