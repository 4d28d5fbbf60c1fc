"""Small Keras 3 models of many kinds, as rows of tables. Every builder can be called without arguments and returns a built model."""

import keras
import numpy as np
from keras import layers, ops


def randomize(model, seed=0):
    """Gives every weight a random value, so that an exchanged or forgotten one shows; variances stay positive. Returns the model."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        values = rng.normal(0.0, 0.2, weight.shape)
        if "variance" in weight.name:
            values = 0.5 + np.abs(values)
        elif weight.name in ("gamma", "scale"):
            values = 1.0 + values
        weight.assign(values)
    return model


def conv1d_net():
    inputs = keras.Input((16, 3), name="signal")
    x = layers.Conv1D(8, 3, padding="same", activation="relu")(inputs)
    x = layers.MaxPooling1D(2)(x)
    x = layers.Conv1D(8, 3, padding="causal", dilation_rate=2)(x)
    x = layers.BatchNormalization()(x)
    x = layers.Activation("relu")(x)
    return keras.Model(inputs, layers.Dense(4)(layers.GlobalAveragePooling1D()(x)), name="conv1d_net")


def lstm(steps=8):
    return keras.Sequential(
        [keras.Input((steps, 5)), layers.LSTM(6, return_sequences=True), layers.LSTM(4), layers.Dense(3, activation="softmax")], name="lstm"
    )


def gru(steps=8):
    return keras.Sequential([keras.Input((steps, 5)), layers.GRU(6), layers.Dense(3)], name="gru")


def bidirectional_gru(steps=8):
    inputs = keras.Input((steps,), dtype="int32", name="tokens")
    x = layers.Embedding(20, 6, mask_zero=True)(inputs)
    x = layers.Bidirectional(layers.GRU(4))(x)
    return keras.Model(inputs, layers.Dense(2)(x), name="bidirectional_gru")


def _block(x, heads, width, index):
    attended = layers.MultiHeadAttention(heads, width // heads, name=f"attention_{index}")(x, x)
    x = layers.LayerNormalization(epsilon=1e-6, name=f"norm_{index}a")(layers.Add(name=f"add_{index}a")([x, attended]))
    hidden = layers.Dense(2 * width, activation="gelu", name=f"wide_{index}")(x)
    hidden = layers.Dense(width, name=f"narrow_{index}")(hidden)
    return layers.LayerNormalization(epsilon=1e-6, name=f"norm_{index}b")(layers.Add(name=f"add_{index}b")([x, hidden]))


def transformer_encoder():
    inputs = keras.Input((8, 8), name="sequence")
    x = layers.Dense(8, name="embed")(inputs)
    for i in range(2):
        x = _block(x, 2, 8, i)
    return keras.Model(inputs, layers.Dense(3, name="logits")(layers.GlobalAveragePooling1D()(x)), name="transformer_encoder")


def vit():
    inputs = keras.Input((16, 16, 3), name="image")
    x = layers.Rescaling(1 / 127.5, offset=-1.0)(inputs)
    x = layers.Conv2D(8, 4, strides=4, name="patches")(x)
    x = layers.Reshape((16, 8))(x)
    places = ops.ones_like(x[:, :, 0], dtype="int32") * np.arange(16, dtype="int32")
    x = x + layers.Embedding(16, 8, name="position")(places)
    x = _block(x, 2, 8, 0)
    return keras.Model(inputs, layers.Dense(3)(x[:, 0]), name="vit")


def siamese():
    tower = keras.Sequential([keras.Input((6,)), layers.Dense(5, activation="tanh"), layers.Dense(4)], name="tower")
    left, right = keras.Input((6,), name="left"), keras.Input((6,), name="right")
    distance = layers.Subtract()([tower(left), tower(right)])
    shared = layers.Dense(4, name="shared")
    return keras.Model([left, right], layers.Dense(1)(shared(ops.abs(shared(distance)))), name="siamese")


def two_in_two_out():
    image, numbers = keras.Input((8, 8, 1), name="image"), keras.Input((5,), name="numbers")
    x = layers.Flatten()(layers.Conv2D(3, 3, strides=2)(image))
    x = layers.Concatenate()([x, layers.Dense(4)(numbers)])
    return keras.Model(
        {"image": image, "numbers": numbers},
        {"kind": layers.Dense(3, name="kind")(x), "size": layers.Dense(1, name="size")(x)},
        name="two_in_two_out",
    )


def nested():
    inner_in = keras.Input((8, 8, 4), name="inner_in")
    inner = keras.Model(inner_in, layers.BatchNormalization()(layers.Conv2D(4, 3, padding="same")(inner_in)), name="inner")
    middle = keras.Sequential([keras.Input((8, 8, 4)), inner, layers.ReLU()], name="middle")
    inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 1, name="stem")(inputs)
    x = layers.Add()([middle(x), x])
    return keras.Model(inputs, layers.Dense(2)(layers.GlobalMaxPooling2D()(x)), name="nested")


@keras.saving.register_keras_serializable("tests")
class Subclassed(keras.Model):
    """A model with a Python loop, an operation and a nested subclassed model in its call."""

    def __init__(self, width=6, depth=2, **kwargs):
        super().__init__(**kwargs)
        self.width, self.depth = width, depth
        self.hidden = [layers.Dense(width, activation="relu", name=f"hidden_{i}") for i in range(depth)]
        self.drop = layers.Dropout(0.5)
        self.head = layers.Dense(3, name="head")

    def call(self, inputs, training=None):
        x = inputs
        for layer in self.hidden:
            x = layer(x)
            x = x + ops.mean(x, axis=-1, keepdims=True)
        return self.head(self.drop(x, training=training))

    def get_config(self):
        return {**super().get_config(), "width": self.width, "depth": self.depth}


def subclassed():
    model = Subclassed(name="subclassed")
    model(np.zeros((2, 7), "float32"))
    return model


def unet():
    inputs = keras.Input((16, 16, 2), name="image")
    one = layers.Conv2D(4, 3, padding="same", activation="relu")(inputs)
    two = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(one)
    up = layers.Conv2DTranspose(4, 3, strides=2, padding="same")(two)
    x = layers.Concatenate()([one, up, layers.UpSampling2D(2, interpolation="bilinear")(two)])
    return keras.Model(inputs, layers.Conv2D(1, 1, activation="sigmoid")(x), name="unet")


def separable():
    return keras.Sequential(
        [
            keras.Input((12, 12, 3)),
            layers.ZeroPadding2D(1),
            layers.SeparableConv2D(6, 3, strides=2, activation="relu"),
            layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2),
            layers.BatchNormalization(),
            layers.ReLU(6.0),
            layers.AveragePooling2D(2),
            layers.Dropout(0.2),
            layers.Flatten(),
            layers.Dense(4),
        ],
        name="separable",
    )


def ops_graph():
    inputs = keras.Input((6, 4), name="x")
    x = ops.transpose(inputs, (0, 2, 1)) * 0.5 + 1.0
    x = ops.pad(x, [[0, 0], [0, 0], [1, 1]])[:, :, 1:-1]
    y = ops.softmax(ops.matmul(x, inputs), axis=-1)
    x = ops.concatenate([y, ops.mean(x, axis=-1, keepdims=True)], axis=-1)
    x = ops.relu(ops.reshape(x, (-1, 20))) / ops.maximum(ops.cast(3, "float32"), 1.0) - np.arange(20, dtype="float32") / 20
    return keras.Model(inputs, layers.Dense(3)(1.0 - ops.silu(x)), name="ops_graph")


def mobile_block():
    """A block as in MobileNetV2 and V3: pointwise and depthwise convolutions, squeeze-and-excitation, hard activations, a sum around all of them."""
    inputs = keras.Input((16, 16, 3), name="image")
    x = body = layers.Conv2D(8, 3, strides=2, padding="same", activation="hard_silu")(inputs)
    x = layers.Activation("hard_silu")(layers.BatchNormalization()(layers.Conv2D(24, 1, use_bias=False)(x)))
    x = layers.ReLU(6.0)(layers.BatchNormalization()(layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x)))
    gate = layers.Conv2D(8, 1, activation="relu")(layers.GlobalAveragePooling2D(keepdims=True)(x))
    x = layers.Multiply()([x, layers.Conv2D(24, 1, activation="hard_sigmoid")(gate)])
    x = layers.Add()([body, layers.BatchNormalization()(layers.Conv2D(8, 1, use_bias=False)(x))])
    return keras.Model(inputs, layers.Dense(4)(layers.GlobalAveragePooling2D()(x)), name="mobile_block")


SMALL = {
    builder.__name__: builder
    for builder in (
        conv1d_net,
        lstm,
        gru,
        bidirectional_gru,
        transformer_encoder,
        vit,
        siamese,
        two_in_two_out,
        nested,
        subclassed,
        unet,
        separable,
        ops_graph,
    )
}

# Family -> a small square image. Where there are normalizations their last blocks see several pixels of it: of one, channels hardly vary, which normalizing blows up.
# Alpha, where there is one, keeps the model small.
_FAMILIES = {
    "VGG16": (32, {}),
    "ResNet50": (64, {}),
    "ResNet50V2": (64, {}),
    "InceptionV3": (107, {}),
    "InceptionResNetV2": (75, {}),
    "Xception": (71, {}),
    "MobileNet": (64, {"alpha": 0.25}),
    "MobileNetV2": (64, {"alpha": 0.35}),
    "MobileNetV3Small": (64, {"alpha": 0.75}),
    "DenseNet121": (64, {}),
    "NASNetMobile": (64, {}),
    "EfficientNetB0": (64, {}),
    "EfficientNetV2B0": (64, {}),
    "ConvNeXtTiny": (32, {}),
}


def family(name):
    """Returns a `keras.applications` model with random weights, small images and ten classes."""
    size, arguments = _FAMILIES[name]
    build = getattr(keras.applications, name)
    if name == "VGG16":  # its two dense layers of 4096 are 90 % of its weights; pooling keeps every convolution
        body = build(weights=None, include_top=False, pooling="avg", input_shape=(size, size, 3))
        return keras.Model(body.inputs, layers.Dense(10, activation="softmax", name="predictions")(body.outputs[0]), name="vgg16")
    return build(weights=None, input_shape=(size, size, 3), classes=10, **arguments)


FAMILIES = tuple(_FAMILIES)
