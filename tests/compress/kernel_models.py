"""Small models with every kind of layer that has kernels, as rows of tables."""

import keras
import numpy as np

from tfdistill.bridge import host, register_bridge

layers = keras.layers


@keras.saving.register_keras_serializable("tests")
class Moody(layers.Dense):
    """A user's layer whose constructor fails while `willing` is False."""

    willing = True

    def __init__(self, *args, **kwargs):
        if not Moody.willing:
            raise ValueError("not today")
        super().__init__(*args, **kwargs)


@keras.saving.register_keras_serializable("tests")
class Twice(layers.Layer):
    """A layer of the user's own that runs inside tf_keras, with a dense layer inside that it calls twice, and a list of them."""

    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.width = width
        self.inner = layers.Dense(width, name="inner")
        self.rest = [layers.Dense(width, name="rest")]

    def build(self, input_shape):
        self.inner.build(input_shape)
        self.rest[0].build((*input_shape[:-1], self.width))

    def call(self, inputs):
        return self.rest[0](self.inner(self.inner(inputs)))

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.width)

    def get_config(self):
        return {**super().get_config(), "width": self.width}


register_bridge(Twice, host)

PROJECTIONS = tuple(f"_{part}_dense.kernel" for part in ("query", "key", "value", "output"))
BOTH_WAYS = tuple(f"{way}_layer.cell.{kind}" for way in ("forward", "backward") for kind in ("kernel", "recurrent_kernel"))


def nested(x):
    inner = keras.Input((8, 6))
    return keras.Model(inner, layers.Dense(4, name="inside")(inner), name="nest")(x)


def shared(x):
    layer = layers.Dense(6, name="shared")
    return layer(layer(x))


# Name of the layer -> (function of the input that makes its branch, attributes of its kernels in Keras 3).
SEQUENCES = {
    "dense": (lambda x: layers.Dense(4, name="dense")(x), ("kernel",)),
    "einsum": (lambda x: layers.EinsumDense("abc,cd->abd", (8, 4), name="einsum")(x), ("kernel",)),
    "attention": (lambda x: layers.MultiHeadAttention(2, 4, name="attention")(x, x), PROJECTIONS),
    "grouped": (lambda x: layers.GroupQueryAttention(4, 2, 1, name="grouped")(x, x), PROJECTIONS),
    "bidirectional": (lambda x: layers.Bidirectional(layers.GRU(3, return_sequences=True), name="bidirectional")(x), BOTH_WAYS),
    "timed": (lambda x: layers.TimeDistributed(layers.Dense(4), name="timed")(x), ("layer.kernel",)),
    "lstm": (lambda x: layers.LSTM(4, return_sequences=True, name="lstm")(x), ("cell.kernel", "cell.recurrent_kernel")),
    "rnn": (lambda x: layers.SimpleRNN(4, return_sequences=True, name="rnn")(x), ("cell.kernel", "cell.recurrent_kernel")),
    "stacked": (
        lambda x: layers.RNN([layers.LSTMCell(3), layers.GRUCell(4)], return_sequences=True, name="stacked")(x),
        ("cell.cells.0.kernel", "cell.cells.0.recurrent_kernel", "cell.cells.1.kernel", "cell.cells.1.recurrent_kernel"),
    ),
    "conv1d": (lambda x: layers.Conv1D(4, 3, padding="same", name="conv1d")(x), ("kernel",)),
    "transposed1d": (lambda x: layers.Conv1DTranspose(4, 3, padding="same", name="transposed1d")(x), ("kernel",)),
    "depthwise1d": (lambda x: layers.DepthwiseConv1D(3, padding="same", name="depthwise1d")(x), ("kernel",)),
    "separable1d": (
        lambda x: layers.SeparableConv1D(4, 3, padding="same", name="separable1d")(x),
        ("depthwise_kernel", "pointwise_kernel"),
    ),
    "shared": (shared, ("kernel",)),
    "nest/inside": (nested, ("kernel",)),
    "twice": (lambda x: Twice(6, name="twice")(x), ("inner.kernel", "rest.0.kernel")),
}
IMAGES = {
    "conv2d": (lambda x: layers.Conv2D(4, 3, padding="same", name="conv2d")(x), ("kernel",)),
    "pointwise": (lambda x: layers.Conv2D(4, 1, name="pointwise")(x), ("kernel",)),
    "transposed2d": (lambda x: layers.Conv2DTranspose(4, 3, padding="same", name="transposed2d")(x), ("kernel",)),
    "depthwise2d": (lambda x: layers.DepthwiseConv2D(3, padding="same", name="depthwise2d")(x), ("kernel",)),
    "separable2d": (
        lambda x: layers.SeparableConv2D(4, 3, padding="same", name="separable2d")(x),
        ("depthwise_kernel", "pointwise_kernel"),
    ),
    "conv3d": (
        lambda x: layers.Reshape((8, 6, 4))(layers.Conv3D(4, 2, padding="same", name="conv3d")(layers.Reshape((4, 6, 2, 4))(x))),
        ("kernel",),
    ),
    "transposed3d": (
        lambda x: layers.Reshape((8, 6, 4))(
            layers.Conv3DTranspose(4, 2, padding="same", name="transposed3d")(layers.Reshape((4, 6, 2, 4))(x))
        ),
        ("kernel",),
    ),
}
TOKENS = {"embedding": (lambda x: layers.Embedding(12, 5, mask_zero=True, name="embedding")(x), ("embeddings",))}
TABLES = {"sequences": ((8, 6), SEQUENCES), "images": ((8, 6, 4), IMAGES), "tokens": ((8,), TOKENS)}
# What is trained together in the fast tests; the slow one trains each row alone.
TOGETHER = {
    "sequences": ("attention", "grouped", "timed", "shared", "nest/inside", "twice"),
    "images": tuple(IMAGES),
    "tokens": tuple(TOKENS),
}
EVERY = {name: (table, row) for table, (_, rows) in TABLES.items() for name, row in rows.items()}


def model_of(table, names):
    """A model with one branch for each of the rows."""
    shape, rows = TABLES[table]
    inputs = keras.Input(shape, dtype="int32" if table == "tokens" else "float32", name="inputs")
    flat = []
    for name in names:
        x = rows[name][0](inputs)
        flat.append(layers.GlobalAveragePooling1D()(x) if table == "tokens" else layers.Flatten()(x))
    x = flat[0] if len(flat) == 1 else layers.Concatenate()(flat)
    return keras.Model(inputs, layers.Dense(3, name="logits")(x), name=table)


def data(table, samples=12):
    rng = np.random.default_rng(0)
    shape = (samples, *TABLES[table][0])
    x = rng.integers(0, 12, shape) if table == "tokens" else rng.normal(size=shape).astype("float32")
    return x, rng.integers(0, 3, samples)
