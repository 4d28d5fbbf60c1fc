"""Counts of parameters, multiply-accumulates and activation memory."""

import json

import keras
import numpy as np
import pytest
from keras import layers, ops
from small import Subclassed

import tfdistill
from tfdistill.errors import ConfigurationError, ModelError


@pytest.mark.parametrize(
    ("name", "macs", "parameters"),
    # Multiply-accumulates in millions, as the papers give them: 569, 300, and 3.8 to 3.9 for ResNet50 (https://arxiv.org/abs/1704.04861, 1801.04381, 1512.03385).
    [("MobileNet", 569, 4_253_864), ("MobileNetV2", 300, 3_538_984), ("ResNet50", 3858, 25_636_712)],
)
def test_known_nets(name, macs, parameters):
    record = tfdistill.profile(getattr(keras.applications, name)(weights=None))
    assert round(record.macs / 1e6) == pytest.approx(macs, abs=1)
    assert record.parameters == sum(row.parameters for row in record.layers) == parameters
    assert record.uncounted == ()


# Layer or function -> (shape of its input, multiply-accumulates by hand). None: not known.
IMAGE, SERIES = (8, 6, 4), (5, 6)
COUNTS = {
    "conv": (layers.Conv2D(7, 3, strides=2, padding="same"), IMAGE, 4 * 3 * 9 * 4 * 7),
    "conv valid": (layers.Conv2D(7, (3, 1), dilation_rate=2), IMAGE, 4 * 6 * 3 * 4 * 7),
    "conv channels first": (layers.Conv2D(7, 1, data_format="channels_first"), (4, 8, 6), 8 * 6 * 4 * 7),
    "conv grouped": (layers.Conv2D(6, 3, groups=2, padding="same"), IMAGE, 48 * 9 * 2 * 6),
    "conv 1": (layers.Conv1D(3, 2), SERIES, 4 * 2 * 6 * 3),
    "conv 3": (layers.Conv3D(3, 2, padding="same"), (4, 4, 4, 2), 64 * 8 * 2 * 3),
    "transposed": (layers.Conv2DTranspose(7, 3, strides=2, padding="same"), IMAGE, 48 * 9 * 4 * 7),
    "depthwise": (layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same"), IMAGE, 48 * 9 * 4 * 2),
    "depthwise 1": (layers.DepthwiseConv1D(3, padding="same"), SERIES, 5 * 3 * 6),
    "separable": (layers.SeparableConv2D(7, 3, depth_multiplier=2, padding="same"), IMAGE, 48 * (9 * 8 + 8 * 7)),
    "dense": (layers.Dense(7), SERIES, 5 * 6 * 7),
    "einsum": (layers.EinsumDense("abc,cde->abde", (None, 2, 3)), SERIES, 5 * 6 * 6),
    "einsum ellipsis": (layers.EinsumDense("...c,cd->...d", (7,)), SERIES, 5 * 6 * 7),
    "attention": (lambda x: layers.MultiHeadAttention(2, 4, value_dim=3)(x, x), SERIES, 5 * (6 * 8 * 2 + 6 * 6 * 2) + 25 * 2 * (4 + 3)),
    "attention over an axis": (
        lambda x: layers.MultiHeadAttention(2, 4, attention_axes=(2,))(x, x),
        (3, 5, 6),
        15 * 6 * 8 * 4 + 3 * 25 * 2 * 8,
    ),
    "grouped attention": (lambda x: layers.GroupQueryAttention(3, 4, 2)(x, x), SERIES, 5 * 6 * 3 * (4 + 2 + 2 + 4) + 25 * 4 * 6),
    "keras attention": (lambda x: layers.Attention()([x, x]), SERIES, 25 * 12),
    "lstm": (layers.LSTM(3), SERIES, 5 * 4 * (6 * 3 + 9)),
    "gru": (layers.GRU(3), SERIES, 5 * 3 * (6 * 3 + 9)),
    "rnn of cells": (layers.RNN([layers.LSTMCell(3), layers.GRUCell(2)]), SERIES, 5 * (4 * (18 + 9) + 3 * (6 + 4))),
    "bidirectional": (layers.Bidirectional(layers.SimpleRNN(3)), SERIES, 2 * 5 * (18 + 9)),
    "recurrent convolution": (layers.ConvLSTM1D(3, 3, padding="same"), (5, 8, 2), 5 * 8 * 3 * 4 * (2 * 3 + 9)),
    "timed": (layers.TimeDistributed(layers.Conv1D(3, 2)), (4, 5, 6), 4 * 4 * 2 * 6 * 3),
    "spectral": (layers.SpectralNormalization(layers.Dense(7)), SERIES, 5 * 6 * 7),
    "dot": (lambda x: layers.Dot(axes=(2, 2))([x, x]), SERIES, 25 * 6),
    "matmul": (lambda x: ops.matmul(x, ops.transpose(x, (0, 2, 1))), SERIES, 25 * 6),
    "ops einsum": (lambda x: ops.einsum("abc,adc->abd", x, x), SERIES, 25 * 6),
    "ops conv": (lambda x: ops.conv(x, np.ones((3, 3, 4, 7), "float32"), padding="same"), IMAGE, 48 * 9 * 4 * 7),
    "tensordot": (lambda x: ops.tensordot(x, x, axes=2), SERIES, None),
    "lookup": (lambda x: layers.Embedding(9, 4)(x), (5,), 0),
    "normalization": (layers.BatchNormalization(), IMAGE, 0),
    "pooling": (layers.MaxPooling2D(), IMAGE, 0),
    "sum": (lambda x: x + x * 2.0, IMAGE, 0),
}


@pytest.mark.parametrize("name", COUNTS)
def test_counts_of_layers(name):
    layer, shape, macs = COUNTS[name]
    inputs = keras.Input(shape)
    record = tfdistill.profile(keras.Model(inputs, layer(inputs)))
    if macs is None:
        assert len(record.uncounted) == 1
    else:
        assert (record.macs, record.uncounted) == (macs, ())


class Scaled(layers.Layer):
    """A layer of the user's own: one inside, and a weight."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = layers.Dense(4, name="inner")

    def build(self, shape):
        self.inner.build(shape)
        self.scale = self.add_weight(shape=(4,))

    def call(self, x):
        return self.inner(x) * self.scale


class Sorted(layers.Layer):
    """A layer that is no part of a graph."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 3))

    def call(self, x):
        return x @ self.kernel if x.shape[0] is None or float(ops.sum(x)) > 0 else x


def test_what_is_inside_others_is_counted():
    inner = keras.Input((4,))
    nest = keras.Model(inner, layers.Dense(4, name="dense")(inner), name="nest")
    inputs = keras.Input((6,))
    x = nest(nest(Scaled(name="scaled")(inputs)))
    record = tfdistill.profile(keras.Model(inputs, Sorted(name="sorted")(x)))
    assert {row.name: row.macs for row in record.layers if row.macs != 0} == {
        "scaled/inner": 24,
        "nest/dense": 32,
        "sorted": None,
    }
    assert record.uncounted == ("sorted",)
    assert record.layer("nest/dense").parameters == 20
    assert record.parameters == 28 + 4 + 20 + 12
    model = Subclassed(12)
    model(np.zeros((2, 8), "float32"))
    assert tfdistill.profile(model).macs == 8 * 12 + 2 * 144 + 12 * 5


def test_activation_memory():
    inputs = keras.Input((10,), name="x")
    a = layers.Dense(20, name="a")(inputs)  # 80 bytes; with the input 120
    b = layers.Dense(5, name="b", dtype="float16")(layers.Dropout(0.1)(a))  # 10 bytes; a stays for the sum
    c = layers.Dense(20, name="c")(layers.Reshape((5, 1))(b))
    c = layers.Flatten()(c)
    d = layers.Dense(20, name="d")(c)  # 400 and 80 bytes, and a
    record = tfdistill.profile(keras.Model(inputs, layers.Add()([a, d])))
    assert {row.name: row.activation_bytes for row in record.layers if row.activation_bytes} == {
        "x": 40,
        "a": 80,
        "b": 10,
        "c": 400,
        "d": 80,
        "add": 80,
    }
    assert record.activation_bytes == 690
    assert record.peak_activation_bytes == 80 + 400 + 80


def test_free_sizes_are_given():
    inputs = keras.Input((None, 6), name="series")
    x = layers.Dense(4, name="dense")(inputs)
    nested = keras.Sequential([keras.Input((None, 4)), layers.Dense(2, name="inside")], name="nest")
    model = keras.Model(inputs, nested(x), name="free")
    with pytest.raises(ModelError, match="free sizes") as caught:
        tfdistill.profile(model)
    assert "profile(model, shapes={'series': (1, 1, 6)})" in caught.value.fix
    assert tfdistill.profile(model, shapes={"series": (1, 7, 6)}).macs == 7 * (24 + 8)
    for shapes in ({"serie": (1, 7, 6)}, {"series": (1, 7)}, {"series": (1, 7, 5)}, {"series": 7}, [(1, 7, 6)]):
        with pytest.raises(ConfigurationError, match="shapes="):
            tfdistill.profile(model, shapes=shapes)


def test_an_unbuilt_model_is_refused():
    with pytest.raises(ModelError, match="not built"):
        tfdistill.profile(keras.Sequential([layers.Dense(3)]))


@pytest.mark.parametrize("model", ["net.keras", None, layers.Dense(3)])
def test_what_is_no_model_is_refused(model):
    with pytest.raises(ModelError, match=f"profile got a {type(model).__name__}"):
        tfdistill.profile(model)


def test_the_record_is_saved(tmp_path):
    inputs = keras.Input((4,), name="x")
    record = tfdistill.profile(keras.Model(inputs, layers.Dense(3, name="dense")(inputs), name="net"))
    path = record.save(tmp_path / "profile.json")
    assert type(record).load(path) == record
    assert json.loads(path.read_text())["layers"][1]["macs"] == 12
    assert "dense" in str(record)
    with pytest.raises(ModelError, match="no layer 'dens'"):
        record.layer("dens")
