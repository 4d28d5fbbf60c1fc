"""Small nets of five families that are trained for real, and faults to plant in their tf_keras copies."""

import contextlib

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from sklearn.datasets import load_digits

from tfdistill.bridge.convert.weights import copy_weights

CLASSES = 10


def digits():
    """Returns the 1,797 digits of scikit-learn as (1797, 8, 8, 1) in [0, 1], and their labels."""
    found = load_digits()
    return (found.images / 16.0).astype("float32")[..., None], found.target.astype("int32")


def _normalized(x, name, momentum=0.8, **settings):
    return layers.BatchNormalization(momentum=momentum, name=f"{name}_bn", **settings)(x)


def _convolved(x, filters, size, name, strides=1, kind=layers.Conv2D, activation="relu6"):
    arguments = (size,) if kind is layers.DepthwiseConv2D else (filters, size)
    x = _normalized(kind(*arguments, strides=strides, padding="same", use_bias=False, name=name)(x), name)
    return x if activation is None else layers.Activation(activation, name=f"{name}_{activation}")(x)


def _classified(inputs, x, name):
    return keras.Model(inputs, layers.Dense(CLASSES, name="logits")(layers.GlobalAveragePooling2D(name="pool")(x)), name=name)


def mobilenet_v1():
    inputs = keras.Input((8, 8, 1), name="image")
    x = _convolved(inputs, 8, 3, "stem")
    for i, filters in enumerate((12, 16, 24)):
        x = _convolved(x, None, 3, f"depthwise_{i}", strides=1 + i % 2, kind=layers.DepthwiseConv2D)
        x = _convolved(x, filters, 1, f"pointwise_{i}")
    return _classified(inputs, x, "mobilenet_v1")


def mobilenet_v2():
    inputs = keras.Input((8, 8, 1), name="image")
    x = _convolved(inputs, 8, 3, "stem")
    for i, filters in enumerate((8, 12, 12)):
        before = x
        x = _convolved(x, 4 * x.shape[-1], 1, f"expand_{i}")
        if i == 1:
            x = layers.ZeroPadding2D(((0, 1), (0, 1)), name="pad")(x)
            x = layers.DepthwiseConv2D(3, strides=2, use_bias=False, name="depthwise_1")(x)
            x = layers.ReLU(6.0, name="depthwise_1_relu6")(_normalized(x, "depthwise_1"))
        else:
            x = _convolved(x, None, 3, f"depthwise_{i}", kind=layers.DepthwiseConv2D)
        x = _convolved(x, filters, 1, f"project_{i}", activation=None)
        x = layers.Add(name=f"add_{i}")([before, x]) if before.shape == x.shape else x
    return _classified(inputs, x, "mobilenet_v2")


def resnet():
    inputs = keras.Input((8, 8, 1), name="image")
    x = _convolved(inputs, 12, 3, "stem", activation="relu")
    for i in range(2):
        y = _convolved(x, 12, 3, f"block_{i}_a", activation="relu")
        y = layers.Conv2D(12, 3, padding="same", name=f"block_{i}_b")(y)
        x = layers.ReLU(name=f"block_{i}_relu")(layers.Add(name=f"add_{i}")([x, _normalized(y, f"block_{i}_b", epsilon=1e-5)]))
    return _classified(inputs, x, "resnet")


def efficientnet():
    inputs = keras.Input((8, 8, 1), name="image")
    x = _convolved(inputs, 8, 3, "stem", activation="silu")
    for i in range(2):
        before = x
        x = _convolved(x, 24, 1, f"expand_{i}", activation="silu")
        x = _convolved(x, None, 3, f"depthwise_{i}", kind=layers.DepthwiseConv2D, activation="silu")
        gate = layers.GlobalAveragePooling2D(keepdims=True, name=f"squeeze_{i}")(x)
        gate = layers.Conv2D(4, 1, activation="silu", name=f"reduce_{i}")(gate)
        x = layers.Multiply(name=f"excite_{i}")([x, layers.Conv2D(24, 1, activation="sigmoid", name=f"gate_{i}")(gate)])
        x = layers.Add(name=f"add_{i}")([before, _convolved(x, 8, 1, f"project_{i}", activation=None)])
    return _classified(inputs, x, "efficientnet")


def vit():
    inputs = keras.Input((8, 8, 1), name="image")
    x = layers.Reshape((16, 16), name="tokens")(layers.Conv2D(16, 2, strides=2, name="patches")(inputs))
    for i in range(2):
        y = layers.LayerNormalization(epsilon=1e-6, name=f"norm_{i}_a")(x)
        x = layers.Add(name=f"add_{i}_a")([x, layers.MultiHeadAttention(2, 8, name=f"attention_{i}")(y, y)])
        y = layers.Dense(32, activation="gelu", name=f"hidden_{i}")(layers.LayerNormalization(epsilon=1e-6, name=f"norm_{i}_b")(x))
        x = layers.Add(name=f"add_{i}_b")([x, layers.Dense(16, name=f"out_{i}")(y)])
    x = layers.GlobalAveragePooling1D(name="pool")(layers.LayerNormalization(name="last_norm")(x))
    return keras.Model(inputs, layers.Dense(CLASSES, name="logits")(x), name="vit")


FAMILIES = {make.__name__: make for make in (mobilenet_v1, mobilenet_v2, resnet, efficientnet, vit)}


def checkpoints(model, count, learning_rate, samples=640, batch_size=64):
    """Trains a model on the digits at a learning rate that is too high, and yields after each of `count` parts of the training."""
    x, y = digits()
    model.compile(keras.optimizers.SGD(learning_rate, 0.9, clipnorm=1.0), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    for _ in range(count):
        model.fit(x[:samples], y[:samples], batch_size=batch_size, verbose=0)
        yield model


def copy_into(model, rebuilt):
    """Gives a tf_keras copy the weights that the model has now."""
    for layer in model.layers:
        copy_weights(layer.weights, rebuilt.get_layer(layer.name).weights, layer.name)


def _weight(name, change):
    def plant(layer, rng):
        variable = next(w for w in layer.weights if w.name.split(":")[0].endswith(name))
        value = variable.numpy()
        variable.assign(change(value, rng))
        return not np.array_equal(value, variable.numpy())

    return plant


def _one(by):
    def change(value, rng):
        value = value.copy()
        value[tuple(rng.integers(0, n) for n in value.shape)] += by * np.abs(value).max()
        return value

    return change


def _swapped(axis):
    def change(value, rng):
        order = np.arange(value.shape[axis])
        order[[0, -1]] = order[[-1, 0]]
        return np.take(value, order, axis)

    return change


def _setting(name, change):
    def plant(layer, rng):
        setattr(layer, name, change(getattr(layer, name)))
        return True

    return plant


def _activation(function):
    def plant(layer, rng):
        layer.activation = function
        return True

    return plant


_NORMALIZATIONS = ("BatchNormalization", "LayerNormalization")
_KERNELS = ("Conv2D", "Dense")
# Name -> (classes of layers that it can be planted in, how).
FAULTS = {
    "one weight 1 % of the largest off": (_KERNELS, _weight("kernel", _one(0.01))),
    "one filter weight off": (("DepthwiseConv2D", "Conv2D"), _weight("kernel", _one(0.01))),
    "one weight of attention off": (("MultiHeadAttention",), _weight("key/kernel", _one(0.01))),
    "output channels swapped": (_KERNELS, _weight("kernel", _swapped(-1))),
    "input channels swapped": (("Conv2D", "Dense", "DepthwiseConv2D"), _weight("kernel", _swapped(-2))),
    "heads swapped": (("MultiHeadAttention",), _weight("query/kernel", _swapped(1))),
    "axes permuted": (("DepthwiseConv2D", "Conv2D"), _weight("kernel", lambda value, rng: value.swapaxes(0, 1))),
    "bias missing": (_KERNELS, _weight("bias", lambda value, rng: np.zeros_like(value))),
    "gamma off": (_NORMALIZATIONS, _weight("gamma", _one(0.01))),
    "beta off": (_NORMALIZATIONS, _weight("beta", _one(0.01))),
    "mean of the start": (("BatchNormalization",), _weight("moving_mean", lambda value, rng: np.zeros_like(value))),
    "variance of the start": (("BatchNormalization",), _weight("moving_variance", lambda value, rng: np.ones_like(value))),
    "mean off": (("BatchNormalization",), _weight("moving_mean", _one(0.01))),
    "variance off": (("BatchNormalization",), _weight("moving_variance", _one(0.01))),
    "epsilon ten times": (_NORMALIZATIONS, _setting("epsilon", lambda value: 10.0 * value)),
    "another activation": (("Activation", "Dense", "Conv2D"), _activation(tf.math.tanh)),
    "relu for relu6": (("Activation",), _activation(tf.nn.relu)),
    "the approximation of gelu": (("Dense",), _activation(lambda x: tf.nn.gelu(x, approximate=True))),
    "another largest value": (("ReLU",), _setting("max_value", lambda value: 5.0)),
    "padding at the other side": (("ZeroPadding2D",), _setting("padding", lambda value: ((1, 0), (1, 0)))),
}


def places(rebuilt):
    """Lists (fault, layer name) of what can be planted in a tf_keras model."""
    found = []
    for fault, (kinds, _) in FAULTS.items():
        for layer in rebuilt.layers:
            activation = getattr(getattr(layer, "activation", None), "__name__", None)
            fits = type(layer).__name__ in kinds
            fits = fits and ("bias" not in fault or layer.bias is not None)
            fits = fits and (fault != "relu for relu6" or activation == "relu6")
            fits = fits and ("gelu" not in fault or activation == "gelu")
            fits = fits and (fault not in ("axes permuted", "one filter weight off") or layer.kernel_size[0] > 1)
            if fits:
                found.append((fault, layer.name))
    return found


@contextlib.contextmanager
def planted(rebuilt, fault, name, rng):
    """While open, a layer of a tf_keras model is wrong. Yields whether it really is: a bias of zeros cannot be left out."""
    layer = rebuilt.get_layer(name)
    weights = layer.get_weights()
    settings = {key: getattr(layer, key) for key in ("epsilon", "activation", "max_value", "padding") if hasattr(layer, key)}
    try:
        yield FAULTS[fault][1](layer, rng)
    finally:
        layer.set_weights(weights)
        for key, value in settings.items():
            setattr(layer, key, value)
