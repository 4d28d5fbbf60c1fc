"""Which task an output is for, and the metrics of each against independent formulas."""

import doctest

import keras
import numpy as np
import pytest

import tfdistill.tasks as tasks
from tfdistill.errors import ConfigurationError, DataError
from tfdistill.graph.functional import last_activations

RNG = np.random.default_rng(0)
INDICES = RNG.integers(0, 4, 20)
ONE_HOT = np.eye(4, dtype="float32")[INDICES]
SOFT = RNG.dirichlet(np.ones(4), 20).astype("float32")
MANY_HOT = (RNG.random((20, 4)) < 0.5).astype("float32")
BITS = RNG.integers(0, 2, (20, 1))
NUMBERS = RNG.standard_normal((20, 4)).astype("float32")
MASKS = RNG.integers(0, 3, (20, 8, 8))

INFERRED = [
    # output shape, labels, loss, last activation, task
    ((None, 4), None, "sparse_categorical_crossentropy", None, "multiclass"),
    ((None, 4), None, keras.losses.CategoricalCrossentropy(from_logits=True), "linear", "multiclass"),
    ((None, 4), None, "SparseCategoricalCrossentropy", None, "multiclass"),
    ((None, 4), None, keras.losses.kl_divergence, "softmax", "multiclass"),
    ((None, 4), None, None, "softmax", "multiclass"),
    ((None, 4), INDICES, None, None, "multiclass"),
    ((None, 4), INDICES[:, None], None, "linear", "multiclass"),
    ((None, 4), ONE_HOT, None, "linear", "multiclass"),
    ((None, 4), ONE_HOT, "mse", "linear", "multiclass"),
    ((None, 4), SOFT, "categorical_crossentropy", "softmax", "multiclass"),
    ((None, 7, 4), None, "sparse_categorical_crossentropy", None, "multiclass"),
    ((None, 4), None, "binary_crossentropy", "softmax", "multiclass"),
    ((None, 1), None, "binary_crossentropy", "sigmoid", "binary"),
    ((None,), None, keras.losses.BinaryFocalCrossentropy(), None, "binary"),
    ((None, 1), None, "hinge", "tanh", "binary"),
    ((None, 1), BITS, None, "linear", "binary"),
    ((None, 1), None, None, "sigmoid", "binary"),
    ((None, 4), None, "bce", "sigmoid", "multilabel"),
    ((None, 4), MANY_HOT, None, "linear", "multilabel"),
    ((None, 4), MANY_HOT, "mse", "linear", "regression"),
    ((None, 4), NUMBERS, None, "linear", "regression"),
    ((None, 4), SOFT, "binary_crossentropy", "sigmoid", "regression"),
    ((None, 3), None, "mse", "linear", "regression"),
    ((None, 3), None, keras.losses.Huber(), None, "regression"),
    ((None, 1), np.arange(20), None, None, "regression"),
    ((None, 1), None, None, "relu", "regression"),
    ((None, 32, 32, 21), None, None, "softmax", "segmentation"),
    ((None, 8, 8, 3), MASKS, None, "linear", "segmentation"),
    ((None, 8, 8, 3), MASKS[..., None], None, "linear", "segmentation"),
    ((None, 8, 8, 1), None, "binary_crossentropy", "sigmoid", "segmentation"),
    ((None, 8, 8, 1), None, keras.losses.Dice(), "sigmoid", "segmentation"),
    ((None, 8, 8, 1), RNG.random((20, 8, 8, 1)), "binary_crossentropy", "sigmoid", "regression"),
    ((None, 4), None, None, "linear", None),
    ((None, 1), None, None, None, None),
    ((None, 4), None, lambda y, p: 0, None, None),
]


@pytest.mark.parametrize(("shape", "labels", "loss", "activation", "task"), INFERRED)
def test_inferred(shape, labels, loss, activation, task):
    assert tasks.infer_task(shape, labels, loss, activation) == task


def test_symbolic_labels_are_enough():
    assert tasks.infer_task((None, 4), keras.KerasTensor((None,), "int32")) == "multiclass"
    assert tasks.infer_task((None, 4), keras.KerasTensor((None, 4), "bool")) == "multilabel"
    assert tasks.infer_task((None, 4), keras.KerasTensor((None, 4), "float32")) is None


REFUSED = [
    ("classes", (None, 4), "is unknown.*\n.*\n.*Nearest: 'multiclass'"),
    ("multiclass", (None, 1), "one score for each sample"),
    ("multiclass", (None,), "one score for each sample"),
    ("binary", (None, 4), "4 scores for each sample"),
    ("segmentation", (None, 4), "no positions to label"),
]


@pytest.mark.parametrize(("task", "shape", "match"), REFUSED)
def test_task_that_does_not_fit_the_shape(task, shape, match):
    with pytest.raises(ConfigurationError, match=match):
        tasks.check_task(task, shape, "out")


BAD_LABELS = [
    ("multiclass", INDICES + 1, (20, 4), "run from 1 to 4"),
    ("multiclass", INDICES * 0.5, (20, 4), "hold fractions"),
    ("multiclass", NUMBERS[:, :3], (20, 4), "have the shape"),
    ("multilabel", INDICES, (20, 4), "have the shape"),
    ("multilabel", NUMBERS, (20, 4), "zeros and ones"),
    ("binary", np.arange(20), (20, 1), "zeros and ones"),
    ("regression", INDICES, (20, 4), "have the shape"),
    ("regression", np.where(NUMBERS > 1, np.nan, NUMBERS), (20, 4), "NaN or infinite"),
    ("regression", INDICES.astype(str), (20, 4), "have the type"),
]


@pytest.mark.parametrize(("task", "labels", "shape", "match"), BAD_LABELS)
def test_labels_that_do_not_fit(task, labels, shape, match):
    with pytest.raises(DataError, match=match):
        tasks.targets(task, labels, shape)


@pytest.mark.parametrize(("have", "want"), [((20,), (20, 1)), ((20, 1), (20,)), ((20, 5), (20, 5, 1)), ((20, 5, 1), (20, 5))])
def test_a_last_axis_of_one_may_be_missing(have, want):
    assert tasks.targets("regression", np.zeros(have), want).shape == want


def test_labels_of_minus_one_and_one():
    assert tasks.targets("binary", np.array([-1, 1, 1]), (3, 1)).tolist() == [[False], [True], [True]]


def test_metrics_against_keras():
    scores = RNG.standard_normal((20, 4))
    probabilities = RNG.random((20, 4))
    maps = RNG.standard_normal((20, 8, 8, 3))
    table = [
        (keras.metrics.SparseCategoricalAccuracy(), "multiclass", INDICES, scores),
        (keras.metrics.BinaryAccuracy(), "multilabel", MANY_HOT, probabilities),
        (keras.metrics.BinaryAccuracy(), "binary", BITS, probabilities[:, :1]),
        (keras.metrics.MeanAbsoluteError(), "regression", NUMBERS, scores),
        (keras.metrics.MeanIoU(3, sparse_y_pred=False), "segmentation", MASKS, maps),
        (keras.metrics.BinaryIoU([0, 1]), "segmentation", (MASKS > 0)[..., None], RNG.random((20, 8, 8, 1))),
    ]
    for metric, task, labels, outputs in table:
        metric.update_state(labels, outputs)
        found = tasks.score(task, tasks.targets(task, labels, outputs.shape), tasks.predictions(task, outputs), max(outputs.shape[-1], 2))
        assert found == pytest.approx(float(metric.result()), rel=1e-6), task


def test_r_squared_of_each_index():
    true = RNG.standard_normal((50, 3)) * [1, 1000, 0] + 7
    predicted = true + RNG.standard_normal((50, 3)) * 0.1
    metric = keras.metrics.R2Score(class_aggregation=None)
    metric.update_state(true[:, :2], predicted[:, :2])
    found = tasks.r_squared(true, predicted)
    np.testing.assert_allclose(found[:2], metric.result(), rtol=1e-5)
    assert np.isnan(found[2])
    assert tasks.r_squared(true, true.mean(0) + 0 * true)[:2] == pytest.approx([0, 0], abs=1e-12)
    assert tasks.r_squared(true[:, 0], predicted[:, 0]) == pytest.approx(found[:1])


def test_segmentation_ignores_absent_classes():
    assert tasks.mean_iou([0, 0, 1], [0, 1, 1], classes=5) == pytest.approx(0.5)


L = keras.layers


@pytest.mark.parametrize(
    ("head", "found"),
    [
        ([L.Dense(4, activation="softmax")], "softmax"),
        ([L.Dense(4), L.Softmax()], "softmax"),
        ([L.Dense(4), L.Activation("sigmoid")], "sigmoid"),
        ([L.Dense(4, activation="sigmoid"), L.Reshape((2, 2)), L.Flatten()], "sigmoid"),
        ([L.Dense(4)], "linear"),
        ([L.Dense(4, activation="softmax"), L.LayerNormalization()], None),
        ([keras.Sequential([keras.Input((3,)), L.Dense(4, activation="softmax")])], "softmax"),
        ([L.Dense(4, activation=keras.activations.tanh)], "tanh"),
    ],
)
def test_last_activation(head, found):
    assert last_activations(keras.Sequential([keras.Input((3,)), *head])) == [found]


def test_last_activations_of_operations_of_several_outputs_and_of_tf_keras():
    from tfdistill.bridge import to_tf_keras

    x = keras.Input((3,))
    a = L.Dense(4, activation="softmax")(x)
    model = keras.Model(x, {"b": keras.ops.sigmoid(L.Dense(1)(x)), "a": a, "c": keras.ops.concatenate([a, a])})
    assert last_activations(model) == ["softmax", "sigmoid", None]
    assert last_activations(to_tf_keras(keras.Model(x, [a, L.Dense(2)(x)]))) == ["softmax", "linear"]


def test_examples():
    failed, tried = doctest.testmod(tasks)
    assert (failed, tried > 0) == (0, True)
