"""The demo's teacher and student."""

import keras
from keras import layers

# Keras's default of 0.99 needs far more steps than the demo has to find the statistics.
MOMENTUM = 0.9


def convolved(x, filters, strides=1, size=3):
    x = layers.Conv2D(filters, size, strides=strides, padding="same", use_bias=False)(x)
    return layers.ReLU()(layers.BatchNormalization(momentum=MOMENTUM)(x))


def _separable(x, filters, strides=1):
    x = layers.DepthwiseConv2D(3, strides=strides, padding="same", use_bias=False)(x)
    x = layers.ReLU()(layers.BatchNormalization(momentum=MOMENTUM)(x))
    return convolved(x, filters, size=1)


def _stem_strides(shape):
    # 28 x 28 images are halved at once, 8 x 8 ones are not.
    return 2 if shape[0] >= 16 else 1


def teacher(shape, classes):
    """A convolutional net, about twenty times the student's computation."""
    inputs = keras.Input(shape)
    x = convolved(inputs, 32, _stem_strides(shape))
    x = convolved(x, 64)
    x = convolved(x, 64, strides=2)
    x = convolved(x, 128)
    x = layers.Dropout(0.3)(layers.Flatten()(x))
    x = layers.Dropout(0.3)(layers.Dense(128, activation="relu")(x))
    return keras.Model(inputs, layers.Dense(classes, name="logits")(x), name="teacher")


def student(shape, classes):
    """A depthwise separable net for a small board."""
    inputs = keras.Input(shape)
    x = convolved(inputs, 16, _stem_strides(shape))
    x = _separable(x, 32, strides=2)
    x = layers.Dense(64, activation="relu")(layers.Flatten()(x))
    return keras.Model(inputs, layers.Dense(classes, name="logits")(x), name="student")
