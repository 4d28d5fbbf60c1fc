"""The demo's teacher and student. Their blocks have names, so that losses can tap them: `block_1`, `block_2`, ... and `hidden`."""

import keras
from keras import layers

# Keras's default of 0.99 needs far more steps than the demo has to find the statistics.
MOMENTUM = 0.9


def convolved(x, filters, strides=1, size=3, name=None):
    """Convolution, batch normalization and ReLU; `name` is the ReLU's."""
    x = layers.Conv2D(filters, size, strides=strides, padding="same", use_bias=False)(x)
    return layers.ReLU(name=name)(layers.BatchNormalization(momentum=MOMENTUM)(x))


def _separable(x, filters, strides=1, name=None):
    x = layers.DepthwiseConv2D(3, strides=strides, padding="same", use_bias=False)(x)
    x = layers.ReLU()(layers.BatchNormalization(momentum=MOMENTUM)(x))
    return convolved(x, filters, size=1, name=name)


def _stem_strides(shape):
    # 28 x 28 images are halved at once, 8 x 8 ones are not.
    return 2 if shape[0] >= 16 else 1


def teacher(shape, classes):
    """A convolutional net of over ten times the student's weights and a hundred times its computation."""
    inputs = keras.Input(shape)
    x = convolved(inputs, 32, _stem_strides(shape), name="block_1")
    x = convolved(x, 64, name="block_2")
    x = convolved(x, 64, strides=2, name="block_3")
    x = convolved(x, 128, name="block_4")
    x = layers.Dropout(0.3)(layers.Flatten()(x))
    x = layers.Dropout(0.3)(layers.Dense(128, activation="relu", name="hidden")(x))
    return keras.Model(inputs, layers.Dense(classes, name="logits")(x), name="teacher")


def student(shape, classes):
    """A depthwise separable net for a small board."""
    inputs = keras.Input(shape)
    x = convolved(inputs, 16, _stem_strides(shape), name="block_1")
    x = _separable(x, 32, strides=2, name="block_2")
    x = layers.Dense(64, activation="relu", name="hidden")(layers.Flatten()(x))
    return keras.Model(inputs, layers.Dense(classes, name="logits")(x), name="student")
