"""Small models with every layer that can be factorized, as rows of tables."""

import keras
import numpy as np
from keras import layers


def randomized(model, seed=0):
    """Gives every weight of a model random values, so that no mistake hides behind zeros."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        if "seed" in weight.path:
            continue
        values = rng.normal(size=weight.shape) / np.sqrt(max(np.prod(weight.shape[:-1]), 1.0))
        weight.assign(np.abs(values) + 0.5 if "variance" in weight.path else values)
    return model


def of_one(layer, shape, dtype="float32"):
    """A model of one layer called "layer"."""
    inputs = keras.Input(shape, name="given", dtype=dtype)
    return randomized(keras.Model(inputs, layer(inputs), name="one"))


def conv(filters, size, **kwargs):
    return layers.Conv2D(filters, size, name="layer", **kwargs)


# Name -> (function that makes the layer, shape of its input, methods that work on it).
EVERY = ("svd", "spatial_svd", "tucker", "cp")
LAYERS = {
    "dense": (lambda: layers.Dense(14, activation="tanh", kernel_regularizer="l2", name="layer"), (12,), ("svd",)),
    "dense of sequences": (lambda: layers.Dense(14, use_bias=False, name="layer"), (5, 12), ("svd",)),
    "einsum": (lambda: layers.EinsumDense("abc,cd->abd", (5, 14), bias_axes="d", activation="relu", name="layer"), (5, 12), ("svd",)),
    "einsum of heads": (lambda: layers.EinsumDense("abc,cde->abde", (5, 2, 7), bias_axes="de", name="layer"), (5, 12), ("svd",)),
    "einsum from heads": (lambda: layers.EinsumDense("abcd,cde->abe", (5, 14), name="layer"), (5, 3, 4), ("svd",)),
    "einsum of dots": (lambda: layers.EinsumDense("...x,xy->...y", (14,), bias_axes="y", name="layer"), (5, 12), ("svd",)),
    "einsum of trailing dots": (lambda: layers.EinsumDense("ab...,bc->ac...", (14,), name="layer"), (12, 5), ("svd",)),
    "einsum transposed": (lambda: layers.EinsumDense("abc,dc->adb", (14, 5), bias_axes="d", name="layer"), (5, 12), ("svd",)),
    "embedding": (lambda: layers.Embedding(20, 12, mask_zero=True, embeddings_regularizer="l2", name="layer"), (6,), ("svd",)),
    "conv 1x1": (lambda: conv(14, 1, strides=2, activation="relu"), (7, 6, 12), ("svd", "tucker")),
    "conv same": (lambda: conv(14, 3, padding="same", bias_regularizer="l1"), (7, 6, 12), EVERY),
    "conv valid": (lambda: conv(14, (3, 2), use_bias=False), (7, 6, 12), EVERY),
    "conv strided": (lambda: conv(14, 3, padding="same", strides=2), (8, 7, 12), EVERY),
    "conv uneven": (lambda: conv(14, 3, strides=(1, 2)), (8, 7, 12), ("svd", "spatial_svd", "tucker")),
    "conv dilated": (lambda: conv(14, 3, padding="same", dilation_rate=2), (8, 7, 12), EVERY),
    "conv flat": (lambda: conv(14, (1, 5), padding="same"), (4, 7, 12), ("svd", "tucker", "cp")),
    "conv 1d": (lambda: layers.Conv1D(14, 3, strides=2, padding="same", name="layer"), (9, 12), ("svd", "tucker", "cp")),
    "separable": (
        lambda: layers.SeparableConv2D(
            14, 3, strides=2, padding="same", depth_multiplier=2, activation="relu", pointwise_regularizer="l2", name="layer"
        ),
        (8, 7, 6),
        ("svd",),
    ),
    "separable 1d": (lambda: layers.SeparableConv1D(14, 3, dilation_rate=2, use_bias=False, name="layer"), (9, 12), ("svd",)),
    "conv causal": (lambda: layers.Conv1D(14, 3, padding="causal", dilation_rate=2, name="layer"), (9, 12), ("svd", "tucker")),
}


def made(name):
    """A model of one layer of the table."""
    make, shape, _ = LAYERS[name]
    return of_one(make(), shape, "int32" if name == "embedding" else "float32")


def given(name, count=6, seed=1):
    """Random input for it."""
    rng, shape = np.random.default_rng(seed), (count, *LAYERS[name][1])
    return rng.integers(0, 20, shape) if name == "embedding" else rng.normal(size=shape).astype("float32")


def residual():
    """An image classifier with convolutions of several sizes, a depthwise one and a sum."""
    inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(16, 3, padding="same", activation="relu", name="stem")(inputs)
    y = layers.BatchNormalization(name="norm")(layers.Conv2D(24, 3, padding="same", use_bias=False, name="inner")(x))
    y = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(layers.ReLU(name="relu")(y))
    x = layers.Add(name="sum")([x, layers.Conv2D(16, 1, name="project")(y)])
    x = layers.Dense(32, activation="relu", name="hidden")(layers.GlobalAveragePooling2D(name="pool")(x))
    return randomized(keras.Model(inputs, layers.Dense(3, name="logits")(x), name="residual"))


def sequential():
    """A Sequential model inside another one."""
    inner = keras.Sequential(
        [keras.Input((16,)), layers.Dense(24, activation="relu", name="wide"), layers.Dense(16, name="back")], name="inner"
    )
    return randomized(
        keras.Sequential([keras.Input((12,)), layers.Dense(16, name="begin"), inner, layers.Dense(3, name="logits")], name="outer")
    )


def shared():
    """A dense layer and a nested model that are called twice."""
    a, b = keras.Input((12,), name="a"), keras.Input((12,), name="b")
    dense, inner = layers.Dense(16, name="both"), keras.Sequential([keras.Input((16,)), layers.Dense(16, name="deep")], name="inner")
    return randomized(keras.Model([a, b], layers.Dense(3, name="logits")(layers.add([inner(dense(a)), inner(dense(b))])), name="shared"))


def text():
    """A classifier of tokens with masks and attention."""
    tokens = keras.Input((6,), dtype="int32", name="tokens")
    x = layers.Embedding(40, 16, mask_zero=True, name="words")(tokens)
    x = layers.Add(name="sum")([x, layers.MultiHeadAttention(2, 8, name="attention")(x, x)])
    x = layers.GlobalAveragePooling1D(name="pool")(layers.LayerNormalization(name="norm")(x))
    x = layers.EinsumDense("ab,bc->ac", 32, activation="gelu", bias_axes="c", name="widen")(x)
    return randomized(keras.Model(tokens, layers.Dense(3, name="logits")(x), name="text"))


class Subclassed(keras.Model):
    """A model without a graph."""

    def __init__(self):
        super().__init__(name="subclassed")
        self.encoder, self.head = layers.Dense(24, activation="relu", name="encoder"), layers.Dense(16, name="head")

    def call(self, x):
        return self.head(self.encoder(x))


def subclassed():
    model = Subclassed()
    model(np.zeros((1, 12), "float32"))
    return randomized(model)


def any_size():
    """A nested model of images of any size, which is called on two sizes; and layers that are called by the names of their arguments."""
    free = keras.Input((None, None, 8), name="any")
    inner = keras.Model(free, layers.Conv2D(16, 3, padding="same", name="deep")(free), name="inner")
    large, tiny = keras.Input((8, 8, 8), name="large"), keras.Input((4, 4, 8), name="tiny")
    pooled = [layers.GlobalAveragePooling2D()(inner(x)) for x in (large, tiny)]
    x = layers.Dense(32, activation="relu", name="hidden")(inputs=layers.Concatenate(name="both")(pooled))
    return randomized(keras.Model([large, tiny], layers.Dense(3, name="logits")(inputs=x), name="any_size"))


MODELS = {"residual": residual, "sequential": sequential, "shared": shared, "text": text, "subclassed": subclassed, "any_size": any_size}
