"""Checks with the labels of the first batch: reports that do not fit, and teachers at chance in inference mode. And: how reports weigh samples."""

import functools

import keras
import numpy as np
import pytest
from small import CLASSES, data, mlp

from tfdistill import Distiller
from tfdistill.distill.metrics.teacher_report import TeacherReport
from tfdistill.errors import ConfigurationError
from tfdistill.losses import BinarySoftTargets, OutputMatching, SoftTargets

CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def with_head(head, name, width=8):
    inner = mlp(width, name=name)
    return keras.Model(inner.input, head(inner.output), name=name) if head else inner


def fit(loss, term, report, head=None, y=None, rows=64):
    x, labels = data(rows)
    model = Distiller(with_head(head, "teacher"), with_head(head, "student", 5), term)
    model.compile(keras.optimizers.SGD(0.0), loss=loss, metrics=[report], run_eagerly=True)
    return model.fit(x, labels if y is None else y, verbose=0).history


NUMBERS = np.random.default_rng(2).normal(size=(64, CLASSES)).astype("float32")
DECISIONS = (NUMBERS > 0).astype("float32")
SOFTMAX, SIGMOID = keras.layers.Softmax, lambda: keras.layers.Activation("sigmoid")
PROBABILITIES = SoftTargets(2.0, teacher_outputs="probabilities", student_outputs="probabilities")
BINARY = BinarySoftTargets(1.0)

# loss, distillation loss, report, last layer, labels, the report that the message says to write.
UNFIT = {
    "regression": (
        "mse",
        OutputMatching(),
        TeacherReport(),
        None,
        NUMBERS,
        "TeacherReport(metrics=[keras.metrics.MeanAbsoluteError()], outputs='numbers')",
    ),
    "regression, by another loss": ("huber", OutputMatching(), TeacherReport(), None, NUMBERS, "MeanAbsoluteError()"),
    "multi-label logits": (
        keras.losses.BinaryCrossentropy(from_logits=True),
        BINARY,
        TeacherReport(),
        None,
        DECISIONS,
        "TeacherReport(metrics=[keras.metrics.BinaryAccuracy(threshold=0.0)], outputs='numbers')",
    ),
    "multi-label probabilities": (
        "binary_crossentropy",
        BinarySoftTargets(1.0, "probabilities", "probabilities"),
        TeacherReport(outputs="probabilities"),
        SIGMOID,
        DECISIONS,
        "BinaryAccuracy(threshold=0.5)",
    ),
    "multi-label, by the last layer": (
        lambda y, p: keras.ops.mean(keras.ops.square(y - p), axis=-1),
        BinarySoftTargets(1.0, "probabilities", "probabilities"),
        TeacherReport(outputs="probabilities"),
        SIGMOID,
        DECISIONS,
        "BinaryAccuracy(threshold=0.5)",
    ),
    "regression, by the last layer": (
        lambda y, p: keras.ops.mean(keras.ops.square(y - p), axis=-1),
        OutputMatching(),
        TeacherReport(),
        lambda: keras.layers.ReLU(),
        np.round(4 * NUMBERS),
        "MeanAbsoluteError()",
    ),
    "softmax as logits": (
        "sparse_categorical_crossentropy",
        PROBABILITIES,
        TeacherReport(),
        SOFTMAX,
        None,
        "TeacherReport(outputs='logits', teacher_outputs='probabilities')",
    ),
    "logits as probabilities": (
        CROSS_ENTROPY,
        SoftTargets(2.0),
        TeacherReport(outputs="probabilities"),
        None,
        None,
        "teacher_outputs='logits'",
    ),
}


@pytest.mark.parametrize("case", UNFIT.values(), ids=UNFIT)
def test_a_report_that_does_not_fit_is_refused_with_one_that_does(case):
    loss, term, report, head, y, line = case
    head = head and head()
    for _ in range(3):
        with pytest.raises(ConfigurationError) as caught:
            fit(loss, term, report, head, y)
        assert line in caught.value.fix or _ > 0
        report = eval(caught.value.fix, {"TeacherReport": TeacherReport, "keras": keras})
        try:
            logs = fit(loss, term, report, head, y)
            break
        except ConfigurationError:
            # The other side's outputs are in another space, too: that is reported next.
            continue
    assert all(np.isfinite(values).all() for values in logs.values())
    if y is not None:
        assert "teacher_accuracy" not in logs
    else:
        assert logs["teacher_calibration_error"][0] < 0.5


FIT = {
    "classes": (CROSS_ENTROPY, SoftTargets(2.0), TeacherReport(), None, None),
    "probabilities": ("sparse_categorical_crossentropy", PROBABILITIES, TeacherReport(outputs="probabilities"), SOFTMAX, None),
    "one-hot": (
        keras.losses.CategoricalCrossentropy(from_logits=True),
        SoftTargets(2.0),
        TeacherReport(),
        None,
        np.eye(CLASSES, dtype="float32")[data(64)[1]],
    ),
    "soft labels of a softmax": (
        "mse",
        PROBABILITIES,
        TeacherReport(outputs="probabilities"),
        SOFTMAX,
        np.exp(NUMBERS) / np.exp(NUMBERS).sum(-1, keepdims=True),
    ),
    "a task that is given": ("mse", OutputMatching(), TeacherReport(task="multiclass"), None, NUMBERS),
    "one yes-no output": (
        "binary_crossentropy",
        BinarySoftTargets(1.0, "probabilities", "probabilities"),
        TeacherReport(outputs="probabilities", task="binary"),
        lambda: keras.layers.Dense(1, activation="sigmoid"),
        DECISIONS[:, :1],
    ),
    "numbers of a task": ("mse", OutputMatching(), TeacherReport(metrics=["mae"], outputs="numbers", task="regression"), None, NUMBERS),
    "numbers": ("mse", OutputMatching(), TeacherReport(metrics=["mae"], outputs="numbers"), None, NUMBERS),
}


@pytest.mark.parametrize("case", FIT.values(), ids=FIT)
def test_a_report_that_fits_is_left_alone(case):
    loss, term, report, head, y = case
    assert fit(loss, term, report, head and head(), y)


WRONG_TASKS = {
    "unknown": (dict(task="classes"), "one of"),
    "regression of classes": (dict(task="regression"), "MeanAbsoluteError"),
    "multilabel of logits": (dict(task="multilabel"), r"BinaryAccuracy\(threshold=0.0\)"),
    "multilabel of probabilities": (dict(task="multilabel", outputs="probabilities"), r"BinaryAccuracy\(threshold=0.5\)"),
    "classes of numbers": (dict(task="multiclass", outputs="numbers", metrics=["mae"]), "numbers"),
}


@pytest.mark.parametrize("case", WRONG_TASKS)
def test_a_task_that_does_not_fit_the_settings(case):
    settings, words = WRONG_TASKS[case]
    with pytest.raises(ConfigurationError, match=words) as caught:
        TeacherReport(**settings)
    if "TeacherReport(" in (caught.value.fix or ""):
        assert eval(caught.value.fix, {"TeacherReport": TeacherReport, "keras": keras})


def test_a_task_that_does_not_fit_the_output():
    with pytest.raises(ConfigurationError, match="one score on the last axis"):
        fit(CROSS_ENTROPY, SoftTargets(2.0), TeacherReport(task="binary"))


# Weights


@pytest.mark.parametrize("how", ["sample_weight", "class_weight", "none"])
@pytest.mark.parametrize("kind", ["metrics", "weighted_metrics"])
def test_a_report_weighs_as_the_metrics_beside_it(kind, how, tmp_path):
    x, y = data(64)
    # One net on both sides: whatever is weighed alike is equal.
    teacher, student = mlp(8, name="teacher"), mlp(8, name="student")
    student.set_weights(teacher.get_weights())
    given = {
        "sample_weight": dict(sample_weight=np.random.default_rng(1).uniform(0, 3, 64)),
        "class_weight": dict(class_weight={i: float(i * i) for i in range(CLASSES)}),
        "none": {},
    }[how]
    model = Distiller(teacher, student, SoftTargets(2.0))
    accuracy = keras.metrics.SparseCategoricalAccuracy(name="accuracy")
    model.compile(keras.optimizers.SGD(0.0), loss=CROSS_ENTROPY, run_eagerly=True, **{kind: [accuracy, TeacherReport()]})
    logs = model.fit(x, y, batch_size=24, verbose=0, **given).history
    np.testing.assert_allclose(logs["teacher_accuracy"], logs["accuracy"], rtol=1e-6)
    right = teacher.predict(x, verbose=0).argmax(-1) == y
    weight = given.get("sample_weight", np.square(y) if how == "class_weight" else np.ones(64))
    expected = np.average(right, weights=weight if kind == "weighted_metrics" else None)
    np.testing.assert_allclose(logs["teacher_accuracy"][0], expected, rtol=1e-5)
    assert [report.weighted for report in model.reports] == [kind == "weighted_metrics"]
    model.save(tmp_path / "distiller.keras")
    loaded = keras.saving.load_model(tmp_path / "distiller.keras")
    assert [report.weighted for report in loaded.reports] == [kind == "weighted_metrics"]


# Teachers at chance


def normalized(name, momentum=0.99, normalize=True, trained=True):
    keras.utils.set_random_seed(4)
    layers = [keras.Input((8,)), keras.layers.Rescaling(1.0, offset=40.0), keras.layers.Dense(24)]
    layers += [keras.layers.BatchNormalization(momentum=momentum)] if normalize else []
    model = keras.Sequential([*layers, keras.layers.Activation("relu"), keras.layers.Dense(CLASSES)], name=name)
    if trained:
        model.set_weights(trained_weights(momentum))
    return model


@functools.cache
def trained_weights(momentum):
    """Weights of a normalized net after 120 steps, in one epoch: each epoch more would make an iterator."""
    model = normalized("trained", momentum, trained=False)
    x, y = data(256, seed=3)
    model.compile(keras.optimizers.Adam(0.01), loss=CROSS_ENTROPY, jit_compile=False)
    model.fit(np.tile(x, (60, 1)), np.tile(y, 60), batch_size=128, shuffle=False, verbose=0)
    return model.get_weights()


TEACHERS = {
    "not settled": (lambda: normalized("teacher", momentum=0.9999), True),
    "settled": (lambda: normalized("teacher", momentum=0.5), False),
    "not trained": (lambda: normalized("teacher", trained=False), False),
    "no BatchNormalization": (lambda: normalized("teacher", normalize=False, trained=False), False),
}


@pytest.mark.parametrize("kind", TEACHERS)
def test_a_teacher_at_chance_in_inference_mode_is_said(kind):
    make, warned = TEACHERS[kind]
    teacher = make()
    x, y = data(256, seed=3)
    before = [np.asarray(w) for w in teacher.weights]
    model = Distiller(teacher, mlp(6, name="student"), SoftTargets(2.0))
    model.compile("sgd", loss=CROSS_ENTROPY, run_eagerly=True)

    def run(size):
        model.fit(x, y, batch_size=size, verbose=0, epochs=1, steps_per_epoch=1)

    if warned:
        with pytest.warns(
            UserWarning, match=r"'teacher' is right in \d+% .* inference mode, no better than chance.*BatchNormalization\(momentum=0.9\)"
        ):
            run(64)
    else:
        run(64)
    for a, b in zip(before, teacher.weights, strict=True):
        np.testing.assert_array_equal(a, np.asarray(b))


@pytest.mark.parametrize("size", [1, 2, 8])
def test_small_batches_give_no_alarm(size):
    teacher = normalized("teacher", momentum=0.9999)
    x, y = data(size, seed=3)
    model = Distiller(teacher, mlp(6, name="student"), SoftTargets(2.0))
    model.compile("sgd", loss=CROSS_ENTROPY, run_eagerly=True)
    model.fit(x, y, verbose=0)


@pytest.mark.parametrize("seed", range(4))
def test_labels_that_nobody_can_know_give_no_alarm(seed):
    teacher = normalized("teacher", momentum=0.9999)
    x, _ = data(64, seed=seed)
    model = Distiller(teacher, mlp(6, name="student"), SoftTargets(2.0))
    model.compile("sgd", loss=CROSS_ENTROPY, run_eagerly=True)
    model.fit(x, np.random.default_rng(seed).integers(0, CLASSES, 64), batch_size=64, verbose=0)
