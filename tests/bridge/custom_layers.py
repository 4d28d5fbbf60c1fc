"""Layers as people write them, none of which Keras or the bridge knows: a table of a small model for each kind."""

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

WIDTH, STEPS, WORDS = 6, 5, 11


class TransformerBlock(layers.Layer):
    """As in the tutorials of keras.io: no build, no get_config, a constructor that takes nothing of Keras's."""

    def __init__(self, embed_dim, num_heads, ff_dim, rate=0.1):
        super().__init__()
        self.att = layers.MultiHeadAttention(num_heads=num_heads, key_dim=embed_dim)
        self.ffn = keras.Sequential([layers.Dense(ff_dim, activation="relu"), layers.Dense(embed_dim)])
        self.layernorm1 = layers.LayerNormalization(epsilon=1e-6)
        self.layernorm2 = layers.LayerNormalization(epsilon=1e-6)
        self.dropout1 = layers.Dropout(rate)
        self.dropout2 = layers.Dropout(rate)

    def call(self, inputs):
        attn_output = self.att(inputs, inputs)
        attn_output = self.dropout1(attn_output)
        out1 = self.layernorm1(inputs + attn_output)
        ffn_output = self.dropout2(self.ffn(out1))
        return self.layernorm2(out1 + ffn_output)


class TokenAndPositionEmbedding(layers.Layer):
    """As in the tutorials of keras.io: one of its layers is called on the positions, which are no input."""

    def __init__(self, maxlen, vocab_size, embed_dim):
        super().__init__()
        self.token_emb = layers.Embedding(input_dim=vocab_size, output_dim=embed_dim)
        self.pos_emb = layers.Embedding(input_dim=maxlen, output_dim=embed_dim)

    def call(self, x):
        positions = self.pos_emb(ops.arange(start=0, stop=ops.shape(x)[-1], step=1))
        return self.token_emb(x) + positions


class ConvBlock(layers.Layer):
    def __init__(self, filters, **kwargs):
        super().__init__(**kwargs)
        self.conv = layers.Conv2D(filters, 3, padding="same", use_bias=False, name="conv")
        self.norm = layers.BatchNormalization(name="norm")

    def call(self, x, training=None):
        return ops.relu(self.norm(self.conv(x), training=training))


class SqueezeExcite(layers.Layer):
    """Makes its layers in build."""

    def __init__(self, ratio=2, **kwargs):
        super().__init__(**kwargs)
        self.ratio = ratio

    def build(self, shape):
        self.squeeze = layers.Dense(shape[-1] // self.ratio, activation="relu", name="squeeze")
        self.excite = layers.Dense(shape[-1], activation="sigmoid", name="excite")
        self.squeeze.build((shape[0], shape[-1]))
        self.excite.build((shape[0], shape[-1] // self.ratio))

    def call(self, x):
        scale = self.excite(self.squeeze(ops.mean(x, axis=(1, 2))))
        return x * scale[:, None, None, :]

    def get_config(self):
        return {**super().get_config(), "ratio": self.ratio}


class PrivateResidual(layers.Layer):
    """Its layers have private names, and it has no config."""

    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self._norm, self._wide, self._narrow = layers.LayerNormalization(), layers.Dense(2 * width, "gelu"), layers.Dense(width)

    def call(self, x):
        return x + self._narrow(self._wide(self._norm(x)))

    def get_config(self):
        raise NotImplementedError


class MadeInBuild(layers.Layer):
    """Makes its layer in build, which gets its weights when it is first called."""

    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.width = width

    def build(self, shape):
        self.dense = layers.Dense(self.width, name="late")

    def call(self, x):
        return self.dense(x)


class OwnRMSNorm(layers.Layer):
    def build(self, shape):
        self.scale = self.add_weight(name="scale", shape=(shape[-1],), initializer="ones", regularizer="l2")

    def call(self, x):
        return x * ops.rsqrt(ops.mean(ops.square(x), axis=-1, keepdims=True) + 1e-6) * self.scale


class LayerScale(layers.Layer):
    def __init__(self, init=0.1, **kwargs):
        super().__init__(**kwargs)
        self.init = init

    def build(self, shape):
        self.gamma = self.add_weight(name="gamma", shape=(shape[-1],), initializer=keras.initializers.Constant(self.init))

    def call(self, x):
        return x * self.gamma

    def compute_output_shape(self, shape):
        return shape


class PositionTable(layers.Layer):
    """Computes with its own weight alone, before that meets an input."""

    def build(self, shape):
        self.table = self.add_weight(name="table", shape=shape[1:], initializer="uniform")

    def call(self, x):
        return x + ops.expand_dims(ops.tanh(self.table), 0)


class GatedMLP(layers.Layer):
    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.gate, self.up, self.down = (
            layers.Dense(width, "silu", name="gate"),
            layers.Dense(width, name="up"),
            layers.Dense(WIDTH, name="down"),
        )

    def call(self, x):
        return self.down(self.gate(x) * self.up(x))


@keras.saving.register_keras_serializable("tests")
class StochasticDepth(layers.Layer):
    """Another graph in training mode, with a generator of its own: it can only run as it is."""

    def __init__(self, rate=0.3, **kwargs):
        super().__init__(**kwargs)
        self.rate, self.seed_generator = rate, keras.random.SeedGenerator(7)

    def call(self, x, training=None):
        if not training:
            return x
        keep = 1.0 - self.rate
        shape = (ops.shape(x)[0],) + (1,) * (len(x.shape) - 1)
        return x / keep * ops.floor(keep + keras.random.uniform(shape, 0, 1, seed=self.seed_generator))

    def get_config(self):
        return {**super().get_config(), "rate": self.rate}


@keras.saving.register_keras_serializable("tests")
class DroppedResidual(layers.Layer):
    """A block around a layer that can only run as it is."""

    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.dense, self.drop = layers.Dense(width, name="dense"), StochasticDepth(name="drop")

    def call(self, x, training=None):
        return x + self.drop(self.dense(x), training=training)


class RelativeBias(layers.Layer):
    """The table of T5: rows of a weight by the distance of two positions."""

    def __init__(self, heads, **kwargs):
        super().__init__(**kwargs)
        self.heads = heads

    def build(self, shape):
        self.table = self.add_weight(name="relative_attention_bias", shape=(8, self.heads), initializer="uniform")

    def call(self, x):
        distance = np.arange(STEPS)[None, :] - np.arange(STEPS)[:, None]
        return ops.transpose(ops.take(self.table, np.clip(distance + 4, 0, 7), axis=0), (2, 0, 1))[None, ...]


class BiasedAttention(layers.Layer):
    """Attention written out, with a layer inside that reads no input of its own."""

    def __init__(self, heads, **kwargs):
        super().__init__(**kwargs)
        self.heads, self.size = heads, WIDTH // heads
        self.q, self.k, self.v, self.o = (layers.Dense(WIDTH, name=name) for name in "qkvo")
        self.bias = RelativeBias(heads, name="bias")

    def _split(self, x):
        return ops.transpose(ops.reshape(x, (-1, STEPS, self.heads, self.size)), (0, 2, 1, 3))

    def call(self, x):
        q, k, v = self._split(self.q(x)), self._split(self.k(x)), self._split(self.v(x))
        scores = ops.softmax(ops.matmul(q, ops.transpose(k, (0, 1, 3, 2))) + self.bias(x))
        return self.o(ops.reshape(ops.transpose(ops.matmul(scores, v), (0, 2, 1, 3)), (-1, STEPS, WIDTH)))


class ByKeyword(layers.Layer):
    """Calls its attention by keywords alone, under private names, with a mask for what comes later."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._self_attention = layers.MultiHeadAttention(2, 3, name="self_attention")
        self._drop = layers.Dropout(0.2)

    def call(self, x, training=None):
        later = np.tril(np.ones((1, STEPS, STEPS), bool))
        return x + self._drop(self._self_attention(query=x, value=x, attention_mask=later, training=training), training=training)


class OfLists(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.steps = [layers.Dense(WIDTH, "relu", name="same"), layers.Dense(WIDTH, name="same")]
        self.heads = {"a": layers.Dense(WIDTH), "b": layers.Dense(WIDTH)}

    def call(self, x):
        for step in self.steps:
            x = step(x)
        return self.heads["a"](x) + self.heads["b"](x)


class OfWeights(layers.Layer):
    """Weights in a list and in a dict, one of them not trained, and one that is used twice."""

    def build(self, shape):
        self.scales = [self.add_weight(name=f"scale_{i}", shape=(shape[-1],), initializer="ones") for i in range(2)]
        self.more = {"offset": self.add_weight(name="offset", shape=(shape[-1],), trainable=False)}

    def call(self, x):
        return (x * self.scales[0] + self.more["offset"]) * ops.sigmoid(self.scales[1]) + self.scales[1]


class TwoInTwoOut(layers.Layer):
    """Returns a dict with a tuple in it."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.one, self.other = layers.Dense(WIDTH, name="one"), layers.Dense(WIDTH, name="other")

    def call(self, x, scale=None, negate=False):
        y = self.one(x if scale is None else x * scale)
        return {"sum": y, "pair": (self.other(y), -y if negate else y)}


class MaskedTokens(layers.Layer):
    """Computes the mask of padding, and puts it on what no layer inside it made."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.embed = layers.Embedding(WORDS, WIDTH, name="embed")
        self.supports_masking = True

    def call(self, ids):
        return self.embed(ids) * 2.0

    def compute_mask(self, inputs, previous_mask=None):
        return ops.not_equal(inputs, 0)


class UsesMask(layers.Layer):
    """Takes the mask of its input, and hands it on."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense, self.supports_masking = layers.Dense(WIDTH, name="dense"), True

    def call(self, x, mask=None):
        y = self.dense(x) + x
        return y if mask is None else y * ops.cast(mask, "float32")[..., None]


class FrozenInside(layers.Layer):
    """Calls its normalization in inference mode always."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense, self.norm = layers.Dense(WIDTH, name="dense"), layers.BatchNormalization(name="norm")

    def call(self, x, training=None):
        return self.norm(self.dense(x), training=False)


class OwnDense(layers.Layer):
    """A dense layer of its own, with arithmetic on weights."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units

    def build(self, shape):
        self.w = self.add_weight(name="w", shape=(shape[-1], self.units), initializer="glorot_uniform")
        self.b = self.add_weight(name="b", shape=(self.units,), initializer="zeros")

    def call(self, x):
        return ops.matmul(x, self.w) + self.b


@keras.saving.register_keras_serializable("tests")
class Standardized(layers.Dense):
    """Derives from a layer with a kernel, which compression has to find."""

    def call(self, x):
        return super().call(x - ops.mean(x, axis=-1, keepdims=True))


class Narrow(layers.Dense):
    """Only sets arguments of the layer that it derives from."""

    def __init__(self, **kwargs):
        super().__init__(3, activation="tanh", **kwargs)

    def get_config(self):
        return {"name": self.name}


class OwnAttention(layers.MultiHeadAttention):
    """Derives from a layer with layers inside."""

    def call(self, query, value, key=None, **kwargs):
        return 0.5 * super().call(query, value, key, **kwargs)


class Outer(layers.Layer):
    """Two levels of layers that nobody knows."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.mlp, self.scale = GatedMLP(8, name="mlp"), LayerScale(name="scale")

    def call(self, x):
        return x + self.scale(self.mlp(x))


class HasModel(layers.Layer):
    """Holds a functional model, a Sequential one and a subclassed one."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        inputs = keras.Input((STEPS, WIDTH))
        self.functional = keras.Model(inputs, LayerScale(name="scale")(layers.Dense(WIDTH, name="a")(inputs)), name="functional")
        self.sequential = keras.Sequential([layers.Dense(WIDTH, name="b"), OwnRMSNorm(name="c")], name="sequential")

    def call(self, x):
        return self.sequential(self.functional(x))


class ClassToken(layers.Layer):
    """Computes shapes from the size of the batch, as the vision transformers of keras-hub do."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.project = layers.Dense(WIDTH, name="project")

    def build(self, shape):
        self.token = self.add_weight(name="token", shape=(1, 1, WIDTH), initializer="uniform")
        self.project.build(shape)

    def call(self, x):
        batch, steps, width = ops.shape(x)
        tokens = ops.tile(self.token, (batch, 1, 1))
        pairs = ops.reshape(self.project(x), (batch * steps, width))
        return ops.concatenate([tokens, ops.reshape(pairs, (batch, steps, width))], axis=1)


class CausalAttention(layers.Layer):
    """Makes a mask for each example of the batch, as the decoders of keras-hub do."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._attention = CachedAttention(2, 3, name="attention")

    def call(self, x):
        batch, steps = ops.shape(x)[0], ops.shape(x)[1]
        i = ops.expand_dims(ops.arange(steps), 1)
        later = ops.broadcast_to(ops.expand_dims(i >= ops.arange(steps), 0), (batch, steps, steps))
        y, _ = self._attention(query=x, value=x, cache=None, attention_mask=later)
        return x + y


class CachedAttention(layers.MultiHeadAttention):
    """Takes what its base does not know, and returns what is no tensor: it is no part of a graph as a whole."""

    def call(self, query, value, key=None, attention_mask=None, cache=None):
        return super().call(query, value, key, attention_mask=attention_mask), cache


class Patches(layers.Layer):
    """As in keras.io's vision transformer: no weights, and the size of the batch in a reshape."""

    def __init__(self, patch_size):
        super().__init__()
        self.patch_size = patch_size

    def call(self, images):
        batch, height, width, channels = ops.shape(images)
        rows, columns = height // self.patch_size, width // self.patch_size
        patches = ops.image.extract_patches(images, size=self.patch_size)
        return ops.reshape(patches, (batch, rows * columns, self.patch_size * self.patch_size * channels))


class ReadsMeanInBatch(layers.Layer):
    """Computes with the size of the batch as a number."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(WIDTH, name="dense")

    def call(self, x):
        return self.dense(x) + ops.sum(x, axis=0, keepdims=True) / ops.cast(ops.shape(x)[0], "float32")


class MeanOfBoth(layers.Layer):
    """Says its shape itself, so that the layers inside it are built when it first runs on data."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense, self.mean = layers.Dense(WIDTH, name="dense"), layers.Average(name="mean")

    def build(self, shape):
        self.dense.build(shape)

    def call(self, x):
        return self.mean([x, self.dense(x)])

    def compute_output_shape(self, shape):
        return shape


class WithScores(layers.Layer):
    """Returns an empty array in place of scores that nobody asked for, and its config is wrong."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(WIDTH, name="dense")

    def call(self, x, scores=False):
        return self.dense(x), x if scores else ops.zeros((0, WIDTH))

    def get_config(self):
        return {"dense": self.width}


class Gathers(layers.Layer):
    """As in DeBERTa: an operation of TensorFlow's own, which symbolic tensors do not have, and layers under private names and in a dict."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._query = layers.EinsumDense("abc,cde->abde", (None, 2, 3), name="query")
        self._others = {"key": layers.Dense(WIDTH, name="key")}
        self._gate = keras.Sequential([layers.Dense(WIDTH, name="gate"), keras.Sequential([layers.Dense(WIDTH, name="last")])])

    def build(self, shape):
        for layer in (self._query, self._others["key"], self._gate):
            layer.build(shape)

    def call(self, x):
        query = ops.reshape(self._query(x), (-1, STEPS, WIDTH))
        return tf.gather(query * self._others["key"](x) + self._gate(x), indices=np.arange(STEPS)[::-1], axis=1)

    def compute_output_shape(self, shape):
        return shape


class GathersOfList(layers.Layer):
    """Called on a list, whose shapes Keras keeps in a list of its own."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = [Gathers(name="inner")]

    def build(self, shapes):
        self.inner[0].build(shapes[0])

    def call(self, inputs):
        return self.inner[0](inputs[0]) + inputs[1]

    def compute_output_shape(self, shapes):
        return shapes[0]


class MakesLayers(layers.Layer):
    """Makes layers without weights whenever it is called, as EfficientNet and RepVGG do, and has a model that was built for another shape than it is called on."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.pad = layers.ZeroPadding2D(1, name="pad")
        self.wide = layers.Conv2D(4, 3, name="wide")
        self.point = keras.Sequential([layers.Conv2D(4, 1, name="narrow"), layers.BatchNormalization(name="norm")], name="point")

    def build(self, shape):
        self.wide.build(shape)
        self.point.build((shape[0], shape[1] + 2, shape[2] + 2, shape[3]))

    def call(self, x, training=None):
        y = layers.Add()([self.point(x, training=training), self.wide(self.pad(x))])
        return layers.concatenate([y, layers.Activation("elu")(y)])


class ResizesFirst(layers.Layer):
    """Makes a layer of preprocessing, whose mode is training where nobody says another."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.norm = layers.BatchNormalization(name="norm")

    def build(self, shape):
        self.norm.build(shape)

    def call(self, x):
        return self.norm(layers.Resizing(4, 4, name="resized")(x))


def quick_gelu(x):
    return x * ops.sigmoid(1.702 * x)


class HoldsFunction(layers.Layer):
    """Makes a layer when it is built, so that it is copied, and holds one of Keras's around a function that nobody registered, as CLIP's blocks do."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.quick = layers.Activation(quick_gelu, name="quick")

    def build(self, shape):
        self.late = layers.Dense(WIDTH, activation=quick_gelu, name="late")
        self.late.build(shape)

    def call(self, x):
        return self.quick(self.late(x))


@keras.saving.register_keras_serializable("tests")
class Forgetful(layers.Layer):
    """Its config lacks the rate, so that another layer comes back."""

    def __init__(self, rate=0.0, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(WIDTH, name="dense")
        self.drop = layers.Dropout(rate, name="drop") if rate else layers.Identity(name="drop")
        self.same = layers.Identity(dtype=self.dtype_policy, name="same")  # has no config: Keras cannot serialize the argument

    def build(self, shape):
        self.dense.build(shape)

    def call(self, x, training=None):
        return self.same(self.drop(self.dense(x), training=training))


@keras.saving.register_keras_serializable("tests")
class TiedTokens(layers.Layer):
    """Looks tokens up in a table, with their places."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.table, self.places = layers.ReversibleEmbedding(WORDS, WIDTH, name="table"), layers.Embedding(STEPS, WIDTH, name="places")

    def build(self, shape):
        self.table.build(shape)
        self.places.build(shape)

    def call(self, ids):
        return self.table(ids) + self.places(ops.arange(STEPS))


class Windows(layers.Layer):
    """Cuts sequences into windows, which it puts where the batch is: the layer inside divides that again, as in Swin."""

    def __init__(self, count, **kwargs):
        super().__init__(**kwargs)
        self.count, self.inner = count, InWindow(count, name="inner")

    def call(self, x):
        batch, steps, width = ops.shape(x)
        windows = ops.reshape(x, (batch * self.count, steps // self.count, width))
        return ops.reshape(self.inner(windows), (batch, steps, width))


class InWindow(layers.Layer):
    def __init__(self, count, **kwargs):
        super().__init__(**kwargs)
        self.count, self.dense = count, layers.Dense(WIDTH, name="dense")

    def call(self, x):
        many, steps, width = ops.shape(x)
        y = ops.reshape(self.dense(x), (many // self.count, self.count, steps, width))
        y = y * ops.reshape(ops.arange(1.0, self.count + 1.0), (self.count, 1, 1))
        return ops.reshape(y, (-1, steps, width))


def sequence(*parts, shape=(STEPS, WIDTH), dtype="float32"):
    return keras.Sequential([keras.Input(shape, dtype=dtype, name="x"), *parts, layers.Flatten(), layers.Dense(2, name="head")], name="net")


def text(*parts):
    inputs = x = keras.Input((STEPS,), dtype="int32", name="ids")
    for part in parts:
        x = part(x)
    return keras.Model(inputs, layers.Dense(2, name="head")(layers.GlobalAveragePooling1D(name="mean")(x)), name="net")


def of_any_length():
    """A nested model whose length is free, called on a length that is known: what counts positions is opened there."""
    inner = keras.Input((None, WIDTH))
    nested = keras.Model(inner, CausalAttention(name="causal")(inner), name="nested")
    inputs = keras.Input((STEPS, WIDTH), name="x")
    return keras.Model(inputs, layers.Dense(2, name="head")(nested(inputs)), name="net")


def repeated():
    """A layer inside a layer that repeats it runs as it is."""
    inputs = keras.Input((STEPS, WIDTH), name="x")
    repeating = layers.TimeDistributed(keras.saving.register_keras_serializable("tests")(LayerScale)(name="scale"), name="each")
    return keras.Model(inputs, layers.Dense(2, name="head")(repeating(inputs)), name="net")


def called_twice(layer):
    """The layer that the table builds is called on two tensors, the second time after itself."""
    inputs = keras.Input((STEPS, WIDTH), name="x")
    return keras.Model(inputs, layers.Dense(2, name="head")(layer(layer(inputs))), name="net")


def called_differently():
    inputs, layer = keras.Input((STEPS, WIDTH), name="x"), TwoInTwoOut(name="two")
    first = layer(inputs)
    second = layer(first["sum"], scale=first["pair"][0], negate=True)
    return keras.Model(inputs, {"a": first["pair"][1], "b": second["pair"][1]}, name="net")


def in_two_places():
    """One layer inside a nested model and outside of it."""
    shared, inner = Outer(name="shared"), keras.Input((STEPS, WIDTH))
    nested = keras.Model(inner, shared(inner), name="nested")
    inputs = keras.Input((STEPS, WIDTH), name="x")
    return keras.Model(inputs, layers.Dense(2, name="head")(shared(nested(inputs))), name="net")


def with_scores():
    inputs = keras.Input((STEPS, WIDTH), name="x")
    return keras.Model(inputs, layers.Dense(2, name="head")(WithScores(name="block")(inputs)[0]), name="net")


def of_list():
    inputs = keras.Input((STEPS, WIDTH), name="x")
    return keras.Model(inputs, layers.Dense(2, name="head")(GathersOfList(name="block")([inputs, inputs])), name="net")


def tied():
    """A table inside a layer inside a model, which gives logits outside of it, as in the language models of keras-hub."""
    inner = keras.Input((STEPS,), dtype="int32")
    block = TiedTokens(name="block")
    nested = keras.Model(inner, block(inner), name="nested")
    ids = keras.Input((STEPS,), dtype="int32", name="ids")
    return keras.Model(ids, block.table(layers.Dense(WIDTH, name="head")(nested(ids)), reverse=True), name="net")


def mask_as_input():
    inputs, mask = keras.Input((STEPS, WIDTH), name="x"), keras.Input((STEPS,), dtype="bool", name="keep")
    return keras.Model([inputs, mask], layers.Dense(2, name="head")(UsesMask(name="block")(inputs, mask=mask)), name="net")


class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first, self.block, self.head = layers.Dense(WIDTH, name="first"), Outer(name="block"), layers.Dense(2, name="head")

    def call(self, x, training=None):
        return self.head(self.block(self.first(x)))


def subclassed():
    model = Subclassed(name="net")
    model(np.zeros((2, STEPS, WIDTH), "float32"))
    return model


# Name of the row -> (builder of the model, paths that its copy has among others). A path of a layer that runs as it is is the layer's own.
MODELS = {
    "keras.io's transformer": (
        lambda: text(TokenAndPositionEmbedding(STEPS, WORDS, WIDTH), TransformerBlock(WIDTH, 2, 8)),
        ["token_and_position_embedding/embedding_1", "transformer_block/multi_head_attention", "transformer_block/sequential"],
    ),
    "convolution and normalization": (
        lambda: sequence(ConvBlock(4, name="block"), shape=(6, 6, 2)),
        ["block/conv", "block/norm", "block/relu"],
    ),
    "squeeze and excite": (
        lambda: sequence(SqueezeExcite(name="se"), shape=(6, 6, 4)),
        ["se/squeeze", "se/excite", "se/mean", "se/get_item"],
    ),
    "private layers without a config": (lambda: sequence(PrivateResidual(WIDTH, name="block")), ["block/dense", "block/dense_1"]),
    "made in build": (lambda: sequence(MadeInBuild(WIDTH, name="block")), ["block/late"]),
    "a function inside a layer of Keras's": (lambda: sequence(HoldsFunction(name="block")), ["block/late", "block/quick"]),
    "own RMS normalization": (lambda: sequence(OwnRMSNorm(name="norm")), ["norm/scale", "norm/rsqrt"]),
    "layer scale": (lambda: sequence(LayerScale(name="scale")), ["scale/gamma", "scale/multiply"]),
    "a table of positions": (lambda: sequence(PositionTable(name="positions")), ["positions/table", "positions/tanh"]),
    "gated MLP": (lambda: sequence(GatedMLP(8, name="mlp")), ["mlp/gate", "mlp/up", "mlp/down"]),
    "stochastic depth": (lambda: sequence(layers.Dense(WIDTH), StochasticDepth(name="drop")), ["drop"]),
    "around stochastic depth": (lambda: sequence(DroppedResidual(WIDTH, name="block")), ["block/dense", "block/drop"]),
    "relative bias": (lambda: sequence(BiasedAttention(2, name="att")), ["att/q", "att/bias/relative_attention_bias", "att/softmax"]),
    "attention by keywords": (lambda: sequence(ByKeyword(name="att")), ["att/self_attention"]),
    "lists and dicts of layers": (lambda: sequence(OfLists(name="block")), ["block/same", "block/same_1"]),
    "lists and dicts of weights": (lambda: sequence(OfWeights(name="block")), ["block/scale_0", "block/scale_1", "block/offset"]),
    "masks made and used": (
        lambda: text(MaskedTokens(name="tokens"), UsesMask(name="block")),
        ["tokens/embed", "tokens/with_mask", "block/dense"],
    ),
    "a mask as an input": (mask_as_input, ["block/dense"]),
    "inference mode inside": (lambda: sequence(FrozenInside(name="block")), ["block/norm"]),
    "own dense layer": (lambda: sequence(OwnDense(4, name="own")), ["own/w", "own/b", "own/matmul"]),
    "derived from a kernel": (lambda: sequence(Standardized(4, name="own")), ["own"]),
    "only sets arguments": (lambda: sequence(Narrow(name="own")), ["own"]),
    "derived from attention": (lambda: called_attention(), ["own/query", "own/attention_output"]),
    "called twice": (lambda: called_twice(PositionTable(name="twice")), ["twice/table"]),
    "a block called twice": (lambda: called_twice(GatedMLP(8, name="twice")), ["twice/gate"]),
    "called with other arguments": (called_differently, ["two/one", "two/other"]),
    "in two places": (in_two_places, ["nested"]),
    "nested": (lambda: sequence(Outer(name="outer")), ["outer/mlp/gate", "outer/scale/gamma"]),
    "layers made in its call": (
        lambda: sequence(MakesLayers(name="block"), shape=(6, 6, 4)),
        ["block/wide", "block/point/narrow", "block/add", "block/concatenate", "block/activation"],
    ),
    "a mode that nobody said": (lambda: sequence(ResizesFirst(name="block"), shape=(6, 6, 4)), ["block/resized", "block/norm"]),
    "a config that lacks something": (lambda: sequence(Forgetful(0.3, name="block")), ["block/dense", "block/drop"]),
    "a table in two models": (tied, ["nested", "block/table"]),
    "models inside": (lambda: sequence(HasModel(name="block")), ["block/functional", "block/sequential"]),
    "the size of the batch": (
        # Behind `tile` Keras 3.12 does not know the number of steps, which a Dense of all of them would need.
        lambda: sequence(ClassToken(name="tokens"), layers.GlobalAveragePooling1D()),
        ["tokens/token", "tokens/tile", "tokens/project", "tokens/reshape_1"],
    ),
    "a mask for each example": (
        lambda: sequence(CausalAttention(name="causal")),
        ["causal/attention/query", "causal/attention/attention_output"],
    ),
    "patches": (lambda: sequence(Patches(2), layers.Dense(WIDTH), shape=(4, 4, 3)), ["patches/reshape"]),
    "at a known length": (of_any_length, ["nested"]),
    "repeated": (repeated, ["each"]),
    "an operation of TensorFlow's": (lambda: sequence(Gathers(name="block")), ["block"]),
    "an operation of TensorFlow's, in a layer of lists": (of_list, ["block/inner"]),
    "inside that nobody has built": (lambda: sequence(MeanOfBoth(name="block")), ["block/dense", "block/mean"]),
    "a constant among the outputs": (with_scores, ["block/dense"]),
    "a dtype policy": (
        lambda: sequence(layers.Identity(dtype=keras.DTypePolicy("float32"), name="same"), PositionTable(name="positions")),
        ["same"],
    ),
    "the batch is divided": (lambda: sequence(Windows(2, name="block"), shape=(6, WIDTH)), ["block/inner/dense"]),
    "in a subclassed model": (subclassed, ["block/mlp/gate", "block/scale/gamma"]),
}


if hasattr(layers, "ReversibleEmbedding"):
    # Its mask is there on data alone.
    MODELS["a mask on data alone"] = (
        lambda: text(layers.ReversibleEmbedding(WORDS, WIDTH, mask_zero=True, name="tokens"), UsesMask(name="block")),
        ["tokens", "tokens/with_mask", "block/dense"],
    )


def called_attention():
    inputs = keras.Input((STEPS, WIDTH), name="x")
    return keras.Model(inputs, layers.Dense(2, name="head")(OwnAttention(2, 3, name="own")(inputs, inputs)), name="net")


def build(name):
    """Returns the model of a row with random weights."""
    model, rng = MODELS[name][0](), np.random.default_rng(3)
    for weight in model.weights:
        if "float" in weight.dtype:
            weight.assign(rng.uniform(0.2, 0.8, weight.shape) * rng.choice([1.0, 1.0 if "variance" in weight.path else -1.0], weight.shape))
    return model
