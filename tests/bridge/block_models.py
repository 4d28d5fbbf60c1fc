"""Models made of repeated blocks, in every form that Keras has for them."""

import keras
import numpy as np
from small import CLASSES


def attention_block(x, prefix, width, heads=2, size=4):
    layers = keras.layers
    y = layers.LayerNormalization(name=f"{prefix}_norm_a")(x)
    x = layers.Add()([x, layers.MultiHeadAttention(heads, size, name=f"{prefix}_attention")(y, y)])
    y = layers.LayerNormalization(name=f"{prefix}_norm_b")(x)
    y = layers.Dense(2 * width, activation="gelu", name=f"{prefix}_wide")(y)
    return layers.Add()([x, layers.Dense(width, name=f"{prefix}_narrow")(y)])


def flat_transformer(depth, width=8, name=None):
    x = inputs = keras.Input((6, 4))
    x = keras.layers.Dense(width, name="embed")(x)
    x = keras.layers.LayerNormalization(name="first_norm")(x)
    for i in range(depth):
        x = attention_block(x, f"block_{i}", width)
    x = keras.layers.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, keras.layers.Dense(CLASSES, name="head")(x), name=name)


def nested_blocks(depth, width=8, name=None):
    x = inputs = keras.Input((4,))
    x = keras.layers.Dense(width, name="embed")(x)
    for i in range(depth):
        inner = keras.Input((width,))
        body = keras.Sequential([keras.layers.Dense(width, name="a"), keras.layers.Dense(width, name="b")], name="body")
        x = keras.Model(inner, keras.layers.Add()([inner, body(inner)]), name=f"block_{i}")(x)
    return keras.Model(inputs, keras.layers.Dense(CLASSES, name="head")(x), name=name)


class Block(keras.layers.Layer):
    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.up, self.down = keras.layers.Dense(2 * width, activation="relu", name="up"), keras.layers.Dense(width, name="down")
        self.norm = keras.layers.LayerNormalization(name="norm")

    def call(self, x):
        return self.norm(x + self.down(self.up(x)))


class OfBlocks(keras.Model):
    def __init__(self, depth, width=8, **kwargs):
        super().__init__(**kwargs)
        self.embed = keras.layers.Dense(width, name="embed")
        self.blocks = [Block(width, name=f"block_{i}") for i in range(depth)]
        self.head = keras.layers.Dense(CLASSES, name="head")

    def call(self, x):
        x = self.embed(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def of_blocks(depth, width=8, name=None):
    model = OfBlocks(depth, width, name=name)
    model(np.zeros((1, 4), "float32"))
    return model


def named_halves(depth, width=8, name=None):
    """Two equal dense layers make a block: only their names show it."""
    x = inputs = keras.Input((4,))
    x = keras.layers.Dense(width, name="embed")(x)
    for i in range(depth):
        x = keras.layers.Dense(width, name=f"block_{i}_b")(keras.layers.Dense(width, name=f"block_{i}_a")(x))
    return keras.Model(inputs, keras.layers.Dense(CLASSES, name="head")(x), name=name)


def auto_named(depth, width=8, name=None):
    x = inputs = keras.Input((4,))
    for _ in range(depth + 1):
        x = keras.layers.Dense(width)(x)
    return keras.Model(inputs, keras.layers.Dense(CLASSES)(x), name=name)


def stages(depth, width=4, name=None):
    """Two stages, each with blocks of its own: the student has half of each."""
    x = inputs = keras.Input((8, 8, 1))
    for stage, channels in enumerate((width, 2 * width)):
        x = keras.layers.Conv2D(channels, 3, strides=2, padding="same", name=f"stage_{stage}_in")(x)
        for i in range(depth):
            y = keras.layers.Conv2D(channels, 3, padding="same", use_bias=False, name=f"stage_{stage}_block_{i}_conv")(x)
            x = keras.layers.Add()([x, keras.layers.BatchNormalization(name=f"stage_{stage}_block_{i}_norm")(y)])
    return keras.Model(inputs, keras.layers.Dense(CLASSES, name="head")(keras.layers.GlobalAveragePooling2D()(x)), name=name)
