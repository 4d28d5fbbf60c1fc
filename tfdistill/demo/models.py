"""Models of the demo and the benchmarks. The layers that losses compare have names: `block_1`, `block_2`, ... and `hidden`."""

import keras
from keras import layers

# With Keras's default of 0.99 the statistics need far more steps than the demo has.
MOMENTUM = 0.9


def convolved(x, filters, strides=1, size=3, name=None):
    """Applies a convolution, batch normalization and ReLU; `name` is that of the ReLU."""
    x = layers.Conv2D(filters, size, strides=strides, padding="same", use_bias=False)(x)
    return layers.ReLU(name=name)(layers.BatchNormalization(momentum=MOMENTUM)(x))


def _separable(x, filters, strides=1, name=None):
    x = layers.DepthwiseConv2D(3, strides=strides, padding="same", use_bias=False)(x)
    x = layers.ReLU()(layers.BatchNormalization(momentum=MOMENTUM)(x))
    return convolved(x, filters, size=1, name=name)


def _stem_strides(shape):
    # 28 x 28 images are halved in the first layer, 8 x 8 ones are not.
    return 2 if shape[0] >= 16 else 1


def teacher(shape, classes):
    """Makes a convolutional network with over ten times the student's weights and a hundred times its operations."""
    inputs = keras.Input(shape)
    x = convolved(inputs, 32, _stem_strides(shape), name="block_1")
    x = convolved(x, 64, name="block_2")
    x = convolved(x, 64, strides=2, name="block_3")
    x = convolved(x, 128, name="block_4")
    x = layers.Dropout(0.3)(layers.Flatten()(x))
    x = layers.Dropout(0.3)(layers.Dense(128, activation="relu", name="hidden")(x))
    return keras.Model(inputs, layers.Dense(classes, name="logits")(x), name="teacher")


def student(shape, classes):
    """Makes a depthwise separable network for a microcontroller."""
    inputs = keras.Input(shape)
    x = convolved(inputs, 16, _stem_strides(shape), name="block_1")
    x = _separable(x, 32, strides=2, name="block_2")
    x = layers.Dense(64, activation="relu", name="hidden")(layers.Flatten()(x))
    return keras.Model(inputs, layers.Dense(classes, name="logits")(x), name="student")


def transformer(shape, classes, blocks, width, heads, name):
    """Makes a transformer encoder that takes an image as the sequence of its rows.

    Block i ends in the layer `block_i`, of shape (batch, rows, width); its attention is `attention_i`.

    Args:
        shape: (rows, columns) or (rows, columns, 1).
        classes: Number of logits.
        blocks: Number of blocks.
        width: Width of the residual stream, divisible by `heads`.
        heads: Number of attention heads per block.
        name: Name of the model.
    """
    inputs = keras.Input(shape)
    x = layers.Dense(width)(layers.Reshape(shape[:2])(inputs))
    positions = layers.Embedding(shape[0], width, name="positions")(keras.ops.arange(shape[0])[None])
    x = layers.Add()([x, positions])
    for i in range(1, blocks + 1):
        y = layers.LayerNormalization(epsilon=1e-6)(x)
        y = layers.MultiHeadAttention(heads, width // heads, name=f"attention_{i}")(y, y)
        x = layers.Add()([x, y])
        y = layers.LayerNormalization(epsilon=1e-6)(x)
        y = layers.Dense(width)(layers.Dense(2 * width, activation="gelu")(y))
        x = layers.Add(name=f"block_{i}")([x, y])
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization(epsilon=1e-6)(x))
    return keras.Model(inputs, layers.Dense(classes, name="logits")(x), name=name)
