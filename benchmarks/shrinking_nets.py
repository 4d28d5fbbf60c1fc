"""The nets of `benchmarks/shrinking.py`: like ResNet, VGG and MobileNetV2, of 1.5 to 2.7 million multiply-accumulates on images of 28 x 28."""

import keras

L = keras.layers
MOMENTUM = 0.9


def _normalized(x):
    return L.BatchNormalization(momentum=MOMENTUM)(x)


def _convolution(x, width, strides=1, size=3):
    return _normalized(L.Conv2D(width, size, strides, padding="same", use_bias=False)(x))


def _basic(x, width, strides):
    """A basic residual block (He et al., 2016)."""
    y = _convolution(L.ReLU()(_convolution(x, width, strides)), width)
    if strides != 1 or x.shape[-1] != width:
        x = _convolution(x, width, strides, 1)
    return L.ReLU()(L.Add()([x, y]))


def _inverted(x, width, strides):
    """An inverted residual block (Sandler et al., 2018)."""
    inputs = x
    x = L.ReLU(6.0)(_convolution(x, 4 * x.shape[-1], size=1))
    x = L.ReLU(6.0)(_normalized(L.DepthwiseConv2D(3, strides, padding="same", use_bias=False)(x)))
    x = _convolution(x, width, size=1)
    return L.Add()([inputs, x]) if strides == 1 and width == inputs.shape[-1] else x


def resnet(inputs):
    x = L.ReLU()(_convolution(inputs, 16))
    for width in (16, 32, 64):
        x = _basic(x, width, 2)
    return L.GlobalAveragePooling2D()(x)


def vgg(inputs):
    x = inputs
    for widths in ((12,), (16, 16), (32, 32)):
        for width in widths:
            x = L.ReLU()(_convolution(x, width))
        x = L.MaxPooling2D()(x)
    return L.ReLU()(_normalized(L.Dense(64, use_bias=False, name="hidden")(L.Flatten()(x))))


def mobilenet(inputs):
    x = L.ReLU(6.0)(_convolution(inputs, 8))
    for width, strides in ((16, 2), (24, 2), (24, 1), (32, 2), (32, 1)):
        x = _inverted(x, width, strides)
    return L.GlobalAveragePooling2D()(L.ReLU(6.0)(_convolution(x, 64, size=1)))


NETS = {"resnet": resnet, "vgg": vgg, "mobilenet": mobilenet}


def net(name, shape):
    """Returns a net, not trained."""
    inputs = keras.Input(shape, name="image")
    return keras.Model(inputs, L.Dense(10, name="logits")(NETS[name](inputs)), name=name)
