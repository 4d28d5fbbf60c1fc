"""StopAtTarget and TeacherReport: when training stops, and what is reported of the teacher."""

import keras
import numpy as np
import pytest
from small import CLASSES, data, mlp

from tfdistill import Distiller
from tfdistill.distill.callbacks import StopAtTarget
from tfdistill.distill.metrics.teacher_report import CalibrationError, TeacherReport
from tfdistill.errors import ConfigurationError, DataError, ModelError
from tfdistill.losses import OutputMatching, SoftTargets

CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def distiller(metrics=("accuracy",), losses=None, loss=CROSS_ENTROPY, student=None):
    made = Distiller(mlp(32, name="teacher"), student or mlp(16, name="student"), losses or SoftTargets(2.0), student_loss_weight=0.5)
    made.compile(keras.optimizers.Adam(0.02), loss=loss, metrics=list(metrics), jit_compile=False)
    return made


class Fixed(keras.callbacks.Callback):
    """Writes made-up values into the logs, so that what follows is known."""

    def __init__(self, name, values):
        super().__init__()
        self.name, self.values = name, values

    def on_epoch_end(self, epoch, logs=None):
        logs[self.name] = self.values[epoch]


STOPS = {
    "higher is better": (dict(share=0.9, teacher_value=0.8), "val_accuracy", [0.5, 0.71, 0.73, 0.9], 2),
    "exactly the target": (dict(share=0.5, teacher_value=0.5), "val_accuracy", [0.2, 0.25, 0.9], 1),
    "lower is better": (dict(share=0.5, teacher_value=1.0), "val_student_loss", [3.0, 2.5, 2.0, 1.0], 2),
    "lower by name": (dict(share=1.0, teacher_value=0.3), "val_mean_absolute_error", [0.5, 0.31, 0.29], 2),
    "direction given": (dict(share=0.5, teacher_value=4.0, direction="max"), "val_strangeness", [1.0, 2.0, 3.0], 1),
    "direction given against the name": (dict(share=0.5, teacher_value=4.0, direction="max"), "val_student_loss", [1.0, 1.9, 3.0], 2),
    "a teacher without error": (dict(share=0.5, teacher_value=0.0), "val_student_loss", [1.0, 0.0, 0.0], 1),
    "never": (dict(share=1.0, teacher_value=0.9), "val_accuracy", [0.1, 0.2, 0.3], None),
}


@pytest.mark.parametrize("case", STOPS.values(), ids=STOPS)
def test_training_stops_in_the_right_epoch(case):
    arguments, metric, values, expected = case
    x, y = data(32)
    stop = StopAtTarget(metric=metric, **arguments)
    history = distiller().fit(x, y, epochs=len(values), callbacks=[Fixed(metric, values), stop], verbose=0).history
    assert stop.stopped_epoch == expected
    seen = len(values) if expected is None else expected + 1
    assert history[metric] == values[:seen]
    name = metric.removeprefix("val_")
    assert history[f"teacher_{name}"] == [arguments["teacher_value"]] * seen
    assert len(history[f"kept_{name}"]) == seen
    if arguments["teacher_value"]:
        higher = stop.direction == "max"
        kept = [v / arguments["teacher_value"] if higher else arguments["teacher_value"] / v for v in values[:seen]]
        np.testing.assert_allclose(history[f"kept_{name}"], kept)


@pytest.mark.parametrize("metric", ["val_accuracy", "val_loss", "val_student_loss"])
def test_the_teacher_is_evaluated_once_on_the_validation_data(metric):
    x, y = data(64)
    model = distiller()
    stop = StopAtTarget(1.0, metric, validation_data=(x, y))
    history = model.fit(x, y, validation_data=(x, y), epochs=1, callbacks=[stop], verbose=0).history
    logits = model.teacher.predict(x, verbose=0).astype("float64")
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    expected = (logits.argmax(-1) == y).mean() if metric == "val_accuracy" else -log_p[np.arange(64), y].mean()
    np.testing.assert_allclose(stop.teacher_value, expected, rtol=1e-5)
    assert not model.teacher.compiled
    assert f"kept_{metric[4:]}" in history


def test_another_metric_for_the_teacher():
    x, y = data(64)
    stop = StopAtTarget(1.0, "val_right", validation_data=(x, y), teacher_metric=keras.metrics.SparseCategoricalAccuracy(), direction="max")
    model = distiller(metrics=[keras.metrics.SparseCategoricalAccuracy(name="right")])
    model.fit(x, y, validation_data=(x, y), callbacks=[stop], verbose=0)
    np.testing.assert_allclose(stop.teacher_value, (model.teacher.predict(x, verbose=0).argmax(-1) == y).mean(), atol=1e-6)


def fit_with(stop, **kwargs):
    x, y = data(32)
    distiller().fit(x, y, callbacks=[stop], verbose=0, **kwargs)


def without_a_teacher():
    x, y = data(32)
    model = mlp(4)
    model.compile("sgd", loss=CROSS_ENTROPY, metrics=["accuracy"], jit_compile=False)
    model.fit(x, y, callbacks=[StopAtTarget(0.9, "accuracy", validation_data=(x, y))], verbose=0)


REFUSED = {
    "share of nothing": (lambda: StopAtTarget(0.0, teacher_value=0.5), ConfigurationError, "share=0.0"),
    "percent": (lambda: StopAtTarget(95, teacher_value=0.5), ConfigurationError, "at most 1"),
    "no teacher's value": (lambda: StopAtTarget(0.9), ConfigurationError, "neither"),
    "two": (lambda: StopAtTarget(0.9, teacher_value=0.5, validation_data=data()), ConfigurationError, "both"),
    "direction": (lambda: StopAtTarget(0.9, teacher_value=0.5, direction="up"), ConfigurationError, "direction='up'"),
    "unclear direction": (lambda: StopAtTarget(0.9, "val_strangeness", teacher_value=0.5), ConfigurationError, "cannot be told"),
    "negative": (lambda: StopAtTarget(0.9, "val_r2_score", teacher_value=-0.5), DataError, "is -0.5"),
    "zero": (lambda: StopAtTarget(0.9, teacher_value=0.0), DataError, "is 0.0"),
    "value and metric": (lambda: StopAtTarget(0.9, teacher_value=0.5, teacher_metric="accuracy"), ConfigurationError, "value is known"),
    "misspelt": (
        lambda: fit_with(StopAtTarget(0.9, "acuracy_of_it", teacher_value=0.5, direction="max")),
        ConfigurationError,
        "Nearest: 'accuracy'",
    ),
    "no validation": (lambda: fit_with(StopAtTarget(0.9, teacher_value=0.5)), ConfigurationError, "give validation_data to fit"),
    "no teacher": (without_a_teacher, ConfigurationError, "give teacher_value"),
    "unknown to Keras": (
        lambda: fit_with(StopAtTarget(0.9, "val_f1_of_mine", validation_data=data())),
        ConfigurationError,
        "give teacher_metric",
    ),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_stop_at_target_refuses(case):
    act, kind, words = case
    with pytest.raises(kind, match=words):
        act()


# The report


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def calibration_error(p, y, bins, weight):
    """By the letter of the paper, bin for bin."""
    p, y, weight = p.reshape(-1, p.shape[-1]).astype("float64"), y.reshape(-1), weight.reshape(-1)
    confidence, right, total = p.max(-1), p.argmax(-1) == y, 0.0
    for i in range(bins):
        inside = (confidence > i / bins) & (confidence <= (i + 1) / bins)
        if weight[inside].sum() > 0:
            gap = abs(np.average(right[inside], weights=weight[inside]) - np.average(confidence[inside], weights=weight[inside]))
            total += weight[inside].sum() / weight.sum() * gap
    return total


SPACES = {
    "logits": lambda z: z,
    "log_probabilities": lambda z: np.log(softmax(z)),
    "probabilities": softmax,
}
SHAPES = {"classes": (90, CLASSES), "positions": (30, 4, CLASSES)}
LABELS = {"indices": lambda y: y, "a last axis": lambda y: y[..., None], "one-hot": lambda y: np.eye(CLASSES, dtype="float32")[y]}


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("weighted", [False, True])
def test_report_equals_numpy(space, shape, labels, weighted, rng):
    size = SHAPES[shape]
    teacher, student = (rng.normal(scale=3.0, size=size).astype("float32") for _ in range(2))
    y = rng.integers(0, CLASSES, size[:-1])
    weight = rng.uniform(0, 2, size[0]).astype("float32") if weighted else None
    report = TeacherReport(outputs=space, bins=10, metrics=[keras.metrics.MeanAbsoluteError(name="mae")] if labels == "one-hot" else ())
    for rows in (slice(0, 13), slice(13, None)):
        teacher_outputs, student_outputs = (SPACES[space](z)[rows].astype("float32") for z in (teacher, student))
        report.update_teacher_state(LABELS[labels](y)[rows], teacher_outputs, student_outputs, None if weight is None else weight[rows])
    full = np.ones(size[:-1]) if weight is None else np.broadcast_to(weight.reshape(-1, *(1,) * (len(size) - 2)), size[:-1])
    expected = {
        "teacher_accuracy": np.average(teacher.argmax(-1) == y, weights=full),
        "agreement": np.average(teacher.argmax(-1) == student.argmax(-1), weights=full),
        "student_calibration_error": calibration_error(softmax(student), y, 10, full),
        "teacher_calibration_error": calibration_error(softmax(teacher), y, 10, full),
    }
    if labels == "one-hot":
        error = np.abs(SPACES[space](teacher) - np.eye(CLASSES)[y]).mean(-1)
        expected["teacher_mae"] = np.average(error, weights=full)
    found = {name: float(value) for name, value in report.result().items()}
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-5, err_msg=name)
    report.reset_state()
    assert all(float(value) == 0.0 for value in report.result().values())


def test_numpy_reference_sees_a_wrong_calibration():
    p, y = np.array([[0.9, 0.1]] * 10), np.array([0] * 9 + [1])
    ones = np.ones(10)
    np.testing.assert_allclose(calibration_error(p, y, 15, ones), 0.0, atol=1e-12)
    np.testing.assert_allclose(calibration_error(p, 1 - y, 15, ones), 0.8)


def test_edges_of_the_bins():
    metric = CalibrationError("probabilities", bins=2)
    # Half belongs to the lower bin, one to the upper.
    metric.update_state(np.array([0, 1]), np.array([[0.5, 0.5], [1.0, 0.0]], "float32"))
    np.testing.assert_allclose(np.asarray(metric.sums.value)[0], [1, 1])
    np.testing.assert_allclose(float(metric.result()), (0.5 + 1.0) / 2)


@pytest.mark.parametrize("space", ["logits", "probabilities"])
def test_one_yes_no_answer(space):
    z = np.array([[2.0], [-1.0], [0.5]], "float32")
    values = z if space == "logits" else 1 / (1 + np.exp(-z))
    report = TeacherReport(outputs=space, bins=5)
    report.update_teacher_state(np.array([1, 1, 1]), values, -values if space == "logits" else 1 - values)
    assert round(float(report.result()["teacher_accuracy"]), 5) == round(2 / 3, 5)
    assert float(report.result()["agreement"]) == 0.0


def test_batches_without_labels_count_for_the_agreement_only():
    report = TeacherReport()
    report.update_teacher_state(None, np.eye(5, dtype="float32"), np.eye(5, dtype="float32"))
    found = {k: float(v) for k, v in report.result().items()}
    assert found == {"teacher_accuracy": 0.0, "agreement": 1.0, "student_calibration_error": 0.0, "teacher_calibration_error": 0.0}


def test_one_output_of_several():
    report = TeacherReport(output="kind")
    outputs = {"kind": np.eye(5, dtype="float32"), "size": np.eye(5, 3, dtype="float32")}
    report.update_teacher_state({"kind": np.arange(5), "size": np.arange(5) % 3}, outputs, outputs)
    assert float(report.result()["teacher_accuracy"]) == 1.0
    with pytest.raises(ModelError, match=r"names none.*\['kind', 'size'\]"):
        TeacherReport().update_teacher_state(None, outputs, outputs)


def test_numbers_report_the_teachers_own_metrics():
    report = TeacherReport(outputs="numbers", metrics=["mae"])
    report.update_teacher_state(np.zeros((4, 1)), np.full((4, 1), 2.0), np.ones((4, 1)))
    assert {k: float(v) for k, v in report.result().items()} == {"teacher_mean_absolute_error": 2.0}


BAD_REPORTS = {
    "space": (dict(outputs="scores"), "outputs is 'scores'"),
    "mixed": (dict(outputs="numbers", teacher_outputs="logits", metrics=["mae"]), "numbers on both sides"),
    "nothing": (dict(outputs="numbers"), "nothing to report"),
    "metrics": (dict(metrics="mae"), "a list of metrics"),
    "bins": (dict(bins=0), "at least 1"),
    "function": (dict(metrics=[lambda y, p: 0.0]), "no metric with a state"),
}


@pytest.mark.parametrize("case", BAD_REPORTS.values(), ids=BAD_REPORTS)
def test_bad_reports_are_refused(case):
    arguments, words = case
    with pytest.raises(ConfigurationError, match=words):
        TeacherReport(**arguments)


def test_a_report_outside_a_distiller_says_where_it_belongs():
    with pytest.raises(ConfigurationError, match=r"Distiller\.compile"):
        TeacherReport().update_state(np.zeros(3), np.zeros((3, 5)))


def test_report_is_serialized():
    report = TeacherReport(metrics=[keras.metrics.MeanSquaredError(name="mse")], outputs="probabilities", bins=7, output="kind")
    again = keras.metrics.deserialize(keras.metrics.serialize(report))
    assert again.get_config() == report.get_config()
    assert list(again.result()) == list(report.result())


def test_reports_are_in_the_logs_of_fit_and_evaluate(tmp_path):
    x, y = data(64)
    model = distiller(["accuracy", TeacherReport()])
    history = model.fit(x, y, validation_data=(x, y), epochs=2, batch_size=24, verbose=0).history
    for name in ("teacher_accuracy", "agreement", "student_calibration_error", "teacher_calibration_error"):
        assert {name, f"val_{name}"} <= set(history)
    teacher_outputs, student_outputs = (m.predict(x, verbose=0) for m in (model.teacher, model.student))
    logs = model.evaluate(x, y, verbose=0, return_dict=True)
    np.testing.assert_allclose(logs["teacher_accuracy"], (teacher_outputs.argmax(-1) == y).mean(), atol=1e-6)
    np.testing.assert_allclose(logs["agreement"], (teacher_outputs.argmax(-1) == student_outputs.argmax(-1)).mean(), atol=1e-6)
    np.testing.assert_allclose(
        logs["student_calibration_error"], calibration_error(softmax(student_outputs), y, 15, np.ones(64)), atol=1e-5
    )
    np.testing.assert_allclose(history["val_agreement"][-1], logs["agreement"], atol=1e-6)
    model.save(tmp_path / "distiller.keras")
    loaded = keras.saving.load_model(tmp_path / "distiller.keras")
    assert loaded.evaluate(x, y, verbose=0, return_dict=True) == pytest.approx(logs, rel=1e-6)


def test_reports_need_no_weight_of_the_teacher_and_a_second_compile_replaces_them():
    x, y = data(64)
    model = Distiller(mlp(32, name="teacher"), mlp(16, name="student"), SoftTargets(2.0), student_loss_weight=1.0)
    model.compile("sgd", loss=CROSS_ENTROPY, metrics=[TeacherReport()])
    assert model.fit(x, y, verbose=0).history["agreement"][0] <= 1.0
    newer = TeacherReport(bins=5)
    model.compile("sgd", loss=CROSS_ENTROPY, metrics=[newer])
    assert [m for m in model.metrics if isinstance(m, TeacherReport)] == [newer]
    model.compile("sgd", loss=CROSS_ENTROPY)
    assert "agreement" not in model.evaluate(x, y, verbose=0, return_dict=True)


def test_stopping_at_the_targets_of_a_regression():
    x, _ = data(64)
    y = x[:, :1] * 2.0
    teacher, student = mlp(16, classes=1, name="teacher"), mlp(8, classes=1, name="student")
    teacher.compile(keras.optimizers.Adam(0.03), loss="mse", jit_compile=False)
    teacher.fit(x, y, epochs=20, verbose=0)
    model = Distiller(teacher, student, OutputMatching("mse"))
    model.compile(keras.optimizers.Adam(0.03), loss="mse", metrics=["mae"], jit_compile=False)
    stop = StopAtTarget(0.5, "val_mae", validation_data=(x, y))
    model.fit(x, y, validation_data=(x, y), epochs=200, callbacks=[stop], verbose=0)
    assert stop.stopped_epoch is not None
    error = np.abs(student.predict(x, verbose=0) - y).mean()
    assert error <= np.abs(teacher.predict(x, verbose=0) - y).mean() / 0.5 + 1e-6
