"""Samples from every form of data, and every way that data can be wrong."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfdistill.convert.samples import collect
from tfdistill.convert.signature import describe
from tfdistill.errors import DataError

X = np.arange(60, dtype="float32").reshape(20, 3)
Y = np.arange(20)


def one_input():
    return describe(keras.Sequential([keras.Input((3,), name="x"), keras.layers.Dense(2)]))


def two_inputs():
    a, b = keras.Input((3,), name="a.1"), keras.Input((), dtype="int32", name="b")
    return describe(keras.Model({"a.1": a, "b": b}, keras.layers.Dense(2)(a) + keras.ops.cast(b, "float32")[:, None]))


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 4

    def __getitem__(self, i):
        return X[5 * i : 5 * i + 5], Y[5 * i : 5 * i + 5]


ONE = [
    (lambda: X, False),
    (lambda: X.astype("float64"), False),
    (lambda: X.astype("uint8"), False),
    (lambda: X.tolist(), False),
    (lambda: [X], False),
    (lambda: tf.constant(X), False),
    (lambda: {"x": X}, False),
    (lambda: (X, Y), True),
    (lambda: (X, Y, np.ones(20)), True),
    (lambda: tf.data.Dataset.from_tensor_slices(X).batch(7), False),
    (lambda: tf.data.Dataset.from_tensor_slices((X, Y)).batch(7), True),
    (lambda: tf.data.Dataset.from_tensor_slices((X, Y)), True),
    (lambda: tf.data.Dataset.from_tensor_slices(({"x": X}, Y)).batch(6), True),
    (lambda: Batches(), True),
    (lambda: (X[i : i + 4] for i in range(0, 20, 4)), False),
]


@pytest.mark.parametrize(("data", "labelled"), ONE)
def test_every_form_gives_the_same_samples(data, labelled):
    samples = collect(data(), one_input(), minimum=16)
    assert samples.count == 20
    assert samples.inputs["x"].dtype == "float32"
    np.testing.assert_array_equal(samples.inputs["x"], X)
    assert (samples.labels is not None) is labelled
    if labelled:
        np.testing.assert_array_equal(samples.labels, Y)


@pytest.mark.parametrize("data", [{"a.1": X, "b": Y}, {"a_1": X, "b": Y}, [X, Y], tf.data.Dataset.from_tensor_slices({"a.1": X, "b": Y})])
def test_several_inputs(data):
    samples = collect(data, two_inputs())
    assert set(samples.inputs) == {"a_1", "b"}
    assert samples.inputs["b"].dtype == "int32"
    np.testing.assert_array_equal(samples.inputs["b"], Y)


@pytest.mark.parametrize(("data", "kept"), [((X, Y), [0, 6, 13, 19]), (tf.data.Dataset.from_tensor_slices((X, Y)).batch(3), [0, 1, 2, 3])])
def test_limit(data, kept):
    samples = collect(data, one_input(), limit=4)
    np.testing.assert_array_equal(samples.inputs["x"], X[kept])
    np.testing.assert_array_equal(samples.labels, Y[kept])


def test_endless_dataset_only_with_a_limit():
    endless = tf.data.Dataset.from_tensor_slices(X).batch(5).repeat()
    assert collect(endless, one_input(), limit=32).count == 32
    with pytest.raises(DataError, match="never ends"):
        collect(endless, one_input())


BAD = [
    (one_input, X[:15], "holds 15 samples"),
    (one_input, X[:1], "holds 1 sample\\."),
    (one_input, X[:0], "holds 0 samples"),
    (one_input, tf.data.Dataset.from_tensor_slices(X).take(0), "is empty"),
    (one_input, iter(()), "is empty"),
    (one_input, np.where(X == 7, np.nan, X), "Input 'x' of the calibration data is NaN or infinite in 1 of 20"),
    (one_input, np.where(X > 50, np.inf, X), "NaN or infinite in 3 of 20"),
    (one_input, X[:, :2], r"has the shape \(20, 2\).\nExpected: \(samples, 3\)"),
    (one_input, X[0], "has the shape"),
    (one_input, X.astype(str), "has the type"),
    (one_input, {"y": X}, "no input 'x'"),
    (one_input, {"x": X, "z": X}, r"has the inputs \['z'\]"),
    (one_input, (X, Y[:19]), "different numbers of samples"),
    (one_input, iter([X[:4], X[:4, :2]]), "do not fit together"),
    (two_inputs, X, "a list of 2 arrays"),
    (two_inputs, [X, Y[:18]], "different numbers of samples"),
    (two_inputs, {"a.1": X, "b": Y + 0.5}, "holds fractions"),
    (two_inputs, {"a.1": X, "c": Y}, "no input 'b'"),
]


@pytest.mark.parametrize(("signature", "data", "match"), BAD)
def test_bad_data(signature, data, match):
    with pytest.raises(DataError, match=match):
        collect(data, signature(), minimum=16)
