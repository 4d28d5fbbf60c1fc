"""Teachers of every kind, with the chains of blocks that each one has."""

import functools

import keras
import numpy as np
from keras import layers
from low_rank_models import randomized


def conv(filters, size=3, **kwargs):
    return layers.Conv2D(filters, size, padding="same", **kwargs)


def plain():
    """A Sequential net of convolutions."""
    body = []
    for n, filters in enumerate((16, 16, 16, 24, 24, 24)):
        body += [conv(filters, name=f"conv{n}"), layers.BatchNormalization(name=f"norm{n}"), layers.ReLU(name=f"relu{n}")]
    ends = [layers.GlobalAveragePooling2D(name="pool"), layers.Dense(3, activation="softmax", name="probabilities")]
    return keras.Sequential([keras.Input((8, 8, 3)), *body, *ends], name="plain")


def residual():
    """A net of residual blocks in two stages, the second of which begins with one that changes the size."""
    inputs = keras.Input((8, 8, 3), name="image")
    x = layers.ReLU(name="begin")(conv(16, name="stem")(inputs))
    for n, (filters, strides) in enumerate(((16, 1), (16, 1), (16, 1), (32, 2), (32, 1), (32, 1))):
        y = layers.BatchNormalization(name=f"norm{n}")(conv(filters, strides=strides, use_bias=False, name=f"first{n}")(x))
        y = conv(filters, name=f"second{n}")(layers.ReLU(name=f"inner{n}")(y))
        if strides > 1:
            x = conv(filters, 1, strides=2, name=f"shortcut{n}")(x)
        x = layers.ReLU(name=f"relu{n}")(layers.Add(name=f"sum{n}")([x, y]))
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, layers.Dense(3, name="logits")(x), name="residual")


def mobile():
    """Inverted residual blocks with depthwise convolutions, and a rate of dropout that grows."""
    inputs = keras.Input((8, 8, 3), name="image")
    x = conv(16, strides=2, name="stem")(inputs)
    for n, filters in enumerate((16, 16, 24, 24, 24)):
        y = layers.ReLU(6.0, name=f"relu{n}")(conv(4 * x.shape[-1], 1, name=f"expand{n}")(x))
        y = layers.DepthwiseConv2D(3, padding="same", name=f"depthwise{n}")(y)
        y = layers.Dropout(0.05 * (n + 1), name=f"drop{n}")(conv(filters, 1, name=f"project{n}")(y))
        x = layers.Add(name=f"sum{n}")([x, y]) if filters == x.shape[-1] else y
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, layers.Dense(3, name="logits")(x), name="mobile")


def transformer():
    """Layers of attention that all read one mask."""
    tokens, mask = keras.Input((6,), dtype="int32", name="tokens"), keras.Input((6, 6), dtype="bool", name="mask")
    x = layers.Embedding(40, 16, name="words")(tokens)
    for n in range(4):
        y = layers.MultiHeadAttention(2, 8, name=f"attention{n}")(x, x, attention_mask=mask)
        x = layers.LayerNormalization(name=f"norm{n}")(layers.Add(name=f"sum{n}")([x, y]))
        y = layers.Dense(16, name=f"narrow{n}")(layers.Dense(32, activation="gelu", name=f"widen{n}")(x))
        x = layers.LayerNormalization(name=f"last{n}")(layers.Add(name=f"total{n}")([x, y]))
    x = layers.GlobalAveragePooling1D(name="pool")(x)
    return keras.Model([tokens, mask], layers.Dense(3, name="logits")(x), name="transformer")


def nested():
    """Blocks that are models of their own."""

    def block(n):
        inputs = keras.Input((8, 8, 16))
        y = conv(16, name="back")(conv(24, activation="relu", name="deep")(inputs))
        return keras.Model(inputs, layers.Add()([inputs, y]), name=f"block{n}")

    inputs = keras.Input((8, 8, 3), name="image")
    x = conv(16, name="stem")(inputs)
    for n in range(4):
        x = block(n)(x)
    return keras.Model(inputs, layers.Dense(3, name="logits")(layers.GlobalAveragePooling2D(name="pool")(x)), name="nested")


class Subclassed(keras.Model):
    """A model without a graph of its own."""

    def __init__(self):
        super().__init__(name="subclassed")
        self.begin, self.head = layers.Dense(16, name="begin"), layers.Dense(3, name="head")
        self.blocks = [layers.Dense(16, activation="relu", name=f"block{n}") for n in range(4)]

    def call(self, x):
        x = self.begin(x)
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)


def subclassed():
    model = Subclassed()
    model(np.zeros((1, 12), "float32"))
    return model


# Name -> (function that makes the model, the layers that blocks of each chain begin with).
MODELS = {
    "plain": (plain, [["conv1", "conv2"], ["conv4", "conv5"]]),
    "residual": (residual, [["first0", "first1", "first2"], ["first4", "first5"]]),
    "mobile": (mobile, [["expand0", "expand1"], ["expand3", "expand4"]]),
    "transformer": (transformer, [["attention0", "attention1", "attention2", "attention3"]]),
    "nested": (nested, [["block0", "block1", "block2", "block3"]]),
    "subclassed": (subclassed, [["block0", "block1", "block2", "block3"]]),
}


@functools.cache
def teacher(name):
    """A model of the table with random weights, made once."""
    return randomized(MODELS[name][0]())
