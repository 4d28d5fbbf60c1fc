"""What is read of the private parts of Keras and tf.data: a version that changes one of them fails here, with its name."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfdistill.graph import datasets, layers, training


def model(loss="mse"):
    inner = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(2, name="inside", kernel_regularizer=keras.regularizers.L2(0.1))], name="inner"
    )
    inputs = keras.Input((3,))
    made = keras.Model(inputs, keras.layers.Dense(1, name="last")(inner(inputs)))
    made.compile("sgd", loss=loss)
    return made


def test_layers_of_a_model():
    made = model()
    assert layers.all_layers(made)[0] is made
    assert {layer.name for layer in layers.all_layers(made)} >= {"inner", "inside", "last"}
    assert [layer.name for layer in layers.child_layers(made)][1:] == ["inner", "last"]


@pytest.mark.parametrize(
    ("layer", "has"),
    [
        (keras.layers.MultiHeadAttention(2, 4), True),
        (keras.layers.GroupQueryAttention(4, 2, 1), True),
        (keras.layers.Attention(), False),
        (keras.layers.Dense(2), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_layers_with_attention_scores(layer, has):
    assert layers.has_attention_scores(layer) is has


@pytest.mark.parametrize("weight", [None, np.array([1.0, 3.0], "float32")], ids=["plain", "weighted"])
def test_the_loss_on_labels_has_no_penalties(weight):
    made, x, y = model(), np.ones((2, 3), "float32"), np.array([[0.0], [1.0]], "float32")
    outputs = np.asarray(made(x))
    expected = np.mean((1.0 if weight is None else weight) * ((outputs - y) ** 2)[:, 0])
    np.testing.assert_allclose(float(training.loss_on_labels(made, y, outputs, weight)), expected, rtol=1e-6)
    assert float(made.compute_loss(x, y, outputs, weight)) > expected


def test_no_loss_on_labels_where_none_was_compiled():
    assert training.loss_on_labels(model(loss=None), np.zeros((2, 1)), np.zeros((2, 1))) is None


def test_the_loss_tracker_is_what_the_logs_show():
    made = model()
    logs = made.fit(np.ones((4, 3)), np.ones((4, 1)), verbose=0).history
    assert training.loss_tracker(made).name == "loss"
    np.testing.assert_allclose(float(training.loss_tracker(made).result()), logs["loss"][0], rtol=1e-6)


def numbers():
    return tf.data.Dataset.range(4)


SOURCES = {
    "range": (numbers, 0),
    "map": (lambda: numbers().map(lambda x: x + 1), 1),
    "zip": (lambda: tf.data.Dataset.zip(numbers(), numbers()), 2),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_the_sources_of_a_dataset(kind):
    make, count = SOURCES[kind]
    assert len(datasets.source_datasets(make())) == count


OPERATIONS = {
    "none": (numbers, set()),
    "map": (lambda: numbers().map(lambda x: x + 1), {"AddV2"}),
    "Python": (lambda: numbers().map(lambda x: tf.py_function(lambda v: v, [x], tf.int64)), {"EagerPyFunc"}),
    "inner function": (lambda: numbers().map(lambda x: tf.cond(x > 1, lambda: x * 2, lambda: x)), {"Mul"}),
}


@pytest.mark.parametrize("kind", OPERATIONS)
def test_the_operations_of_a_datasets_functions(kind):
    make, expected = OPERATIONS[kind]
    found = datasets.function_operations(make())
    assert expected <= found
    assert bool(found) == bool(expected)
