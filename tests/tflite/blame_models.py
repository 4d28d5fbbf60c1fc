"""Five small models whose layers fuse in different ways, with normalizations that have seen data, and faults that are planted into their files."""

import functools
import pathlib
import tempfile
import typing

import keras
import numpy as np

from tfdistill.bridge.adopt import introspection
from tfdistill.bridge.wrappers.quantization import is_quantized_layer
from tfdistill.compress import Quantize
from tfdistill.tflite import Tolerances, export_tflite

L = keras.layers
SAMPLES = 64


def convnet():
    inputs = keras.Input((8, 8, 1), name="image")
    x = inputs
    for number in "12":
        x = L.Conv2D(8, 3, padding="same", use_bias=number == "1", name=f"conv{number}")(x)
        x = L.ReLU(name=f"relu{number}")(L.BatchNormalization(name=f"norm{number}")(x))
    return keras.Model(inputs, L.Dense(10, name="logits")(L.GlobalAveragePooling2D(name="pool")(x)), name="convnet")


def residual():
    inputs = keras.Input((8, 8, 2), name="image")
    x = L.ReLU(name="stem_relu")(L.BatchNormalization(name="stem_norm")(L.Conv2D(8, 3, padding="same", name="stem")(inputs)))
    y = L.BatchNormalization(name="dw_norm")(L.DepthwiseConv2D(3, padding="same", name="dw")(x))
    y = L.BatchNormalization(name="project_norm")(L.Conv2D(8, 1, name="project")(L.Activation("relu6", name="dw_relu")(y)))
    x = L.MaxPooling2D(name="pool")(L.ReLU(name="out_relu")(L.Add(name="add")([x, y])))
    return keras.Model(inputs, L.Dense(5, activation="softmax", name="classes")(L.Flatten(name="flat")(x)), name="residual")


def perceptron():
    """The first normalization is folded into the dense layer before it, the second one stands alone."""
    stack = [L.Dense(16, name="hidden1"), L.BatchNormalization(name="norm1"), L.Activation("tanh", name="tanh")]
    stack += [L.Dense(16, activation="relu", name="hidden2"), L.BatchNormalization(name="norm2"), L.Dense(3, name="scores")]
    return keras.Sequential([keras.Input((12,), name="x"), *stack], name="perceptron")


def series():
    inputs = keras.Input((16, 3), name="series")
    x = L.BatchNormalization(name="norm")(L.Conv1D(8, 3, padding="same", name="conv")(inputs))
    x = L.Activation("silu", name="swish")(x)
    x = L.Add(name="residual")([x, L.MultiHeadAttention(2, 4, name="attention")(x, x)])
    x = L.GlobalAveragePooling1D(name="mean")(L.LayerNormalization(name="layer_norm")(x))
    return keras.Model(inputs, L.Dense(4, name="scores")(x), name="series")


def nested():
    """One encoder for two inputs, and two outputs."""
    tile = keras.Input((8, 8, 1), name="tile")
    x = L.Conv2D(6, 3, strides=2, padding="same", name="conv")(tile)
    x = L.ReLU(name="relu")(L.BatchNormalization(name="norm")(x))
    encoder = keras.Model(tile, L.GlobalMaxPooling2D(name="pool")(x), name="encoder")
    left, right = keras.Input((8, 8, 1), name="left"), keras.Input((8, 8, 1), name="right")
    x = L.Concatenate(name="both")([encoder(left), encoder(right)])
    return keras.Model([left, right], [L.Dense(4, name="classes")(x), L.Dense(2, activation="sigmoid", name="flags")(x)], name="nested")


class Planted(typing.NamedTuple):
    """A model, and where its faults are planted.

    Attributes:
        make: Function that builds it.
        coarse: Path of the layer whose output gets a scale ten times too coarse.
        stale: Path of the normalization whose statistics are stale, and the name of the row that it belongs to.
        rows: Name of each row of an int8 file -> the layers that it stands for.
    """

    make: typing.Callable
    coarse: str
    stale: tuple[str, str]
    rows: dict[str, tuple[str, ...]]


def _fused(*groups):
    return {group[-1]: group for group in groups}


PLANTED = {
    "convnet": Planted(
        convnet,
        "relu2",
        ("norm2", "relu2"),
        _fused(("conv1", "norm1", "relu1"), ("conv2", "norm2", "relu2"), ("pool",), ("logits",)),
    ),
    "residual": Planted(
        residual,
        "project_norm",
        ("dw_norm", "dw_relu"),
        _fused(
            ("stem", "stem_norm", "stem_relu"),
            ("dw", "dw_norm", "dw_relu"),
            ("project", "project_norm"),
            *(("add", "out_relu"), ("pool",), ("flat",), ("classes",)),
        ),
    ),
    "perceptron": Planted(
        perceptron,
        "hidden2",
        ("norm1", "norm1"),
        _fused(("hidden1", "norm1"), ("tanh",), ("hidden2",), ("norm2",), ("scores",)),
    ),
    "series": Planted(
        series,
        "swish",
        ("norm", "norm"),
        _fused(("conv", "norm"), ("swish",), ("attention",), ("residual",), ("layer_norm",), ("mean",), ("scores",)),
    ),
    "nested": Planted(
        nested,
        "encoder/relu",
        ("encoder/norm", "encoder/relu"),
        _fused(("encoder/conv", "encoder/norm", "encoder/relu"), ("encoder/pool",), ("both",), ("classes",), ("flags",))
        | {"encoder/relu@1": ("encoder/conv", "encoder/norm", "encoder/relu"), "encoder/pool@1": ("encoder/pool",)},
    ),
}


@functools.cache
def model(name):
    """The model, with statistics and scales in its normalizations as data would leave them."""
    keras.utils.set_random_seed(3)
    made = PLANTED[name].make()
    rng = np.random.default_rng(0)
    for layer in made._flatten_layers():
        if isinstance(layer, L.BatchNormalization):
            for weight, low, high in ((layer.moving_mean, -0.3, 0.3), (layer.moving_variance, 0.3, 1.5), (layer.gamma, 0.5, 1.5)):
                weight.assign(rng.uniform(low, high, weight.shape))
    return made


def data(name):
    """Samples for the model: an array, or a list of them."""
    rng = np.random.default_rng(1)
    arrays = [rng.normal(size=(SAMPLES, *tensor.shape[1:])).astype("float32") for tensor in model(name).inputs]
    return arrays if len(arrays) > 1 else arrays[0]


@functools.cache
def folder():
    return pathlib.Path(tempfile.mkdtemp())


@functools.cache
def file(name, variant="int8", road="auto"):
    """Path of the model's file."""
    path = folder() / f"{name}-{variant}-{road}.tflite"
    return export_tflite(model(name), path, variant, calibration=data(name), road=road).path


@functools.cache
def coarse_model(name):
    """The quantized model with one scale that is ten times too coarse."""
    made = Quantize().apply(model(name), calibration=data(name))
    layer = made.get_layer(PLANTED[name].coarse)
    assert is_quantized_layer(layer)
    for _, low, high in introspection.ranges_of(layer):
        low.assign(10 * low)
        high.assign(10 * high)
    return made


@functools.cache
def coarse_file(name):
    return export_tflite(coarse_model(name), folder() / f"{name}-coarse.tflite", "int8").path


@functools.cache
def stale_file(name):
    """File of the model with the statistics of one normalization as they were before the last of the training."""
    stale = keras.models.clone_model(model(name))
    stale.set_weights(model(name).get_weights())
    for layer in stale._flatten_layers():
        if layer.name == PLANTED[name].stale[0].rpartition("/")[2]:
            layer.moving_mean.assign(layer.moving_mean + 0.3)
            layer.moving_variance.assign(2 * layer.moving_variance)
    path = folder() / f"{name}-stale.tflite"
    return export_tflite(stale, path, "int8", calibration=data(name), tolerances=Tolerances()).path
