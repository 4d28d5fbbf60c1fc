"""Models with several outputs: sample weights for each, labels and reports, as Keras takes them."""

import operator

import keras
import numpy as np
import pytest
import tensorflow as tf
from small import CLASSES, data

from tfdistill import Distiller
from tfdistill.distill.metrics.teacher_report import TeacherReport
from tfdistill.errors import ModelError
from tfdistill.losses import Hint, SimilarityPreserving, SoftTargets

CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
NAMES = ("kind", "size")


def two_heads(width, name, kind):
    inputs = keras.Input((8,))
    x = keras.layers.Dense(width, activation="relu", name="trunk")(inputs)
    heads = [keras.layers.Dense(CLASSES, name="kind")(x), keras.layers.Dense(3, name="size")(x)]
    return keras.Model(inputs, dict(zip(NAMES, heads, strict=True)) if kind is dict else heads, name=name)


def put(kind, pair):
    return dict(zip(NAMES, pair, strict=True)) if kind is dict else list(pair)


def distiller(kind, losses=None, weighted=False, **kwargs):
    made = Distiller(
        two_heads(16, "teacher", kind),
        two_heads(8, "student", kind),
        losses or {"kind": SoftTargets(2.0), "size": SoftTargets(3.0)},
        student_loss_weight=0.25,
        **kwargs,
    )
    metrics = put(kind, [["accuracy"], ["accuracy"]])
    made.compile(
        keras.optimizers.SGD(0.1),
        loss=put(kind, [CROSS_ENTROPY, CROSS_ENTROPY]),
        **{"weighted_metrics" if weighted else "metrics": metrics},
        run_eagerly=True,
    )
    return made


def soft(teacher, student, temperature):
    p, q = (np.exp(z / temperature - np.log(np.exp(z / temperature).sum(-1, keepdims=True))) for z in (teacher, student))
    return temperature**2 * (p * np.log(p / q)).sum(-1)


def hard(y, z):
    return -(z - np.log(np.exp(z).sum(-1, keepdims=True)))[np.arange(len(y)), y]


def outputs_of(model, x):
    values = model.predict(x, verbose=0)
    return [np.asarray(values[n] if isinstance(values, dict) else v, "float64") for n, v in zip(NAMES, values, strict=True)]


# What a user gives as sample_weight for 32 samples -> the weights of the two outputs.
GIVEN = {
    "one of each": lambda kind, a, b: (put(kind, [a, b]), a, b),
    "one array for all": lambda kind, a, b: (a, a, a),
    "columns": lambda kind, a, b: (put(kind, [a[:, None], b[:, None]]), a, b),
    "zeros for one": lambda kind, a, b: (put(kind, [a, 0 * b]), a, 0 * b),
}


@pytest.mark.parametrize("kind", [dict, list], ids=["dict", "list"])
@pytest.mark.parametrize("given", GIVEN)
def test_each_output_is_weighed_by_its_own(given, kind, rng):
    x, y = data(32)
    model = distiller(kind)
    a, b = (rng.uniform(0, 2, 32).astype("float32") for _ in range(2))
    weight, *pair = GIVEN[given](kind, a, b)
    labels = [y, y % 3]
    teacher_outputs, student_outputs = outputs_of(model.teacher, x), outputs_of(model.student, x)
    logs = model.fit(x, put(kind, labels), sample_weight=weight, batch_size=32, verbose=0).history
    distilled = sum(
        (w * soft(t, s, temperature)).mean()
        for w, t, s, temperature in zip(pair, teacher_outputs, student_outputs, (2.0, 3.0), strict=True)
    )
    labelled = sum((w * hard(true, s)).mean() for w, true, s in zip(pair, labels, student_outputs, strict=True))
    np.testing.assert_allclose(logs["distillation_loss"][0], distilled, rtol=1e-4)
    np.testing.assert_allclose(logs["student_loss"][0], labelled, rtol=1e-4)
    np.testing.assert_allclose(logs["loss"][0], 0.25 * labelled + 0.75 * distilled, rtol=1e-4)


def halves(*parts):
    for rows in (slice(0, 16), slice(16, 32)):
        yield keras.tree.map_structure(operator.itemgetter(rows), parts)


WAYS = {
    "tf.data": lambda x, y, w: dict(x=tf.data.Dataset.from_tensor_slices((x, y, w)).batch(16)),
    "generator": lambda x, y, w: dict(x=halves(x, y, w), steps_per_epoch=2),
    "arrays": lambda x, y, w: dict(x=x, y=y, sample_weight=w, batch_size=16),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_in_takes_them_and_so_does_validation(way, rng):
    x, y = data(32)
    labels = put(dict, [y, y % 3])
    weight = put(dict, [rng.uniform(0, 2, 32).astype("float32"), rng.uniform(0, 2, 32).astype("float32")])
    model = distiller(dict, weighted=True)
    logs = model.fit(**WAYS[way](x, labels, weight), shuffle=False, verbose=0, validation_data=(x, labels, weight)).history
    again = model.evaluate(x, labels, sample_weight=weight, verbose=0, return_dict=True)
    for name, value in again.items():
        np.testing.assert_allclose(logs[f"val_{name}"][0], value, rtol=1e-5, err_msg=name)
    plain = keras.models.clone_model(model.student)
    plain.set_weights(model.student.get_weights())
    plain.compile("sgd", loss=put(dict, [CROSS_ENTROPY] * 2), weighted_metrics=put(dict, [["accuracy"]] * 2), run_eagerly=True)
    expected = plain.evaluate(x, labels, sample_weight=weight, verbose=0, return_dict=True)
    np.testing.assert_allclose(again["student_loss"], expected["loss"], rtol=1e-5)
    for name in ("kind_accuracy", "size_accuracy"):
        np.testing.assert_allclose(again[name], expected[name], rtol=1e-5)


# What is given -> the weights that count for a hidden layer.
HIDDEN = {
    "one array for all": lambda kind, a, b: (a, a),
    "one of each": lambda kind, a, b: (put(kind, [a, b]), (a + b) / 2),
    "columns": lambda kind, a, b: (put(kind, [a[:, None], b[:, None]]), (a + b) / 2),
}


@pytest.mark.parametrize("loss", [Hint("trunk", "trunk"), SimilarityPreserving("trunk", "trunk")], ids=["Hint", "SimilarityPreserving"])
@pytest.mark.parametrize("kind", [dict, list], ids=["dict", "list"])
@pytest.mark.parametrize("given", HIDDEN)
def test_a_hidden_layer_has_the_mean_of_the_outputs_weights(given, kind, loss, rng):
    x, y = data(32)
    weight, expected = HIDDEN[given](kind, *(rng.uniform(0, 2, 32).astype("float32") for _ in range(2)))
    model = distiller(kind, loss)
    logs = model.evaluate(x, put(kind, [y, y % 3]), sample_weight=weight, batch_size=32, verbose=0, return_dict=True)
    _, features = model._student_feature_extractor(x)
    teacher_features = model._teacher_feature_extractor(x)[1]
    pair = model.projections.apply(0, next(iter(teacher_features.values())), next(iter(features.values())))
    np.testing.assert_allclose(logs["distillation_loss"], float(loss.compute_loss(*pair, sample_weight=expected)), rtol=1e-5)


def test_a_hidden_layer_that_is_listed_under_an_output_has_that_outputs_weights(rng):
    x, y = data(32)
    a, b = (rng.uniform(0, 2, 32).astype("float32") for _ in range(2))
    model = distiller(dict, {"kind": Hint("trunk", "trunk")})

    def distillation_loss(weight):
        return model.evaluate(x, put(dict, [y, y % 3]), sample_weight=weight, batch_size=32, verbose=0, return_dict=True)[
            "distillation_loss"
        ]

    np.testing.assert_allclose(distillation_loss(put(dict, [a, b])), distillation_loss(a), rtol=1e-5)
    assert not np.isclose(distillation_loss(put(dict, [a, b])), distillation_loss(b), rtol=1e-3)


@pytest.mark.parametrize("kind", [dict, list], ids=["dict", "list"])
def test_a_report_on_one_output_has_that_outputs_labels_and_weights(kind):
    x, y = data(32)
    model = distiller(kind)
    model.compile("sgd", loss=put(kind, [CROSS_ENTROPY] * 2), metrics=[TeacherReport(output="size")], run_eagerly=True)
    labels = put(kind, [y, y % 3])
    logs = model.evaluate(x, labels, sample_weight=put(kind, [np.ones(32), np.ones(32)]), verbose=0, return_dict=True)
    teacher_outputs = outputs_of(model.teacher, x)[1]
    np.testing.assert_allclose(logs["teacher_accuracy"], (teacher_outputs.argmax(-1) == y % 3).mean(), atol=1e-6)
    model.compile("sgd", loss=put(kind, [CROSS_ENTROPY] * 2), metrics=[TeacherReport()], run_eagerly=True)
    with pytest.raises(ModelError, match=r"names none.*\['kind', 'size'\]"):
        model.evaluate(x, labels, verbose=0)
