"""Small models with every way in which channels depend on each other, as rows of tables."""

import functools

import keras
import numpy as np
from keras import layers, ops

from tfdistill.compress import register_channels


@keras.saving.register_keras_serializable("channels")
class Gain(layers.Layer):
    """A layer of the user's own with a weight for each channel."""

    def build(self, shape):
        self.gain = self.add_weight(shape=(shape[-1],), initializer="random_normal")

    def call(self, x):
        return x * self.gain


def gain_rule(call):
    call.weight(call.layer.gain, {0: call.inputs[0][-1]})
    return [call.inputs[0]]


register_channels(Gain, gain_rule)


def images(body, shape=(8, 8, 3)):
    """A model of images with a body in the middle, which ends in logits."""
    inputs = keras.Input(shape, name="image")
    x = body(inputs)
    if len(x.shape) == 4:
        x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(3, name="logits")(x), name="images")


def series(body, shape=(6, 5)):
    """A model of sequences."""
    inputs = keras.Input(shape, name="series")
    x = body(inputs)
    if len(x.shape) == 3:
        x = layers.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, layers.Dense(3, name="logits")(x), name="series")


def conv(filters, size=3, **kwargs):
    return layers.Conv2D(filters, size, padding="same", **kwargs)


def residual(x):
    x = conv(10, activation="relu", name="stem")(x)
    y = layers.BatchNormalization()(conv(12, use_bias=False, name="inner")(x))
    return layers.Add()([x, conv(10, name="outer")(layers.ReLU()(y))])


def squeeze_excite(x):
    x = conv(12, name="body")(x)
    s = layers.GlobalAveragePooling2D(keepdims=True)(x)
    s = conv(12, 1, activation="sigmoid", name="excite")(conv(6, 1, activation="relu", name="squeeze")(s))
    return layers.Multiply()([x, s])


def squeeze_excite_reshaped(x):
    x = conv(12, name="body")(x)
    s = layers.Reshape((1, 1, 12))(layers.GlobalAveragePooling2D()(x))
    return layers.multiply([x, layers.Dense(12, activation="sigmoid", name="gate")(s)])


def concatenated(x):
    a, b = conv(6, name="a")(x), conv(10, name="b")(x)
    return conv(8, name="after")(layers.Concatenate()([a, x, b]))


def dense_net(x):
    for i in range(3):
        x = layers.Concatenate()([x, conv(6, activation="relu", name=f"grow_{i}")(layers.BatchNormalization()(x))])
    return x


def flattened(x):
    x = layers.MaxPooling2D(2)(conv(8, name="first")(x))
    return layers.Dense(10, activation="relu", name="hidden")(layers.Flatten()(x))


def depthwise(x):
    x = layers.ReLU(6.0)(layers.BatchNormalization()(conv(10, name="expand")(x)))
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same", activation="relu", name="depthwise")(x)
    return conv(8, 1, name="project")(x)


def grouped(x):
    return conv(10, name="after")(conv(12, groups=4, activation="relu", name="grouped")(conv(8, name="before")(x)))


def group_with_what_stays(x):
    """The first group of channels has those of the image in it."""
    x = layers.Concatenate()([x, conv(9, name="before")(x)])
    return layers.GroupNormalization(3)(conv(12, groups=3, name="grouped")(x))


def channel_shuffle(x):
    x = conv(12, groups=1, name="before")(x)
    x = layers.Reshape((8, 8, 3, 4))(x)
    return conv(6, name="after")(layers.Reshape((8, 8, 12))(layers.Permute((1, 2, 4, 3))(x)))


def separable(x):
    return conv(6, name="after")(layers.SeparableConv2D(10, 3, depth_multiplier=2, name="separable")(conv(8, name="before")(x)))


def transposed(x):
    x = layers.Conv2DTranspose(8, 3, strides=2, padding="same", name="up")(conv(10, name="before")(x))
    return conv(6, name="after")(layers.ZeroPadding2D(1)(layers.UpSampling2D(2)(layers.Cropping2D(1)(x))))


def normalized(x):
    x = layers.LayerNormalization()(conv(10, name="first")(x))
    x = layers.GroupNormalization(4)(conv(12, name="second")(x))
    x = layers.GroupNormalization(1)(conv(9, name="third")(x))
    x = layers.RMSNormalization()(conv(7, name="fourth")(x)) if hasattr(layers, "RMSNormalization") else x
    return layers.UnitNormalization()(layers.PReLU(shared_axes=(1, 2))(conv(8, name="fifth")(x)))


def one_activation_each(x):
    for i, layer in enumerate((layers.PReLU(), layers.LeakyReLU(), layers.ELU(), layers.Activation("gelu"), layers.Dropout(0.2))):
        x = layer(conv(8, name=f"conv_{i}")(x))
    return layers.SpatialDropout2D(0.1)(layers.AveragePooling2D(2)(x))


def softmax_inside(x):
    x = conv(4, activation="softmax", name="map")(conv(8, name="first")(x))
    return layers.Softmax()(conv(4, name="last")(conv(16, name="middle")(x)))


def merges(x):
    a, b, c = (conv(8, name=name)(x) for name in "abc")
    return layers.Maximum()([layers.Minimum()([a, b]), layers.Average()([layers.Subtract()([a, c]), b])])


def shared(x):
    one = conv(8, activation="relu", name="shared")
    return one(one(conv(8, name="before")(x)))


def nested(x):
    inner = keras.Input((8, 8, 10))
    body = keras.Model(inner, layers.BatchNormalization()(conv(6, activation="relu", name="inside")(inner)), name="nest")
    line = keras.Sequential([conv(10, name="in_line"), layers.ReLU()], name="line")
    return line(body(line(body(conv(10, name="before")(x)))))


def called_again(x):
    """A nested model and a layer without weights, which are called on channels of several layers."""
    inner = keras.Input((8, 8, 12))
    halves = keras.Model(inner, layers.MaxPooling2D(2)(layers.ReLU()(inner)), name="halves")
    free = keras.Input((8, 8, None))
    any_width = keras.Model(free, layers.ReLU()(free), name="any_width")
    first, second = conv(12, name="first")(x), conv(12, name="second")(x)
    flat = layers.Reshape((16, 12), name="flat")
    y = layers.Concatenate()([flat(halves(first)), flat(halves(second))])
    z = layers.Concatenate()([any_width(conv(6, name="narrow")(x)), any_width(second)])
    return layers.Concatenate()([layers.GlobalAveragePooling1D()(y), layers.GlobalAveragePooling2D()(z)])


def of_any_size(x):
    """A nested model that leaves its sizes free, and is called on two of them."""
    free = keras.Input((None, None, 3))
    inner = keras.Model(free, conv(12, name="second")(conv(10, activation="relu", name="first")(free)), name="inner")
    return layers.Concatenate()([layers.GlobalAveragePooling2D()(inner(y)) for y in (x, layers.MaxPooling2D(2)(x))])


def augmented(x):
    """Layers that change images in training alone."""
    x = keras.Sequential([layers.RandomFlip(), layers.RandomTranslation(0.2, 0.2)], name="augmentation")(x)
    return conv(6, name="last")(layers.GaussianNoise(0.5)(conv(10, name="first")(layers.RandomContrast(0.5)(x))))


def called_by_name(x):
    x = layers.LayerNormalization()(inputs=conv(8, name="first")(inputs=x))
    return layers.Conv2DTranspose(6, 3, name="last")(inputs=x)


def channels_first_norm(x):
    x = layers.BatchNormalization(axis=1)(layers.Permute((3, 1, 2))(conv(8, name="first")(x)))
    return conv(6, name="after")(layers.Permute((2, 3, 1))(x))


def operations(x):
    x = ops.relu6(conv(8, name="first")(x) + 3.0) / 6.0
    a, b = ops.split(conv(12, name="both")(x), 2, axis=-1)
    x = ops.concatenate([a * ops.sigmoid(b), ops.silu(x)], axis=-1)
    x = ops.transpose(ops.expand_dims(x, 1), (0, 1, 4, 2, 3))
    x = ops.transpose(ops.squeeze(x, 1), (0, 2, 3, 1))
    return ops.mean(ops.reshape(conv(9, name="last")(x), (-1, 64, 9)), axis=1)


def picked(x):
    return conv(8, name="after")(conv(8, name="first")(x)[:, 1:, ..., :4])


def split_in_half(x):
    a, b = ops.split(conv(12, name="first")(x), 2, axis=-1)
    return conv(6, name="after")(ops.concatenate([b, a], axis=-1))


def custom(x):
    return conv(6, name="after")(Gain(name="gain")(conv(8, name="first")(x)))


def volume(x):
    x = layers.Conv3D(8, 2, padding="same", name="first")(layers.Reshape((4, 4, 4, 3))(x))
    x = layers.Conv3DTranspose(6, 2, padding="same", name="second")(layers.MaxPooling3D(2)(x))
    return layers.GlobalMaxPooling3D()(x)


def attention(x):
    x = layers.Dense(8, name="embed")(x)
    y = layers.MultiHeadAttention(4, 6, value_dim=5, name="attention")(layers.LayerNormalization()(x), x)
    x = layers.Add()([x, y])
    y = layers.Dense(8, name="down")(layers.Dense(12, activation="gelu", name="up")(layers.LayerNormalization()(x)))
    return layers.Add()([x, y])


def grouped_attention(x):
    x = layers.Dense(8, name="embed")(x)
    return layers.Add()([x, layers.GroupQueryAttention(6, 4, 2, name="attention")(x, x)])


def own_attention(x):
    def heads(name):
        return ops.transpose(ops.reshape(layers.Dense(12, name=name)(x), (-1, 6, 4, 3)), (0, 2, 1, 3))

    q, k, v = heads("q"), heads("k"), heads("v")
    scores = ops.softmax(ops.matmul(q, ops.transpose(k, (0, 1, 3, 2))) / 3.0**0.5, axis=-1)
    y = ops.reshape(ops.transpose(ops.matmul(scores, v), (0, 2, 1, 3)), (-1, 6, 12))
    return layers.Dense(5, name="out")(y) + x


def einsum(x):
    y = layers.EinsumDense("abc,cde->abde", (None, 4, 3), bias_axes="de", name="split")(x)
    y = layers.EinsumDense("abde,def->abf", (None, 8), bias_axes="f", activation="relu", name="join")(y)
    return ops.einsum("abc,abd->acd", y, layers.Dense(6, name="other")(x))


def recurrent(x):
    x = layers.LSTM(8, return_sequences=True, name="lstm")(x)
    x = layers.GRU(7, return_sequences=True, name="gru")(x)
    return layers.SimpleRNN(6, return_sequences=True, name="rnn")(x)


def bidirectional(x):
    x = layers.Bidirectional(layers.LSTM(6, return_sequences=True), name="both")(x)
    return layers.Bidirectional(layers.GRU(5, reset_after=False), merge_mode="sum", name="sum")(x)


def states(x):
    y, h, c = layers.LSTM(6, return_sequences=True, return_state=True, name="encoder")(x)
    return layers.LSTM(6, name="decoder")(y, initial_state=[h, c])


def masked_by_hand(x):
    mask = ops.any(ops.not_equal(x, 0.0), axis=-1)
    y = layers.LSTM(6, return_sequences=True, name="first")(x, mask=mask)
    y = layers.MultiHeadAttention(2, 4, name="attention")(query=y, value=y, use_causal_mask=True)
    return layers.GRU(6, name="second")(y, mask=mask)


def timed(x):
    x = layers.TimeDistributed(layers.Dense(8, activation="relu"), name="timed")(x)
    return layers.Conv1D(6, 3, name="after")(layers.TimeDistributed(layers.BatchNormalization())(x))


def one_dimension(x):
    x = layers.DepthwiseConv1D(3, padding="same", name="depthwise")(layers.Conv1D(8, 3, padding="same", name="first")(x))
    x = layers.SeparableConv1D(10, 3, padding="same", name="separable")(layers.MaxPooling1D(2)(x))
    return layers.Flatten()(layers.Conv1DTranspose(6, 3, padding="same", name="up")(x))


def repeated(x):
    y = layers.RepeatVector(6)(layers.Dense(4, name="context")(layers.GlobalMaxPooling1D()(x)))
    return layers.Dense(6, name="after")(layers.Concatenate()([x, y]))


def tokens():
    inputs = keras.Input((6,), dtype="int32", name="tokens")
    x = layers.Embedding(12, 8, mask_zero=True, name="embedding")(inputs)
    x = layers.LSTM(6, return_sequences=True, name="lstm")(x)
    x = layers.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, layers.Dense(3, name="logits")(x), name="tokens")


def tied():
    """A table that tokens are looked up in, and that gives the logits."""
    inputs = keras.Input((6,), dtype="int32", name="tokens")
    table = layers.ReversibleEmbedding(12, 8, name="table")
    x = table(inputs)
    x = layers.Add()([x, layers.Dense(8, activation="relu", name="hidden")(x)])
    return keras.Model(inputs, layers.GlobalAveragePooling1D()(table(x, reverse=True)), name="tied")


def several():
    """Several inputs and outputs."""
    image, side = keras.Input((8, 8, 3), name="image"), keras.Input((4,), name="side")
    x = layers.GlobalAveragePooling2D()(conv(10, activation="relu", name="first")(image))
    x = layers.Concatenate()([x, layers.Dense(6, name="side_dense")(side)])
    x = layers.Dense(8, activation="relu", name="joint")(x)
    outputs = {"classes": layers.Dense(3, name="classes")(x), "number": layers.Dense(1, name="number")(x)}
    return keras.Model({"image": image, "side": side}, outputs, name="several")


def sequential():
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            conv(8, activation="relu", name="first"),
            layers.BatchNormalization(name="norm"),
            layers.Flatten(),
            layers.Dense(10, activation="relu", name="hidden"),
            layers.Dense(3, name="logits"),
        ],
        name="line",
    )


class Block(keras.Model):
    """A subclassed model, which is opened."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first = layers.Dense(8, activation="relu", name="first")
        self.blocks = [layers.Dense(8, activation="relu", name=f"block_{i}") for i in range(2)]
        self.head = layers.Dense(3, name="head")

    def call(self, x):
        x = self.first(x)
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)


class Twins(keras.Model):
    """A subclassed model whose attributes and layers have other names, and a nested one."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.one, self.two = (layers.Dense(8, activation="relu", name=f"twin_{i}") for i in range(2))
        self.body = Block(name="body")

    def call(self, x):
        return self.body(self.two(self.one(x)))


def twins():
    model = Twins(name="twins")
    model(np.zeros((1, 5), "float32"))
    return model


def subclassed():
    model = Block(name="subclassed")
    model(np.zeros((1, 5), "float32"))
    return model


IMAGES = [
    residual,
    squeeze_excite,
    squeeze_excite_reshaped,
    concatenated,
    dense_net,
    flattened,
    depthwise,
    grouped,
    group_with_what_stays,
    channel_shuffle,
    separable,
    transposed,
    normalized,
    one_activation_each,
    merges,
    shared,
    nested,
    called_again,
    augmented,
    called_by_name,
    of_any_size,
    channels_first_norm,
    operations,
    picked,
    split_in_half,
    custom,
]
SERIES = [attention, grouped_attention, own_attention, recurrent, bidirectional, states, masked_by_hand, timed, one_dimension, repeated]
MODELS = {
    **{body.__name__: functools.partial(images, body) for body in IMAGES},
    "softmax_inside": functools.partial(images, softmax_inside),
    "volume": functools.partial(images, volume, (8, 8, 3)),
    **{body.__name__: functools.partial(series, body) for body in SERIES},
    "einsum": functools.partial(series, lambda x: layers.Flatten()(einsum(x))),
    "tokens": tokens,
    **({"tied": tied} if hasattr(layers, "ReversibleEmbedding") else {}),
    "several": several,
    "sequential": sequential,
    "subclassed": subclassed,
    "twins": twins,
}


def randomized(model, seed=0):
    """Gives every weight a random value, so that nothing is hidden by zeros and ones."""
    rng = np.random.default_rng(seed)
    for w in model.weights:
        value = rng.normal(size=w.shape) * 0.5
        w.assign(np.abs(value) + 0.5 if "variance" in w.name or "gamma" in w.name else value)
    return model
