"""Four reference nets of MLPerf Tiny (Banbury et al., 2021, https://arxiv.org/abs/2106.07597) written in Keras 3, layer by layer as their trained nets are.

The biases before the normalizations, which do nothing, are theirs: with them, the weights of the benchmark's .h5 files fit in, in their order.
"""

import keras

L = keras.layers
DECAY = keras.regularizers.L2(1e-4)


def _convolved(x, filters, size, strides=1, relu=True):
    x = L.Conv2D(filters, size, strides, padding="same", kernel_initializer="he_normal", kernel_regularizer=DECAY)(x)
    x = L.BatchNormalization()(x)
    return L.ReLU()(x) if relu else x


def _separable(x, filters, strides=1):
    """A depthwise and a pointwise convolution (Howard et al., 2017, https://arxiv.org/abs/1704.04861)."""
    x = L.DepthwiseConv2D(3, strides, padding="same")(x)
    return _convolved(L.ReLU()(L.BatchNormalization()(x)), filters, 1)


def resnet8():
    """ResNet (He et al., 2016, https://arxiv.org/abs/1512.03385) of three blocks for CIFAR-10: images of 32 x 32 x 3 to ten classes."""
    inputs = keras.Input((32, 32, 3))
    x = _convolved(inputs, 16, 3)
    for filters, strides in ((16, 1), (32, 2), (64, 2)):
        y = _convolved(_convolved(x, filters, 3, strides), filters, 3, relu=False)
        if strides > 1:
            # Unlike the paper's, without a normalization.
            x = L.Conv2D(filters, 1, strides, padding="same", kernel_initializer="he_normal", kernel_regularizer=DECAY)(x)
        x = L.ReLU()(L.Add()([x, y]))
    x = L.Flatten()(L.AveragePooling2D(8)(x))
    return keras.Model(inputs, L.Dense(10, "softmax")(x), name="resnet8")


def mobilenet_v1():
    """MobileNetV1 of a quarter of the width for the visual wake words: images of 96 x 96 x 3 to two classes."""
    inputs = keras.Input((96, 96, 3))
    x = _convolved(inputs, 8, 3, 2)
    for filters, strides in ((16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (128, 2), *[(128, 1)] * 5, (256, 2), (256, 1)):
        x = _separable(x, filters, strides)
    x = L.Flatten()(L.AveragePooling2D(3)(x))
    return keras.Model(inputs, L.Dense(2, "softmax")(x), name="mobilenet_v1")


def autoencoder():
    """The autoencoder of dense layers for sounds of machines: windows of five spectra of 128 bands, 640 numbers, through eight to the same."""
    x = inputs = keras.Input((640,))
    for units in (*[128] * 4, 8, *[128] * 4):
        x = L.ReLU()(L.BatchNormalization()(L.Dense(units)(x)))
    return keras.Model(inputs, L.Dense(640)(x), name="autoencoder")


def ds_cnn():
    """DS-CNN (Zhang et al., 2017, https://arxiv.org/abs/1711.07128) for spoken words: 49 frames of ten cepstral coefficients to twelve classes."""
    inputs = keras.Input((49, 10, 1))
    x = L.Dropout(0.2)(_convolved(inputs, 64, (10, 4), 2))
    for _ in range(4):
        x = _separable(x, 64)
    x = L.Flatten()(L.AveragePooling2D((24, 5))(L.Dropout(0.4)(x)))
    return keras.Model(inputs, L.Dense(12, "softmax")(x), name="ds_cnn")


# Function that makes a net -> its parameters, and the bytes of the benchmark's int8 file.
PUBLISHED = {resnet8: (78_666, 98_496), mobilenet_v1: (221_794, 333_288), autoencoder: (269_992, 276_976), ds_cnn: (24_908, 53_936)}
