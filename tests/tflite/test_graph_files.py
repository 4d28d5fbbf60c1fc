"""What is converted from a bare graph of constants is the file that TensorFlow's own SavedModel of the same function gives."""

import keras
import numpy as np
import pytest

from tfdistill.bridge.frozen import frozen
from tfdistill.compress import QuantizeAware
from tfdistill.convert import converter, graph_files
from tfdistill.convert.samples import Samples
from tfdistill.convert.signature import describe
from tfdistill.convert.variants import VARIANTS
from tfdistill.runtime.interpreter import open_file
from tfdistill.runtime.schema import schema

L = keras.layers


def branches():
    a, b = keras.Input((8,), name="a"), keras.Input((4, 4, 2), name="b-2")
    x = L.Concatenate()([L.Dense(5, activation="gelu")(a), L.Flatten()(L.Conv2D(3, 3, activation="hard_silu")(b))])
    return keras.Model({"a": a, "b-2": b}, {"zz": L.Dense(4, activation="softmax")(x), "aa": L.Dense(3)(x), "same": a})


def attention():
    tokens = keras.Input((6,), dtype="int32")
    x = L.Embedding(20, 8)(tokens)
    return keras.Model(tokens, L.Dense(3)(L.GlobalAveragePooling1D()(L.LayerNormalization()(L.MultiHeadAttention(2, 4)(x, x)))))


def images():
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            L.Conv2D(4, 3, dilation_rate=2),
            L.BatchNormalization(),
            L.Conv2DTranspose(2, 3, strides=2),
            L.UpSampling2D(),
        ]
    )


def quantized():
    return QuantizeAware().apply(
        keras.Sequential([keras.Input((8, 8, 3)), L.Conv2D(4, 3), L.BatchNormalization(), L.ReLU()]), dry_run=False
    )


def constants(content):
    """All constants of a file with their types and scales, in no order: two branches of a graph may be written in either."""
    model = schema().ModelT.InitFromObj(schema().Model.GetRootAs(content, 0))
    rows = []
    for tensor in model.subgraphs[0].tensors:
        data, quantization = model.buffers[tensor.buffer].data, tensor.quantization
        scales = () if quantization is None or quantization.scale is None else tuple(quantization.scale)
        rows.append((tensor.type, b"" if data is None else bytes(data), scales))
    return sorted(rows)


@pytest.mark.parametrize(
    ("make", "variant", "batch_size"),
    [
        (branches, "float32", 1),
        (branches, "int8", None),
        (attention, "dynamic_range", 1),
        (images, "int16x8", 1),
        (images, "float16", 1),
        (quantized, "int8", 1),
    ],
    ids=lambda value: value.__name__ if callable(value) else str(value),
)
def test_the_file_is_that_of_the_function(make, variant, batch_size, tmp_path, rng, monkeypatch):
    model = make()
    signature = describe(model)
    arrays = {i.name: (rng.random((16, *i.shape)) * (1 if "float" in i.dtype else 20)).astype(i.dtype) for i in signature.inputs}
    samples = Samples(arrays, None, 16, np.arange(16)) if VARIANTS[variant].integer_only else None

    def convert():
        return converter.convert(model, signature, VARIANTS[variant], "float32", samples, batch_size)

    frozen_before = []
    monkeypatch.setattr(graph_files, "frozen", lambda concrete: frozen_before.append(frozen(concrete)) or frozen_before[-1])
    contents = [convert()]
    monkeypatch.setattr(graph_files, "frozen", lambda concrete: None)
    contents.append(convert())
    assert frozen_before[0] is not None
    assert constants(contents[0]) == constants(contents[1])
    opened = []
    for name, content in zip("ab", contents, strict=True):
        (tmp_path / f"{name}.tflite").write_bytes(content)
        opened.append(open_file(tmp_path / f"{name}.tflite", trusted=True))
    assert list(opened[0].inputs) == list(opened[1].inputs)
    assert list(opened[0].outputs) == list(opened[1].outputs)
    ours, theirs = (one.run(arrays) for one in opened)
    for name, output in theirs.items():
        np.testing.assert_array_equal(ours[name], output)


class Counts(L.Layer):
    def build(self, shape):
        self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def call(self, inputs):
        self.calls.assign_add(1.0)
        return inputs + 1.0


@pytest.mark.parametrize("layer", [L.LSTM(3), Counts()], ids=["a loop", "an assignment"])
def test_what_has_to_stay_a_function_is_not_frozen(layer):
    model = keras.Sequential([keras.Input((4, 3)), layer])
    signature = describe(model)
    import tensorflow as tf

    traced = tf.function(
        lambda x: signature.name_outputs(model(x)),
        input_signature=[tf.TensorSpec((1, 4, 3), name=signature.inputs[0].name)],
        autograph=False,
    )
    assert frozen(traced.get_concrete_function()) is None
