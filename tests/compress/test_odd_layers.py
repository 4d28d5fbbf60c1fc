"""Activations, normalizations, regularizing and preprocessing layers: each is trained quantized and exported in integers, or refused by the plan."""

import functools
import inspect
import math
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from tfdistill.bridge import adopt, imports, to_tf_keras
from tfdistill.bridge.integer import traced
from tfdistill.bridge.integer.activations import ACTIVATIONS
from tfdistill.bridge.integer.recognize import name_of
from tfdistill.bridge.integer.rounding import ActivationRounder
from tfdistill.compress import Prune, QuantizeAware
from tfdistill.errors import BridgeError
from tfdistill.runtime.interpreter import open_file
from tfdistill.tflite import export_tflite

activations = keras.activations


@keras.saving.register_keras_serializable("odd layers")
def squared_relu(x):
    return ops.square(ops.relu(x))


def bell(x):
    return 0.5 * ops.tanh(x) - ops.exp(-ops.abs(x))


def own_mish(x):
    return x * tf.tanh(tf.nn.softplus(x))


def relu(x):
    """Not what its name says."""
    return ops.maximum(x, -0.5)


def threshold(x):
    return activations.threshold(x, 0.1, 0.0)


# Forms and NumPy

softplus = functools.partial(np.logaddexp, 0.0)


def log_softmax(x):
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


erf = np.vectorize(math.erf)
NUMPY = {
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "gelu": lambda x: 0.5 * x * (1 + erf(x / 2**0.5)),
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3))),
    "hard_shrink": lambda x: np.where(np.abs(x) > 0.5, x, 0),
    "hard_sigmoid": lambda x: np.clip(x / 6 + 0.5, 0, 1),
    "hard_sigmoid_steep": lambda x: np.clip(0.2 * x + 0.5, 0, 1),
    "hard_silu": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    "hard_tanh": lambda x: np.clip(x, -1, 1),
    "log_sigmoid": lambda x: -softplus(-x),
    "log_softmax": log_softmax,
    "mish": lambda x: x * np.tanh(softplus(x)),
    "selu": lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(np.minimum(x, 0))),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "soft_shrink": lambda x: np.sign(x) * np.maximum(np.abs(x) - 0.5, 0),
    "softplus": softplus,
    "softsign": lambda x: x / (1 + np.abs(x)),
    "sparse_plus": lambda x: np.where(x <= -1, 0, np.where(x < 1, (x + 1) ** 2 / 4, x)),
    "sparse_sigmoid": lambda x: np.clip((x + 1) / 2, 0, 1),
    "squareplus": lambda x: (x + np.sqrt(x**2 + 4)) / 2,
    "tanh_shrink": lambda x: x - np.tanh(x),
}


def unrounded():
    """A rounder that rounds nothing."""
    ranges = {}
    return ActivationRounder(lambda what: ranges.setdefault(what, (tf.constant(-6.0), tf.constant(6.0), tf.constant(1.0))), False, False)


def require_same(compute, expected, x):
    """Compares a function and its gradient with a NumPy function and the differences of that."""
    x = np.asarray(x, "float32")
    weights = np.random.default_rng(1).normal(size=x.shape)
    tensor = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(tensor)
        found = compute(tensor)
        total = tf.reduce_sum(found * weights.astype("float32"))
    wide = x.astype("float64")
    np.testing.assert_allclose(found, expected(wide), atol=2e-5)
    slopes, step = np.zeros_like(wide), 1e-6
    for place in np.ndindex(*x.shape):
        moved = np.zeros_like(wide)
        moved[place] = step
        slopes[place] = np.sum(weights * (expected(wide + moved) - expected(wide - moved))) / (2 * step)
    np.testing.assert_allclose(tape.gradient(total, tensor), slopes, atol=2e-4)


# No number here is closer than 0.01 to a kink of any of the functions.
SAMPLES = np.arange(-5.96, 6.0, 0.175).reshape(3, 23)


def test_the_table_names_every_form():
    assert set(NUMPY) == set(ACTIVATIONS)


@pytest.mark.parametrize("name", NUMPY)
def test_a_form_and_its_gradient_are_those_of_the_formula(name):
    require_same(lambda x: ACTIVATIONS[name](x, unrounded(), "x"), NUMPY[name], SAMPLES)


RECOGNIZED = {
    "mish": (own_mish, "mish"),
    "none": (None, "linear"),
    "hard swish by hand": (lambda x: x * tf.nn.relu6(x + 3.0) / 6.0, "hard_silu"),
    "approximate gelu": (lambda x: activations.gelu(x, approximate=True), "gelu_tanh"),
    "sigmoid": (lambda x: ops.sigmoid(x), "sigmoid"),
    "steep": (lambda x: imports.tf_keras().activations.hard_sigmoid(x), "hard_sigmoid_steep"),
    "celu": (activations.celu, "elu"),
    "layer": (layers.ReLU(), "relu"),
    "another slope": (lambda x: activations.elu(x, alpha=0.5), None),
    "another name": (relu, None),
    "another shape": (activations.glu, None),
    "an error": (lambda x: ops.reshape(x, (7,)), None),
    "sharper softmax": (lambda x: ops.softmax(2.0 * x), None),
}


@pytest.mark.parametrize("name", RECOGNIZED)
def test_functions_are_known_by_their_values(name):
    function, expected = RECOGNIZED[name]
    assert name_of(function) == expected


@pytest.mark.parametrize("name", [name for name in ACTIVATIONS if hasattr(activations, name)])
def test_the_functions_of_keras_are_recognized(name):
    assert name_of(getattr(activations, name)) == name


TRACED = {
    "squared relu": (squared_relu, lambda x: np.maximum(x, 0) ** 2),
    "bell": (bell, lambda x: 0.5 * np.tanh(x) - np.exp(-np.abs(x))),
    "relu after a sum": (lambda x: ops.relu6(x + 1.0) * 0.5 + ops.relu(x), lambda x: 0.5 * np.clip(x + 1, 0, 6) + np.maximum(x, 0)),
    "quotient": (lambda x: x / (1.0 + ops.square(x)), lambda x: x / (1 + x**2)),
    "reciprocal": (lambda x: ops.reciprocal(2.0 + ops.abs(x)), lambda x: 1 / (2 + np.abs(x))),
    "root": (lambda x: ops.sqrt(ops.square(x) + 0.3), lambda x: np.sqrt(x**2 + 0.3)),
    "inverse root": (lambda x: x * ops.rsqrt(ops.square(x) + 0.3), lambda x: x / np.sqrt(x**2 + 0.3)),
    "powers": (lambda x: x**3 - x**2 + (ops.abs(x) + 1.0) ** -0.5, lambda x: x**3 - x**2 + (np.abs(x) + 1) ** -0.5),
    "logarithm": (lambda x: ops.log1p(ops.abs(x)) + ops.expm1(-ops.abs(x)), lambda x: np.log1p(np.abs(x)) + np.expm1(-np.abs(x))),
    "selection": (lambda x: ops.where(x > 0.3, 2.0 * x, ops.negative(x)), lambda x: np.where(x > 0.3, 2 * x, -x)),
    "a mask as a factor": (lambda x: x * ops.cast(x > 0.3, "float32"), lambda x: np.where(x > 0.3, x, 0)),
    "known ones": (lambda x: ops.softplus(x) + ops.elu(x), lambda x: softplus(x) + NUMPY["elu"](x)),
    "along an axis": (
        lambda x: x - ops.max(x, axis=-1, keepdims=True) + ops.mean(x, axis=-1, keepdims=True),
        lambda x: x - x.max(-1, keepdims=True) + x.mean(-1, keepdims=True),
    ),
    "glu": (lambda x: activations.glu(ops.concatenate([x, 0.5 * x], -1)), lambda x: x / (1 + np.exp(-0.5 * x))),
    "celu of another slope": (
        lambda x: activations.celu(x, alpha=0.5),
        lambda x: np.where(x > 0, x, 0.5 * np.expm1(np.minimum(x, 0) / 0.5)),
    ),
    "padding": (
        lambda x: ops.max(ops.pad(x * 2.0, [[0, 0], [1, 1]], constant_values=-np.inf), -1, keepdims=True) * x,
        lambda x: 2 * x.max(-1, keepdims=True) * x,
    ),
    "padding with a number": (
        lambda x: ops.pad(x, [[0, 0], [1, 0]], constant_values=0.3)[:, :-1] * x,
        lambda x: np.concatenate([np.full((3, 1), 0.3), x[:, :-1]], -1) * x,
    ),
    "a sum along an axis by Einstein": (lambda x: ops.einsum("ab,bc->ac", x * x, np.eye(23, dtype="float32")), lambda x: x**2),
    "a matrix": (lambda x: ops.matmul(x, np.eye(23, dtype="float32") * 2.0), lambda x: 2 * x),
}


@pytest.mark.parametrize("name", TRACED)
def test_functions_of_the_user_are_computed_operation_by_operation(name):
    function, expected = TRACED[name]
    rounder = unrounded()
    require_same(lambda x: traced.compute(function, [x], rounder, "x"), expected, SAMPLES)
    spec = [tf.TensorSpec((None, 23))]
    assert traced.needs_rewriting(function, spec) or name in ("a matrix",)
    assert traced.without_integers(function, spec) == []


FLOAT_ONLY = {
    "sine": (lambda x: ops.sin(x), "SIN"),
    "floor": (lambda x: x - ops.floor(x), "FLOOR"),
    "cumulative sum": (lambda x: ops.cumsum(x, -1), "CUMSUM"),
    "sparsemax": (activations.sparsemax, "CUMSUM"),
    "quotient": (lambda x: 1.0 / (x + 0.5), "a division by what may be negative"),
    "power": (lambda x: ops.abs(x) ** 1.7, "POW"),
    "to integers": (lambda x: ops.cast(ops.cast(x, "int32"), "float32"), "CAST to int32"),
}


def named(function):
    """Returns a function under a name: Keras warns of lambdas in what it saves."""

    def renamed(x):
        return function(x)

    return renamed


@pytest.mark.parametrize("name", FLOAT_ONLY)
def test_a_function_that_tflite_computes_in_float_is_refused_by_the_plan(name):
    function, words = FLOAT_ONLY[name]
    inputs = keras.Input((6,))
    for model in (
        keras.Sequential([inputs, layers.Dense(5, activation=named(function), name="odd"), layers.Dense(2)]),
        keras.Sequential([inputs, layers.Dense(5), layers.Activation(named(function), name="odd"), layers.Dense(2)]),
    ):
        row = QuantizeAware().plan(model).row("odd")
        assert row.action == "impossible"
        assert words in row.reason


@pytest.mark.parametrize("name", ["sine", "floor", "power"])
def test_an_operation_that_tflite_computes_in_float_is_refused_by_the_plan(name):
    inputs = keras.Input((6,))
    model = keras.Model(inputs, layers.Dense(2)(FLOAT_ONLY[name][0](layers.Dense(5)(inputs))))
    found = [row.reason for row in QuantizeAware().plan(model).rows if row.action == "impossible"]
    assert any(FLOAT_ONLY[name][1] in reason for reason in found)


# Files

NAMES = [
    *(
        "celu",
        "elu",
        "exponential",
        "gelu",
        "hard_shrink",
        "hard_sigmoid",
        "hard_silu",
        "hard_tanh",
        "leaky_relu",
        "linear",
        "log_sigmoid",
        "log_softmax",
    ),
    *(
        "mish",
        "relu",
        "relu6",
        "selu",
        "sigmoid",
        "silu",
        "soft_shrink",
        "softmax",
        "softplus",
        "softsign",
        "sparse_plus",
        "sparse_sigmoid",
    ),
    *("squareplus", "tanh", "tanh_shrink", "threshold"),
]
USERS = {"bell": bell, "squared relu": squared_relu, "own mish": own_mish, "not relu": relu}


def function_named(name):
    if name == "threshold":
        return threshold
    return USERS.get(name) or getattr(activations, name)


def as_argument(name):
    return lambda x: layers.Dense(8, activation=function_named(name))(x)


def as_layer(name):
    return lambda x: layers.Activation(function_named(name))(layers.Dense(8)(x))


def as_operation(name):
    function = getattr(ops, name, None) or function_named(name)
    return lambda x: function(layers.Dense(8)(x))


def in_layers(make):
    return lambda x: make()(layers.Dense(8)(x))


def in_convolution(make):
    return lambda x: make()(layers.Conv2D(6, 3, padding="same")(x))


def before_convolution(make):
    return lambda x: layers.Conv2D(4, 3)(make()(x))


# What changes images in training alone.
AUGMENTATIONS = {
    "AugMix": lambda: layers.AugMix((0, 1)),
    "CutMix": lambda: layers.CutMix(),
    "MixUp": lambda: layers.MixUp(),
    "RandAugment": lambda: layers.RandAugment((0, 1)),
    "RandomBrightness": lambda: layers.RandomBrightness(0.2),
    "RandomColorDegeneration": lambda: layers.RandomColorDegeneration(0.1, (0, 1)),
    "RandomColorJitter": lambda: layers.RandomColorJitter((0, 1), 0.1),
    "RandomContrast": lambda: layers.RandomContrast(0.2),
    "RandomCrop": lambda: layers.RandomCrop(8, 8),
    "RandomElasticTransform": lambda: layers.RandomElasticTransform(value_range=(0, 1)),
    "RandomErasing": lambda: layers.RandomErasing(value_range=(0, 1)),
    "RandomFlip": lambda: layers.RandomFlip(),
    "RandomGaussianBlur": lambda: layers.RandomGaussianBlur(value_range=(0, 1)),
    "RandomGrayscale": lambda: layers.RandomGrayscale(),
    "RandomHue": lambda: layers.RandomHue(0.2),
    "RandomInvert": lambda: layers.RandomInvert(),
    "RandomPerspective": lambda: layers.RandomPerspective(),
    "RandomPosterization": lambda: layers.RandomPosterization(4, (0, 1)),
    "RandomRotation": lambda: layers.RandomRotation(0.1),
    "RandomSaturation": lambda: layers.RandomSaturation(0.1, (0, 1)),
    "RandomSharpness": lambda: layers.RandomSharpness(0.1, (0, 1)),
    "RandomTranslation": lambda: layers.RandomTranslation(0.1, 0.1),
    "RandomZoom": lambda: layers.RandomZoom(0.1),
    "Solarization": lambda: layers.Solarization(threshold_factor=0.5, value_range=(0, 1)),
}


def augmented(x):
    """An image after every augmentation that this Keras has."""
    for name, make in AUGMENTATIONS.items():
        x = make()(x) if hasattr(layers, name) else x
    return x


def standardizing(**settings):
    layer = layers.Normalization(**settings)
    if "mean" not in settings:
        layer.adapt(1.0 + 2.0 * np.random.default_rng(0).normal(size=(64, 8, 8, 3)).astype("float32"))
    return layer


VECTORS = {
    "as arguments": {name: as_argument(name) for name in [*NAMES, *USERS]},
    "as layers": {name: as_layer(name) for name in [*NAMES, *USERS]},
    "as operations": {
        name: as_operation(name) for name in [*NAMES, "glu", "bell", "squared relu"] if name not in ("mish", "threshold")
    },  # Keras's own cannot be called so
    "own layers": {
        "ELU": in_layers(lambda: layers.ELU(0.7)),
        "LeakyReLU": in_layers(layers.LeakyReLU),
        "PReLU": in_layers(lambda: layers.PReLU(alpha_initializer="normal")),
        "ReLU": in_layers(layers.ReLU),
        "ReLU to 2": in_layers(lambda: layers.ReLU(max_value=2.0)),
        "ReLU of a slope": in_layers(lambda: layers.ReLU(negative_slope=0.2)),
        "ReLU of a slope to 2": in_layers(lambda: layers.ReLU(max_value=2.0, negative_slope=0.2)),
        "ReLU of all": in_layers(lambda: layers.ReLU(max_value=2.0, negative_slope=0.1, threshold=0.2)),
        "Softmax": in_layers(layers.Softmax),
        "LayerNormalization": in_layers(layers.LayerNormalization),
        "RMSNormalization": in_layers(layers.RMSNormalization),
        "UnitNormalization": in_layers(layers.UnitNormalization),
        "BatchNormalization": lambda x: layers.BatchNormalization()(layers.Dense(8, activation="relu")(x)),
    },
}
IMAGES = {
    "normalizations": {
        "BatchNormalization along another axis": in_convolution(lambda: layers.BatchNormalization(axis=1)),
        "LayerNormalization over several axes": in_convolution(lambda: layers.LayerNormalization(axis=[1, 2, 3])),
        "LayerNormalization over another axis": in_convolution(lambda: layers.LayerNormalization(axis=1)),
        "GroupNormalization": in_convolution(lambda: layers.GroupNormalization(2)),
        "GroupNormalization of instances": in_convolution(lambda: layers.GroupNormalization(-1)),
        "GroupNormalization along another axis": in_convolution(lambda: layers.GroupNormalization(2, axis=1)),
        "RMSNormalization": in_convolution(layers.RMSNormalization),
        "UnitNormalization over several axes": in_convolution(lambda: layers.UnitNormalization(axis=[1, 2])),
        "SpectralNormalization": lambda x: layers.SpectralNormalization(layers.Conv2D(5, 3))(x),
        "Normalization": before_convolution(standardizing),
        "Normalization along another axis": before_convolution(lambda: standardizing(axis=1)),
        "Normalization by one number": before_convolution(lambda: standardizing(axis=None)),
        "Normalization given": before_convolution(lambda: standardizing(mean=0.5, variance=4.0)),
        "Normalization backwards": before_convolution(lambda: standardizing(mean=0.5, variance=4.0, invert=True)),
    },
    "regularizing": {
        "Dropout": in_convolution(lambda: layers.Dropout(0.2)),
        "SpatialDropout1D": lambda x: layers.SpatialDropout1D(0.2)(layers.Reshape((64, 3))(layers.Conv2D(3, 1)(x))),
        "SpatialDropout2D": in_convolution(lambda: layers.SpatialDropout2D(0.2)),
        "SpatialDropout3D": lambda x: layers.SpatialDropout3D(0.2)(layers.Reshape((4, 4, 4, 3))(layers.Conv2D(3, 1)(x))),
        "GaussianDropout": in_convolution(lambda: layers.GaussianDropout(0.2)),
        "AlphaDropout": in_convolution(lambda: layers.AlphaDropout(0.2)),
        "GaussianNoise": in_convolution(lambda: layers.GaussianNoise(0.2)),
        "ActivityRegularization": in_convolution(lambda: layers.ActivityRegularization(l2=1e-4)),
    },
    "preprocessing": {
        "Rescaling": before_convolution(lambda: layers.Rescaling(1 / 2.5, -1.0)),
        "Rescaling alone": in_convolution(lambda: layers.Rescaling(2.0, 0.5)),
        "Rescaling by channel": before_convolution(lambda: layers.Rescaling([0.1, 0.2, 0.3], [0.0, 0.5, 1.0])),
        "Resizing": before_convolution(lambda: layers.Resizing(6, 6)),
        "Resizing by repetition": before_convolution(lambda: layers.Resizing(16, 16, interpolation="nearest")),
        "CenterCrop": before_convolution(lambda: layers.CenterCrop(6, 6)),
        "Pipeline": before_convolution(lambda: layers.Pipeline([layers.Rescaling(0.5), layers.RandomFlip()])),
        "Equalization": before_convolution(lambda: layers.Equalization(value_range=(0, 1))),
        "MaxNumBoundingBoxes": before_convolution(lambda: layers.MaxNumBoundingBoxes(3)),
        "STFTSpectrogram": lambda x: layers.STFTSpectrogram("real", 32, 16, 32)(layers.Reshape((192, 1))(x)),
        "all augmentations": lambda x: layers.Conv2D(4, 3)(augmented(x)),
    },
}


@keras.saving.register_keras_serializable("odd layers")
class ByTurns(layers.Layer):
    """Computes by another graph in training mode, so that it runs as it is; its last operation rounds by itself."""

    def call(self, x, training=None):
        return ops.relu(x * 0.9) if training else ops.relu(ops.multiply(x, 0.9))


ZEROS = np.zeros((1, 8, 8, 6), "float32")
MASK = np.tril(np.ones((1, 1, 8, 8), bool))


def attending(x):
    """Attention as keras.ops has it, in one operation, under a mask for what comes later."""
    parts = [layers.Reshape((8, 2, 4))(layers.Dense(8)(layers.Reshape((8, 24))(x))) for _ in range(3)]
    return ops.dot_product_attention(*parts, mask=MASK)


# Operations that move what is next to them, where a range of their own would have no place in the file.
IMAGES["seams"] = {
    "padded with minus infinity": lambda x: layers.MaxPooling2D(3, 2)(
        ops.pad(layers.Conv2D(6, 3, padding="same")(x), [[0, 0], [1, 1], [1, 1], [0, 0]], constant_values=-np.inf)
    ),
    "padded with infinity": lambda x: ops.minimum(
        ops.pad(layers.Conv2D(6, 3)(x), [[0, 0], [1, 1], [1, 1], [0, 0]], constant_values=np.inf), layers.Conv2D(6, 3, padding="same")(x)
    ),
    "padded with a number": in_convolution(
        lambda: lambda x: ops.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]], constant_values=0.7),
    ),
    "a sum with zeros": in_convolution(lambda: lambda x: ops.add(x, 0.0)),
    "a product by one": in_convolution(lambda: lambda x: ops.multiply(x, 1.0)),
    "a sum with zeros that repeats": in_convolution(lambda: lambda x: ops.add(ZEROS, layers.GlobalAveragePooling2D(keepdims=True)(x))),
    "a product by ones that repeats": in_convolution(
        lambda: lambda x: ops.multiply(ZEROS + 1.0, layers.GlobalAveragePooling2D(keepdims=True)(x))
    ),
    "a split": in_convolution(
        lambda: lambda x: layers.Concatenate()([layers.Conv2D(3, 1)(ops.split(x, 2, -1)[0]), ops.split(x, 2, -1)[1]])
    ),
    "a part of a split": in_convolution(lambda: lambda x: layers.Conv2D(4, 3)(ops.split(x, 2, -1)[1])),
    "a part of a split by sizes": in_convolution(lambda: lambda x: layers.Conv2D(4, 3)(ops.split(x, [1, 4], -1)[1])),
    "a part of what is unstacked": in_convolution(lambda: lambda x: layers.Conv1D(4, 3)(ops.unstack(x, 8, axis=1)[2])),
    "as it is before padding": in_convolution(lambda: lambda x: layers.Conv2D(4, 3)(layers.ZeroPadding2D()(ByTurns()(x)))),
    "as it is before enlarging": in_convolution(lambda: lambda x: layers.UpSampling2D(2, interpolation="bilinear")(ByTurns()(x))),
}
IMAGES["attention"] = {
    "in one operation": attending,
    "in one operation, causal": lambda x: ops.dot_product_attention(
        *[layers.Reshape((8, 2, 12))(layers.Reshape((8, 24))(y)) for y in (x, 0.5 * x, 0.3 * x)], is_causal=True
    ),
}
GROUPS = {**{name: ((12,), bodies) for name, bodies in VECTORS.items()}, **{name: ((8, 8, 3), bodies) for name, bodies in IMAGES.items()}}
# Decibels to the float model, where they are below 30: thresholds that a rounded number crosses, distributions whose steps are 1/256.
LEAST = {
    "hard_shrink": 22,
    "log_softmax": 27,
    "softmax": 25,
    "in one operation": 29,
    "threshold": 26,
    "ReLU of all": 27,
    "Rescaling by channel": 27,
    "Resizing": 24,
    # Means of noise, which are small beside what their layer computes with.
    "a sum with zeros that repeats": 26,
    "a product by ones that repeats": 26,
}
# What differs from the float model in training: the kernel of a SpectralNormalization is divided, augmented images have other ranges.
LEAST |= {"SpectralNormalization": -np.inf, "Pipeline": -np.inf, "all augmentations": -np.inf}


def group(shape, bodies):
    """One model with an output for each layer of a group."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input(shape)
    outputs = {}
    for i, (_, body) in enumerate(bodies.items()):
        x = body(inputs)
        outputs[f"y{i}"] = layers.Dense(3, name=f"y{i}")(layers.Flatten()(x) if len(x.shape) > 2 else x)
    model = keras.Model(inputs, outputs)
    for weight in model.weights:
        if weight.name == "bias":
            weight.assign(0.3 * np.random.default_rng(3).normal(size=weight.shape))
    return model


def decibels(expected, found):
    noise = np.mean((expected - found) ** 2)
    return 10 * np.log10(np.mean((expected - expected.mean(0)) ** 2) / max(noise, 1e-30))


def exported(model, folder, samples=192, dry_run=False):
    """Returns the outputs of a model, of the same model trained quantized, and of its integer file: dicts of arrays; and the file's record."""
    rng, shape = np.random.default_rng(0), (samples, *model.input_shape[1:])
    numbers = keras.backend.standardize_dtype(getattr(model, "legacy", model).inputs[0].dtype) == "int32"
    x = rng.integers(0, 20, shape).astype("int32") if numbers else rng.normal(size=shape).astype("float32")
    before = {name: np.asarray(y) for name, y in model(x, training=False).items()}
    applied = QuantizeAware().apply(model, dry_run=dry_run)
    for layer in applied.legacy._flatten_layers():
        if hasattr(layer, "momentum"):
            layer.momentum = 1.0  # statistics stay
    for _ in range(2):
        applied(x, training=True)
    trained = {name: np.asarray(y) for name, y in applied(x, training=False).items()}
    record = export_tflite(applied, folder / "a.tflite", "int8", io="float32")
    opened = open_file(record.path)
    return before, trained, opened.run({next(iter(opened.inputs)): x}), record


QUICK = {"quick": ((12,), {name: as_argument(name) for name in ("mish", "selu", "hard_silu", "squared relu")})}


@pytest.mark.parametrize("name", ["quick", *(pytest.param(name, marks=pytest.mark.slow) for name in GROUPS)])
def test_every_one_is_exported_in_integers(name, tmp_path):
    shape, bodies = {**GROUPS, **QUICK}[name]
    before, trained, found, record = exported(group(shape, bodies), tmp_path, dry_run=name == "quick")
    assert not record.census.stray_floats(float_io=True)
    measured = {}
    for i, body in enumerate(bodies):
        key = f"y{i}"
        measured[body] = (
            decibels(trained[key], found[key].reshape(trained[key].shape)),
            decibels(before[key], found[key].reshape(before[key].shape)),
        )
    low = {body: pair for body, pair in measured.items() if pair[0] < 25 or pair[1] < LEAST.get(body, 30)}
    assert not low, low


def test_what_only_moves_numbers_needs_no_range_of_its_own():
    rows = QuantizeAware().plan(group(*GROUPS["seams"])).rows
    assert [row for row in rows if row.action != "done"] == []


def activation_called_thrice():
    inputs, relu = keras.Input((8,)), layers.Activation("relu")
    x = relu(layers.Dense(4)(relu(layers.Dense(6)(inputs))))
    return keras.Model(inputs, relu(layers.Dense(3)(x)))


def dense_called_on_itself():
    inputs, dense = keras.Input((5,), dtype="int32"), layers.Dense(4)
    return keras.Model(inputs, layers.Dense(3)(dense(dense(layers.Embedding(9, 4)(inputs)))))


@pytest.mark.parametrize("build", [activation_called_thrice, dense_called_on_itself])
def test_a_layer_that_reads_what_it_has_computed_has_a_plan(build):
    assert QuantizeAware().plan(build()).names("impossible") == []


@pytest.mark.parametrize("name", ["rsqrt", "sqrt"])
def test_roots_of_what_another_layer_rounds_to_zero_are_finite(name):
    inputs = keras.Input((8,))
    variance = ops.mean(ops.square(inputs), axis=-1, keepdims=True) + 1e-6
    root = ops.rsqrt(variance) if name == "rsqrt" else ops.sqrt(variance)
    applied = QuantizeAware().apply(keras.Model(inputs, layers.Dense(3)(inputs * root)), dry_run=False)
    x = np.outer(10.0 ** np.arange(-3.0, 2.0), np.ones(8)).astype("float32")
    with tf.GradientTape() as tape:
        tensor = tf.constant(x)
        tape.watch(tensor)
        outputs = applied(tensor, training=True)
    assert np.isfinite(outputs).all()
    assert np.isfinite(tape.gradient(outputs, tensor)).all()


def encoding(mode, length=4):
    inputs = keras.Input((length,), dtype="int32")
    x = layers.CategoryEncoding(20, output_mode=mode, name="odd")(inputs)
    return keras.Model(inputs, {"y0": layers.Dense(3)(x)})


def bins():
    inputs = keras.Input((4,))
    x = layers.Embedding(4, 5)(layers.Discretization(bin_boundaries=[-1.0, 0.0, 1.0], name="odd")(inputs))
    return keras.Model(inputs, {"y0": layers.Dense(3)(layers.Flatten()(x))})


CATEGORIES = {
    "CategoryEncoding multi-hot": lambda: encoding("multi_hot"),
    "CategoryEncoding count": lambda: encoding("count"),
    "CategoryEncoding one-hot": lambda: encoding("one_hot", 1),
    "Discretization": bins,
}


@pytest.mark.parametrize("name", [n if n == "Discretization" else pytest.param(n, marks=pytest.mark.slow) for n in CATEGORIES])
def test_categories_are_encoded_in_integers(name, tmp_path):
    keras.utils.set_random_seed(0)
    model = CATEGORIES[name]()
    before, trained, found, record = exported(model, tmp_path)
    assert not record.census.stray_floats(float_io=True)
    assert decibels(trained["y0"], found["y0"]) > 30
    if name != "Discretization":  # a rounded number may lie in the next bin
        assert decibels(before["y0"], found["y0"]) > 30


IMAGE, WAVE, NUMBERS = ((8, 8, 3), "float32"), ((256,), "float32"), ((4,), "int32")
# Class, and what is special -> input, the layer, what the plan says.
NOT_THERE = {
    "Hashing": (NUMBERS, lambda x: layers.Embedding(8, 5)(layers.Hashing(8, name="odd")(x)), "TFLite has no Hashing"),
    "HashedCrossing": (NUMBERS, lambda x: layers.HashedCrossing(8, name="odd")((x[:, :1], x[:, 1:2])), "TFLite has no HashedCrossing"),
    "IntegerLookup": (NUMBERS, lambda x: layers.Embedding(9, 5)(layers.IntegerLookup(vocabulary=[1, 2], name="odd")(x)), "TFLite has no"),
    "Resizing, cubic": (IMAGE, lambda x: layers.Resizing(6, 6, interpolation="bicubic", name="odd")(x), "TFLite has no Resizing"),
    "AutoContrast": (IMAGE, lambda x: layers.AutoContrast(value_range=(0, 1), name="odd")(x), "TFLite computes a division"),
    "ContrastLimitedAdaptiveHistogramEqualization": (
        IMAGE,
        lambda x: layers.ContrastLimitedAdaptiveHistogramEqualization((0, 1), name="odd")(x),
        "TFLite computes CAST to int32, CUMSUM",
    ),
    "MelSpectrogram": (
        WAVE,
        lambda x: layers.MelSpectrogram(32, 16, sampling_rate=1000, num_mel_bins=8, name="odd")(x),
        "TFLite computes RFFT in float only",
    ),
}


def odd_model(name, table):
    (shape, dtype), make, *_ = table[name]
    inputs = keras.Input(shape, dtype=dtype)
    return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(make(inputs))))


@pytest.mark.parametrize("name", [name for name in NOT_THERE if hasattr(layers, name.partition(",")[0])])
def test_what_tflite_does_not_have_is_refused_by_the_plan(name):
    row = QuantizeAware().plan(odd_model(name, NOT_THERE)).row("odd")
    assert row.action == "impossible"
    assert NOT_THERE[name][2] in row.reason


TEXT = ((1,), "string")
NOT_IN_TF_KERAS = {
    "StringLookup": (TEXT, lambda x: layers.StringLookup(vocabulary=["a"])(x), "is text"),
    "TextVectorization": (TEXT, lambda x: layers.TextVectorization(vocabulary=["a"], output_sequence_length=4)(x[:, 0]), "is text"),
    # Keras itself cannot make it again from its configuration.
    "RandomShear": (IMAGE, lambda x: layers.RandomShear(0.1, 0.1)(x), "cannot be made again from its get_config"),
}


@pytest.mark.parametrize("name", NOT_IN_TF_KERAS)
def test_what_cannot_be_converted_exactly_is_refused_by_every_plan(name):
    model = odd_model(name, NOT_IN_TF_KERAS)
    for step in (QuantizeAware(), Prune(0.5, end_step=1)):
        with pytest.raises(BridgeError, match=NOT_IN_TF_KERAS[name][2]):
            step.plan(model)


@pytest.mark.parametrize("part", ["activations", "normalization", "preprocessing", "regularization"])
def test_every_layer_of_keras_has_a_row(part):
    """A layer that a newer Keras adds fails here until it goes through, or is known to be refused."""
    rows = [
        *VECTORS["own layers"],
        *AUGMENTATIONS,
        *CATEGORIES,
        *NOT_THERE,
        *NOT_IN_TF_KERAS,
        *(name for bodies in IMAGES.values() for name in bodies),
    ]
    known = {re.match(r"\w+", name).group() for name in rows} | {"Activation"}  # all of VECTORS["as layers"]
    there = {name for name, kind in vars(layers).items() if isinstance(kind, type) and f".layers.{part}." in kind.__module__}
    assert there
    assert there - known == set()


def test_every_activation_of_keras_has_a_row():
    known = {getattr(activations, name, None) for name in [*NAMES, "glu", "sparsemax"]} | {activations.get, activations.serialize}
    there = {name: value for name, value in vars(activations).items() if inspect.isfunction(value)}
    assert [name for name, value in there.items() if value not in known | {activations.deserialize}] == []


# What is in the files


def convolutional(body, **settings):
    inputs = keras.Input((8, 8, 3))
    x = layers.Flatten()(layers.Conv2D(4, 3, name="conv", **settings)(body(inputs)))
    return keras.Model(inputs, {"y0": layers.Dense(3)(x)})


RESCALED = {
    "an offset": ((0.4, -1.0), {}, True),
    "an offset and padding": ((0.4, -1.0), {"padding": "same"}, False),
    "padding": ((1 / 255.0,), {"padding": "same"}, True),
    "no bias": ((1 / 255.0,), {"use_bias": False}, True),
    "an offset without bias": ((0.5, 1.0), {"use_bias": False}, False),
    "a negative scale": ((-0.5, 1.0), {"activation": "relu"}, True),
    "by channel": (([0.1, 0.2, 0.3],), {}, False),
}


@pytest.mark.parametrize("name", [n if n == "an offset" else pytest.param(n, marks=pytest.mark.slow) for n in RESCALED])
def test_a_rescaling_is_folded_into_the_kernel_behind_it(name, tmp_path):
    scaling, settings, folded = RESCALED[name]
    model = convolutional(lambda x: layers.Rescaling(*scaling, name="rescale")(x), **settings)
    assert ("folded into the layer behind it" in QuantizeAware().plan(model).row("rescale").reason) is folded
    before, trained, found, record = exported(model, tmp_path)
    assert sum(op.count for op in record.census.ops if op.name == "DEPTHWISE_CONV_2D") == (0 if folded else 1)
    assert decibels(trained["y0"], found["y0"]) > 30
    assert decibels(before["y0"], found["y0"]) > 28


OPERATIONS = {
    "elu": {"EXP", "SUB", "MUL", "ADD"},
    "hard_silu": {"ADD", "MUL"},
    "gelu": {"GELU"},
    "softplus": {"ABS", "LOGISTIC", "LOG", "MUL", "SUB"},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_activation_becomes_these_operations_and_one_convolution(name, tmp_path):
    *_, record = exported(convolutional(lambda x: x, activation=name), tmp_path)
    counts = {op.name: op.count for op in record.census.ops}
    assert counts.pop("CONV_2D") == 1  # not one for each operation that reads it
    assert set(counts) - {"RESHAPE", "FULLY_CONNECTED", "QUANTIZE", "DEQUANTIZE"} == OPERATIONS[name]


def test_a_lambda_that_was_allowed_is_computed_operation_by_operation(tmp_path):
    inputs = keras.Input((12,))
    odd = layers.Lambda(bell, name="odd")(layers.Dense(8)(inputs))
    model = keras.Model(inputs, {"y0": layers.Dense(3)(odd)})
    adopted = adopt(to_tf_keras(model, allow_lambda=True), original=model)
    assert QuantizeAware().plan(adopted).row("odd").action == "done"
    before, trained, found, record = exported(adopted, tmp_path)
    assert not record.census.stray_floats(float_io=True)
    assert decibels(trained["y0"], found["y0"]) > 25
    assert decibels(before["y0"], found["y0"]) > 28
