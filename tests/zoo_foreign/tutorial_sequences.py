"""Small models for text, series, tables and sets, built the way keras.io's tutorials build them. Every builder takes nothing and returns a built model.

Their layers are written as users write them: sublayers made in `__init__`, no `build`, own weights beside sublayers, masks made in `call`, no `get_config`.
"""

import keras
import numpy as np
from keras import layers, ops

TOKENS, LENGTH, WIDTH = 30, 10, 8


class TransformerBlock(layers.Layer):
    """Attention and a small network, each with its residual connection."""

    def __init__(self, width, heads, hidden, rate=0.1):
        super().__init__()
        self.att = layers.MultiHeadAttention(num_heads=heads, key_dim=width)
        self.ffn = keras.Sequential([layers.Dense(hidden, activation="relu"), layers.Dense(width)])
        self.layernorm1 = layers.LayerNormalization(epsilon=1e-6)
        self.layernorm2 = layers.LayerNormalization(epsilon=1e-6)
        self.dropout1 = layers.Dropout(rate)
        self.dropout2 = layers.Dropout(rate)

    def call(self, inputs):
        out1 = self.layernorm1(inputs + self.dropout1(self.att(inputs, inputs)))
        return self.layernorm2(out1 + self.dropout2(self.ffn(out1)))


class TokenAndPosition(layers.Layer):
    """Two tables of vectors, one for the token and one for its place."""

    def __init__(self, length, tokens, width, mask_zero=False):
        super().__init__()
        self.token_emb = layers.Embedding(input_dim=tokens, output_dim=width, mask_zero=mask_zero)
        self.pos_emb = layers.Embedding(input_dim=length, output_dim=width)
        self.supports_masking = mask_zero

    def call(self, x):
        positions = ops.arange(start=0, stop=ops.shape(x)[-1], step=1)
        return self.token_emb(x) + self.pos_emb(positions)


def text_transformer():
    inputs = layers.Input(shape=(LENGTH,), dtype="int32")
    x = TokenAndPosition(LENGTH, TOKENS, WIDTH)(inputs)
    x = TransformerBlock(WIDTH, 2, 16)(x)
    x = layers.GlobalAveragePooling1D()(x)
    x = layers.Dropout(0.1)(x)
    x = layers.Dense(8, activation="relu")(x)
    return keras.Model(inputs, layers.Dense(2, activation="softmax")(layers.Dropout(0.1)(x)), name="text_transformer")


class EntityTagger(keras.Model):
    """A label for every token, as a subclassed model."""

    def __init__(self):
        super().__init__(name="entity_tagger")
        self.embedding = TokenAndPosition(LENGTH, TOKENS, WIDTH)
        self.block = TransformerBlock(WIDTH, 2, 16)
        self.dropout1 = layers.Dropout(0.1)
        self.ff = layers.Dense(8, activation="relu")
        self.ff_final = layers.Dense(5, activation="softmax")

    def call(self, inputs, training=False):
        x = self.dropout1(self.block(self.embedding(inputs)), training=training)
        return self.ff_final(self.ff(x))


def entity_tagger():
    model = EntityTagger()
    model(np.zeros((1, LENGTH), "int32"))
    return model


def bidirectional_lstm():
    inputs = keras.Input(shape=(LENGTH,), dtype="int32")
    x = layers.Embedding(TOKENS, WIDTH)(inputs)
    x = layers.Bidirectional(layers.LSTM(4, return_sequences=True))(x)
    x = layers.Bidirectional(layers.LSTM(4))(x)
    return keras.Model(inputs, layers.Dense(1, activation="sigmoid")(x), name="bidirectional_lstm")


def adding_numbers():
    model = keras.Sequential(name="adding_numbers")
    model.add(layers.Input((6, 12)))
    model.add(layers.LSTM(8))
    model.add(layers.RepeatVector(4))
    model.add(layers.LSTM(8, return_sequences=True))
    model.add(layers.Dense(12, activation="softmax"))
    return model


class FourierBlock(layers.Layer):
    """Mixing of tokens by a Fourier transform in place of attention."""

    def __init__(self, width, hidden):
        super().__init__()
        self.ffn = keras.Sequential([layers.Dense(hidden, activation="gelu"), layers.Dense(width)])
        self.normalize1 = layers.LayerNormalization(epsilon=1e-6)
        self.normalize2 = layers.LayerNormalization(epsilon=1e-6)

    def call(self, inputs):
        mixed, _ = ops.fft2((inputs, ops.zeros_like(inputs)))
        x = self.normalize1(inputs + mixed)
        return self.normalize2(x + self.ffn(x))


def fourier_text():
    inputs = layers.Input(shape=(8,), dtype="int32")
    x = FourierBlock(WIDTH, 16)(TokenAndPosition(8, TOKENS, WIDTH)(inputs))
    return keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling1D()(x)), name="fourier_text")


class CaptionDecoder(layers.Layer):
    """Causal self-attention on the words, then attention on the image; the mask is made in `call`."""

    def __init__(self, width, hidden, heads):
        super().__init__()
        self.self_attention = layers.MultiHeadAttention(heads, width)
        self.cross_attention = layers.MultiHeadAttention(heads, width)
        self.dense = [layers.Dense(hidden, activation="relu"), layers.Dense(width)]
        self.norms = [layers.LayerNormalization() for _ in range(3)]

    def call(self, inputs, encoded, mask=None, training=False):
        length = ops.shape(inputs)[1]
        i = ops.arange(length)[:, None]
        causal = ops.cast(i >= ops.arange(length), "int32")[None]
        if mask is not None:
            causal = ops.minimum(causal, ops.cast(mask[:, None, :], "int32"))
        x = self.self_attention(query=inputs, value=inputs, key=inputs, attention_mask=causal, training=training)
        x = self.norms[0](inputs + x)
        x = self.norms[1](x + self.cross_attention(query=x, value=encoded, key=encoded, training=training))
        y = x
        for layer in self.dense:
            y = layer(y)
        return self.norms[2](x + y)


def image_captioning():
    image, words = keras.Input((16, 16, 3), name="image"), keras.Input((LENGTH,), dtype="int32", name="words")
    features = layers.Conv2D(WIDTH, 4, strides=4, activation="relu")(image)
    features = layers.Reshape((16, WIDTH))(features)
    features = layers.Dense(WIDTH, activation="relu")(layers.LayerNormalization()(features))
    embedded = TokenAndPosition(LENGTH, TOKENS, WIDTH, mask_zero=True)(words)
    x = CaptionDecoder(WIDTH, 16, 2)(embedded, features)
    return keras.Model([image, words], layers.Dense(TOKENS, activation="softmax")(x), name="image_captioning")


class MaskedTranslator(layers.Layer):
    """An encoder that knows the padding, with its own rule for the mask."""

    def __init__(self, width):
        super().__init__()
        self.attention = layers.MultiHeadAttention(2, width)
        self.norm = layers.LayerNormalization()
        self.supports_masking = True

    def call(self, inputs, mask=None):
        padding = None if mask is None else ops.cast(mask[:, None, :], "int32")
        return self.norm(inputs + self.attention(query=inputs, value=inputs, key=inputs, attention_mask=padding))


def translation():
    source, target = keras.Input((LENGTH,), dtype="int64", name="source"), keras.Input((LENGTH,), dtype="int64", name="target")
    encoded = MaskedTranslator(WIDTH)(layers.Embedding(TOKENS, WIDTH, mask_zero=True)(source))
    decoded = CaptionDecoder(WIDTH, 16, 2)(layers.Embedding(TOKENS, WIDTH, mask_zero=True)(target), encoded)
    return keras.Model([source, target], layers.Dense(TOKENS)(decoded), name="translation")


def series_transformer():
    inputs = keras.Input((16, 2), name="series")
    x = inputs
    for _ in range(2):
        y = layers.LayerNormalization(epsilon=1e-6)(layers.MultiHeadAttention(key_dim=4, num_heads=2, dropout=0.1)(x, x))
        residual = y + x
        y = layers.Conv1D(4, 1, activation="relu")(residual)
        y = layers.LayerNormalization(epsilon=1e-6)(layers.Conv1D(2, 1)(layers.Dropout(0.1)(y)))
        x = y + residual
    x = layers.GlobalAveragePooling1D(data_format="channels_last")(x)
    return keras.Model(inputs, layers.Dense(3, activation="softmax")(layers.Dense(8, activation="relu")(x)), name="series_transformer")


def one_channel_transformer():
    inputs = keras.Input((12, 1), name="series")
    attended = layers.MultiHeadAttention(key_dim=4, num_heads=2)(inputs, inputs)
    x = layers.LayerNormalization(epsilon=1e-6)(attended) + inputs
    y = layers.Conv1D(1, 1)(layers.Conv1D(4, 1, activation="relu")(x))
    x = layers.GlobalAveragePooling1D()(x + y)
    return keras.Model(inputs, layers.Dense(2, activation="softmax")(x), name="one_channel_transformer")


def series_convolution():
    inputs = x = keras.Input((24, 1), name="series")
    for _ in range(3):
        x = layers.ReLU()(layers.BatchNormalization()(layers.Conv1D(8, 3, padding="same")(x)))
    return keras.Model(inputs, layers.Dense(2, activation="softmax")(layers.GlobalAveragePooling1D()(x)), name="series_convolution")


def wave_net():
    inputs = keras.Input((32, 1), name="audio")
    x = layers.Conv1D(8, 2, padding="causal")(inputs)
    skips = []
    for rate in (1, 2, 4):
        gate = layers.Conv1D(8, 2, dilation_rate=rate, padding="causal", activation="sigmoid")(x)
        value = layers.Conv1D(8, 2, dilation_rate=rate, padding="causal", activation="tanh")(x)
        z = layers.Multiply()([value, gate])
        skips.append(layers.Conv1D(8, 1)(z))
        x = layers.Add()([layers.Conv1D(8, 1)(z), x])
    x = layers.Activation("relu")(layers.Add()(skips))
    return keras.Model(inputs, layers.Conv1D(16, 1, activation="softmax")(layers.Conv1D(8, 1, activation="relu")(x)), name="wave_net")


def speaker_recognition():
    def block(x, filters, depth):
        shortcut = layers.Conv1D(filters, 1, padding="same")(x)
        for _ in range(depth - 1):
            x = layers.Activation("relu")(layers.Conv1D(filters, 3, padding="same")(x))
        x = layers.Add()([layers.Conv1D(filters, 3, padding="same")(x), shortcut])
        return layers.MaxPool1D(pool_size=2, strides=2)(layers.Activation("relu")(x))

    inputs = layers.Input((64, 1), name="input")
    x = block(block(block(inputs, 4, 2), 8, 2), 8, 3)
    x = layers.Flatten()(layers.AveragePooling1D(pool_size=3, strides=3)(x))
    return keras.Model(inputs, layers.Dense(4, activation="softmax")(layers.Dense(16, activation="relu")(x)), name="speaker_recognition")


class GatedLinearUnit(layers.Layer):
    def __init__(self, units):
        super().__init__()
        self.linear = layers.Dense(units)
        self.sigmoid = layers.Dense(units, activation="sigmoid")

    def call(self, inputs):
        return self.linear(inputs) * self.sigmoid(inputs)


class GatedResidual(layers.Layer):
    """A small network that may be passed by; the projection is made when the input's width is known."""

    def __init__(self, units, rate=0.1):
        super().__init__()
        self.units = units
        self.elu_dense = layers.Dense(units, activation="elu")
        self.linear_dense = layers.Dense(units)
        self.dropout = layers.Dropout(rate)
        self.gated_linear_unit = GatedLinearUnit(units)
        self.layer_norm = layers.LayerNormalization()
        self.project = layers.Dense(units)

    def call(self, inputs):
        x = self.dropout(self.linear_dense(self.elu_dense(inputs)))
        if inputs.shape[-1] != self.units:
            inputs = self.project(inputs)
        return self.layer_norm(inputs + self.gated_linear_unit(x))


class VariableSelection(layers.Layer):
    """A weighted sum of features, the weights made from all of them."""

    def __init__(self, features, units):
        super().__init__()
        self.grns = [GatedResidual(units) for _ in range(features)]
        self.grn_concat = GatedResidual(units)
        self.softmax = layers.Dense(features, activation="softmax")

    def call(self, inputs):
        weights = ops.expand_dims(self.softmax(self.grn_concat(layers.concatenate(inputs))), axis=-1)
        features = ops.stack([grn(value) for grn, value in zip(self.grns, inputs, strict=True)], axis=1)
        return ops.squeeze(ops.matmul(ops.transpose(weights, axes=[0, 2, 1]), features), axis=1)


def variable_selection():
    numbers = {name: keras.Input((1,), name=name) for name in ("age", "hours", "gain")}
    kind = keras.Input((), dtype="int32", name="kind")
    encoded = [layers.Dense(WIDTH)(value) for value in numbers.values()] + [layers.Embedding(6, WIDTH)(kind)]
    x = VariableSelection(len(encoded), WIDTH)(encoded)
    return keras.Model({**numbers, "kind": kind}, layers.Dense(1, activation="sigmoid")(x), name="variable_selection")


def wide_and_deep():
    numbers, kind = keras.Input((4,), name="numbers"), keras.Input((1,), dtype="int32", name="kind")
    wide = layers.BatchNormalization()(layers.Concatenate()([numbers, layers.CategoryEncoding(6, output_mode="one_hot")(kind)]))
    x = layers.Concatenate()([numbers, layers.Flatten()(layers.Embedding(6, 3)(kind))])
    for _ in range(2):
        x = layers.Dropout(0.1)(layers.ReLU()(layers.BatchNormalization()(layers.Dense(8)(x))))
    return keras.Model([numbers, kind], layers.Dense(3, activation="softmax")(layers.Concatenate()([wide, x])), name="wide_and_deep")


def deep_and_cross():
    numbers, kind = keras.Input((4,), name="numbers"), keras.Input((1,), dtype="int32", name="kind")
    x0 = layers.Concatenate()([numbers, layers.Flatten()(layers.Embedding(6, 3)(kind))])
    cross = x0
    for _ in range(2):
        cross = x0 * layers.Dense(7)(cross) + cross
    cross, deep = layers.BatchNormalization()(cross), layers.Dense(8, activation="relu")(x0)
    return keras.Model([numbers, kind], layers.Dense(3, activation="softmax")(layers.Concatenate()([cross, deep])), name="deep_and_cross")


def tab_transformer():
    numbers = keras.Input((3,), name="numbers")
    kinds = [keras.Input((), dtype="int32", name=f"kind_{i}") for i in range(3)]
    x = ops.stack([layers.Embedding(5, WIDTH)(kind) for kind in kinds], axis=1)
    x = x + layers.Embedding(3, WIDTH)(ops.arange(start=0, stop=3, step=1))
    x = TransformerBlock(WIDTH, 2, 16)(x)
    x = layers.Concatenate()([layers.Flatten()(x), layers.LayerNormalization(epsilon=1e-6)(numbers)])
    x = layers.Dense(8, activation="selu")(layers.BatchNormalization()(x))
    return keras.Model([numbers, *kinds], layers.Dense(1, activation="sigmoid")(x), name="tab_transformer")


class Recommender(keras.Model):
    """The match of a user's and a film's vectors, read from two columns of one input."""

    def __init__(self, users, films, width):
        super().__init__(name="recommender")
        self.user_embedding = layers.Embedding(users, width, embeddings_initializer="he_normal")
        self.user_bias = layers.Embedding(users, 1)
        self.film_embedding = layers.Embedding(films, width, embeddings_initializer="he_normal")
        self.film_bias = layers.Embedding(films, 1)

    def call(self, inputs):
        user, film = self.user_embedding(inputs[:, 0]), self.film_embedding(inputs[:, 1])
        match = ops.sum(user * film, axis=1, keepdims=True)
        return ops.nn.sigmoid(match + self.user_bias(inputs[:, 0]) + self.film_bias(inputs[:, 1]))


def recommender():
    model = Recommender(20, 20, WIDTH)
    model(np.zeros((1, 2), "int32"))
    return model


def point_net():
    def dense(x, filters):
        return layers.Activation("relu")(layers.BatchNormalization(momentum=0.0)(layers.Dense(filters)(x)))

    def conv(x, filters):
        return layers.Activation("relu")(layers.BatchNormalization(momentum=0.0)(layers.Conv1D(filters, 1, padding="valid")(x)))

    def rotated(inputs, size):
        x = layers.GlobalMaxPooling1D()(conv(conv(inputs, 8), 16))
        bias = keras.initializers.Constant(np.eye(size).flatten())
        x = layers.Dense(size * size, kernel_initializer="zeros", bias_initializer=bias)(dense(x, 8))
        return layers.Dot(axes=(2, 1))([inputs, layers.Reshape((size, size))(x)])

    inputs = keras.Input((20, 3), name="points")
    x = conv(conv(rotated(inputs, 3), 8), 8)
    x = layers.GlobalMaxPooling1D()(conv(rotated(x, 8), 16))
    return keras.Model(inputs, layers.Dense(4, activation="softmax")(layers.Dropout(0.3)(dense(x, 8))), name="point_net")


class GraphConvolution(layers.Layer):
    """Messages of neighbours by a product with the adjacency matrix; the weights are its own."""

    def __init__(self, units):
        super().__init__()
        self.units = units

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], self.units), initializer="glorot_uniform", name="kernel")
        self.bias = self.add_weight(shape=(self.units,), initializer="zeros", name="bias")

    def call(self, nodes, adjacency):
        return ops.relu(ops.matmul(adjacency, ops.matmul(nodes, self.kernel)) + self.bias)


def graph_convolution():
    nodes, adjacency = keras.Input((7, 5), name="nodes"), keras.Input((7, 7), name="adjacency")
    x = GraphConvolution(WIDTH)(nodes, adjacency)
    x = GraphConvolution(WIDTH)(x, adjacency)
    return keras.Model([nodes, adjacency], layers.Dense(3)(layers.GlobalAveragePooling1D()(x)), name="graph_convolution")


class BagAttention(layers.Layer):
    """Scores of the instances of a bag, from gated products with weights of its own."""

    def __init__(self, units):
        super().__init__()
        self.units = units

    def build(self, shape):
        width = shape[-1]
        self.v = self.add_weight(shape=(width, self.units), initializer="glorot_uniform", name="v")
        self.u = self.add_weight(shape=(width, self.units), initializer="glorot_uniform", name="u")
        self.w = self.add_weight(shape=(self.units, 1), initializer="glorot_uniform", name="w")

    def call(self, inputs):
        gated = ops.tanh(ops.tensordot(inputs, self.v, axes=1)) * ops.sigmoid(ops.tensordot(inputs, self.u, axes=1))
        return ops.softmax(ops.tensordot(gated, self.w, axes=1), axis=1)


def bags():
    inputs = keras.Input((6, 12), name="bag")
    x = layers.Dense(8, activation="relu")(inputs)
    pooled = ops.sum(BagAttention(8)(x) * x, axis=1)
    return keras.Model(inputs, layers.Dense(2, activation="softmax")(pooled), name="bags")


SEQUENCES = {
    builder.__name__: builder
    for builder in (
        text_transformer,
        entity_tagger,
        bidirectional_lstm,
        adding_numbers,
        fourier_text,
        image_captioning,
        translation,
        series_transformer,
        one_channel_transformer,
        series_convolution,
        wave_net,
        speaker_recognition,
        variable_selection,
        wide_and_deep,
        deep_and_cross,
        tab_transformer,
        recommender,
        point_net,
        graph_convolution,
        bags,
    )
}
