"""The Distiller's arithmetic: what it adds up, on what it trains, and that it does so once per step."""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf
from small import CLASSES, Dropped, Subclassed, data, mlp, pair, weights_of

from tfdistill import Distiller, TeacherReport
from tfdistill.losses import Hint, SoftTargets

CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def kl_per_sample(teacher, student, temperature):
    p, q = softmax(np.asarray(teacher, "float64") / temperature), softmax(np.asarray(student, "float64") / temperature)
    return temperature**2 * (p * (np.log(p) - np.log(q))).sum(-1)


def cross_entropy_per_sample(y, logits):
    return -np.log(softmax(np.asarray(logits, "float64"))[np.arange(len(y)), y])


def compiled(teacher, student, losses, *, optimizer=None, metrics=("accuracy",), **kwargs):
    distiller = Distiller(teacher, student, losses, **kwargs)
    distiller.compile(optimizer or keras.optimizers.SGD(0.1), loss=CROSS_ENTROPY, metrics=list(metrics))
    return distiller


WEIGHTINGS = {
    "plain": dict(),
    "single loss, its weight in a list": dict(weights=[7.0]),
    "single loss, its weight bare": dict(weights=7.0),
    "sample_weight": dict(sample_weight=True),
    "class_weight": dict(class_weight=True),
    "student only": dict(student_share=1.0),
    "teacher only": dict(student_share=0.0),
}


@pytest.mark.parametrize("case", WEIGHTINGS.values(), ids=WEIGHTINGS)
def test_total_loss_equals_its_formula(case, rng):
    (teacher, student), (x, y) = pair(), data(32)
    distiller = compiled(
        teacher,
        student,
        SoftTargets(3.0),
        distillation_loss_weights=case.get("weights"),
        student_loss_weight=case.get("student_share", 0.3),
    )
    sample_weight, class_weight, w = None, None, np.ones(len(x))
    if case.get("sample_weight"):
        w = sample_weight = rng.uniform(0, 2, len(x)).astype("float32")
    if case.get("class_weight"):
        class_weight = {c: 0.5 + c for c in range(CLASSES)}
        w = np.array([class_weight[c] for c in y])
    student_outputs, teacher_outputs = student.predict(x, verbose=0), teacher.predict(x, verbose=0)
    share, factor = case.get("student_share", 0.3), np.sum(case.get("weights", 1.0))
    hard = np.mean(w * cross_entropy_per_sample(y, student_outputs))
    soft = factor * np.mean(w * kl_per_sample(teacher_outputs, student_outputs, 3.0))
    # The optimizer's first step cannot change the loss that it started from.
    logs = distiller.fit(x, y, batch_size=32, sample_weight=sample_weight, class_weight=class_weight, verbose=0, shuffle=False).history
    np.testing.assert_allclose(logs["loss"][0], share * hard + (1 - share) * soft, rtol=2e-5)
    np.testing.assert_allclose(logs["total_loss"][0], logs["loss"][0], rtol=1e-7)
    if share > 0:
        np.testing.assert_allclose(logs["student_loss"][0], hard, rtol=2e-5)
    if share < 1:
        np.testing.assert_allclose(logs["distillation_loss"][0], soft, rtol=2e-5)


def test_metric_names_are_those_of_keras():
    (teacher, student), (x, y) = pair(), data(32)
    ours = compiled(teacher, student, SoftTargets(2.0))
    theirs = keras.distillation.Distiller(teacher, student, keras.distillation.LogitsDistillation(2.0, loss=keras.losses.KLDivergence()))
    theirs.compile(keras.optimizers.SGD(0.1), loss=CROSS_ENTROPY, metrics=["accuracy"])
    logs = [d.fit(x, y, validation_data=(x, y), verbose=0).history for d in (ours, theirs)]
    assert list(logs[0]) == list(logs[1])


def test_same_training_as_keras_where_keras_is_right():
    x, y = data(64)
    trained = []
    for cls, loss in (
        (Distiller, SoftTargets(3.0)),
        (Distiller, keras.distillation.LogitsDistillation(3.0, loss=keras.losses.KLDivergence())),
        (keras.distillation.Distiller, keras.distillation.LogitsDistillation(3.0, loss=keras.losses.KLDivergence())),
        (keras.distillation.Distiller, SoftTargets(3.0)),
    ):
        keras.utils.set_random_seed(1)
        teacher, student = pair()
        distiller = cls(teacher, student, loss, student_loss_weight=0.2)
        distiller.compile(keras.optimizers.SGD(0.05), loss=CROSS_ENTROPY)
        distiller.fit(x, y, batch_size=16, epochs=3, shuffle=False, verbose=0)
        trained.append(weights_of(student))
    for other in trained[1:]:
        for a, b in zip(trained[0], other, strict=True):
            np.testing.assert_allclose(a, b, atol=2e-6)


PENALTIES = {
    "kernel_regularizer": lambda m: 0.01 * sum((w.numpy() ** 2).sum() for w in [m.get_layer("hidden_0").kernel]),
    "add_loss": lambda m: 2.5,
}


class AddsLoss(keras.layers.Layer):
    def call(self, inputs):
        self.add_loss(keras.ops.convert_to_tensor(2.5))
        return inputs


@pytest.mark.parametrize("kind", PENALTIES)
def test_the_students_own_penalties_count_in_full_and_the_teachers_do_not(kind):
    x, y = data(32)

    def build(name):
        if kind == "kernel_regularizer":
            return mlp(16, name=name, kernel_regularizer=keras.regularizers.L2(0.01))
        inner = mlp(16, name=name)
        return keras.Model(inner.input, AddsLoss()(inner.output), name=name)

    teacher, student = build("teacher"), build("student")
    penalty = PENALTIES[kind](student)
    distiller = compiled(teacher, student, SoftTargets(2.0), student_loss_weight=0.3)
    logs = distiller.fit(x, y, batch_size=32, verbose=0).history
    expected = 0.3 * logs["student_loss"][0] + 0.7 * logs["distillation_loss"][0] + penalty
    np.testing.assert_allclose(logs["total_loss"][0], expected, rtol=1e-5)


@pytest.mark.parametrize("losses", [SoftTargets(2.0), [SoftTargets(2.0), Hint("hidden_0", "hidden")]], ids=["logits", "logits and hint"])
def test_the_student_runs_once_a_step_and_evaluates_in_inference_mode(losses):
    x, y = data(32)
    teacher, student = mlp(20), Dropped()
    student(x)
    distiller = compiled(teacher, student, losses)
    distiller.fit(x, y, verbose=0)
    student.modes.clear()
    distiller.train_function = None  # trace anew, and count the calls of one trace
    distiller.fit(x, y, batch_size=32, verbose=0)
    steps_traced = student.modes.count(True)
    student.modes.clear()
    moving = student.norm.moving_mean.numpy().copy()
    first, second = (distiller.evaluate(x, y, verbose=0, return_dict=True) for _ in range(2))
    assert steps_traced == 1
    assert student.modes
    assert not any(student.modes)
    assert first == second, "evaluation moved something"
    np.testing.assert_array_equal(student.norm.moving_mean.numpy(), moving)


def test_gradients_stay_out_of_the_teacher_and_its_flags_come_back():
    (teacher, student), (x, y) = pair(), data(32)
    teacher.get_layer("hidden_1").trainable = False
    flags = [layer.trainable for layer in teacher.layers]
    before = weights_of(teacher)
    distiller = compiled(teacher, student, [SoftTargets(2.0), Hint("hidden_0", "hidden_0")])
    during = []
    watch = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: during.append(teacher.trainable))
    distiller.fit(x, y, verbose=0, callbacks=[watch])
    assert during == [False]
    assert [layer.trainable for layer in teacher.layers] == flags
    assert teacher.trainable
    for a, b in zip(before, weights_of(teacher), strict=True):
        np.testing.assert_array_equal(a, b)
    distiller.fit(x, y, verbose=0)
    for a, b in zip(before, weights_of(teacher), strict=True):
        np.testing.assert_array_equal(a, b)


def test_projection_belongs_to_the_distiller_and_is_trained():
    (teacher, student), (x, y) = pair(), data(32)
    own = len(student.weights)
    distiller = compiled(teacher, student, Hint("hidden_1", "hidden_1"))
    projections = distiller.projections.trainable_weights
    before = [w.numpy().copy() for w in projections]
    distiller.fit(x, y, verbose=0)
    assert len(student.weights) == own
    assert tuple(projections[0].shape) == (12, 24)
    assert all(np.abs(a - w.numpy()).max() > 0 for a, w in zip(before, projections, strict=True))


def students():
    inputs = keras.Input((8,))
    body = keras.Sequential([keras.Input((8,)), keras.layers.Dense(12, activation="relu", name="inside")], name="body")
    nested = keras.Model(inputs, keras.layers.Dense(CLASSES)(body(inputs)))
    subclassed = Subclassed()
    subclassed(np.zeros((1, 8), "float32"))
    sequential = keras.Sequential([keras.layers.Dense(12, activation="relu", name="first"), keras.layers.Dense(CLASSES)])
    return {
        "functional": (mlp(12), "hidden_0"),
        "nested": (nested, "body/inside"),
        "nested, short name": (nested, "inside"),
        "subclassed": (subclassed, "blocks/1"),
        "subclassed, unbuilt": (Subclassed(), "body"),
        "sequential, unbuilt": (sequential, "first"),
    }


STUDENTS = list(students())


@keras.saving.register_keras_serializable(package="tests")
class Saved(Subclassed):
    """The same under a name by which it can be loaded."""


@pytest.mark.parametrize("name", STUDENTS)
def test_every_kind_of_student_is_tapped_saved_loaded_and_trained_on(name, tmp_path):
    student, layer = students()[name]
    if isinstance(student, Subclassed):
        student = Saved() if "unbuilt" in name else student
    x, y = data(64)
    teacher = mlp(24, name="teacher")
    distiller = compiled(
        teacher, student, [SoftTargets(2.0), Hint("hidden_0", layer)], optimizer=keras.optimizers.Adam(0.01), student_loss_weight=0.4
    )
    distiller.fit(x, y, epochs=2, verbose=0, shuffle=False)
    path = tmp_path / "distiller.keras"
    with keras.saving.custom_object_scope({"Subclassed": Subclassed}):
        distiller.save(path)
        loaded = keras.saving.load_model(path)
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), distiller.predict(x, verbose=0))
    for a, b in zip(weights_of(loaded.teacher), weights_of(teacher), strict=True):
        np.testing.assert_array_equal(a, b)
    histories = [d.fit(x, y, epochs=2, verbose=0, shuffle=False).history for d in (distiller, loaded)]
    for key in histories[0]:
        np.testing.assert_allclose(histories[0][key], histories[1][key], rtol=1e-6, err_msg=key)
    for a, b in zip(weights_of(loaded.student), weights_of(distiller.student), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def two_headed(name, width):
    inputs = keras.Input((8,))
    x = keras.layers.Dense(width, activation="relu")(inputs)
    return keras.Model(
        inputs, {"kind": keras.layers.Dense(CLASSES, name="kind")(x), "size": keras.layers.Dense(3, name="size")(x)}, name=name
    )


def test_a_loss_per_output_by_name():
    x, y = data(32)
    labels = {"kind": y, "size": y % 3}
    teacher, student = two_headed("teacher", 20), two_headed("student", 8)
    distiller = Distiller(
        teacher, student, {"kind": SoftTargets(2.0), "size": [SoftTargets(3.0)]}, {"kind": 0.5, "size": [2.0]}, student_loss_weight=0.25
    )
    distiller.compile(keras.optimizers.SGD(0.1), loss={"kind": CROSS_ENTROPY, "size": CROSS_ENTROPY})
    teacher_outputs, student_outputs = teacher.predict(x, verbose=0), student.predict(x, verbose=0)
    logs = distiller.fit(x, labels, batch_size=32, verbose=0).history
    soft = (
        0.5 * kl_per_sample(teacher_outputs["kind"], student_outputs["kind"], 2.0).mean()
        + 2.0 * kl_per_sample(teacher_outputs["size"], student_outputs["size"], 3.0).mean()
    )
    hard = sum(cross_entropy_per_sample(labels[k], student_outputs[k]).mean() for k in labels)
    np.testing.assert_allclose(logs["distillation_loss"][0], soft, rtol=2e-5)
    np.testing.assert_allclose(logs["loss"][0], 0.25 * hard + 0.75 * soft, rtol=2e-5)
    again = Distiller.from_config(distiller.get_config())
    assert again.distillation_loss_weights == [0.5, 2.0]


FEEDS = {
    "arrays": lambda x, y: dict(x=x, y=y, batch_size=16),
    "tf.data": lambda x, y: dict(x=tf.data.Dataset.from_tensor_slices((x, y)).batch(16)),
    "generator": lambda x, y: dict(x=((x[i : i + 16], y[i : i + 16]) for i in range(0, 64, 16)), steps_per_epoch=4),
    "PyDataset": lambda x, y: dict(x=Batches(x, y)),
    "labels missing": lambda x, y: dict(x=x, batch_size=16),
}


class Batches(keras.utils.PyDataset):
    def __init__(self, x, y):
        super().__init__()
        self.x, self.y = x, y

    def __len__(self):
        return 4

    def __getitem__(self, index):
        rows = slice(16 * index, 16 * index + 16)
        return self.x[rows], self.y[rows]


@pytest.mark.parametrize("feed", FEEDS)
def test_every_feed_trains_alike(feed):
    x, y = data(64)
    results = []
    for name in ("arrays", feed):
        keras.utils.set_random_seed(5)
        teacher, student = pair()
        distiller = compiled(teacher, student, SoftTargets(2.0), metrics=(), student_loss_weight=0.0 if feed == "labels missing" else 0.5)
        distiller.fit(**FEEDS[name](x, y), shuffle=False, verbose=0)
        results.append(weights_of(student))
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-7)


def test_compute_loss_is_the_users_to_override():
    class Doubled(Distiller):
        def compute_loss(self, **kwargs):
            return 2.0 * super().compute_loss(**kwargs)

    (teacher, student), (x, y) = pair(), data(32)
    plain = compiled(teacher, student, SoftTargets(2.0)).evaluate(x, y, verbose=0, return_dict=True)
    distiller = Doubled(teacher, student, SoftTargets(2.0))
    distiller.compile("sgd", loss=CROSS_ENTROPY)
    np.testing.assert_allclose(distiller.evaluate(x, y, verbose=0, return_dict=True)["loss"], 2 * plain["loss"], rtol=1e-6)


def test_compute_loss_called_by_hand():
    (teacher, student), (x, y) = pair(), data(32)
    distiller = compiled(teacher, student, SoftTargets(2.0))
    expected = distiller.evaluate(x, y, batch_size=32, verbose=0, return_dict=True)["loss"]
    np.testing.assert_allclose(float(distiller.compute_loss(x, y, training=False)), expected, rtol=1e-6)


@pytest.mark.parametrize("method", ["fit", "evaluate"])
def test_methods_take_what_those_of_keras_take(method):
    ours, theirs = (
        {name: p.default for name, p in inspect.signature(getattr(cls, method)).parameters.items() if p.kind != p.VAR_KEYWORD}
        for cls in (Distiller, keras.Model)
    )
    assert list(ours.items()) == list(theirs.items())


def test_reports_of_an_earlier_compile_are_forgotten():
    (teacher, student), (x, y) = pair(), data(32)
    distiller = compiled(teacher, student, SoftTargets(2.0), metrics=[TeacherReport()])
    assert "agreement" in distiller.evaluate(x, y, verbose=0, return_dict=True)
    distiller.compile("sgd", loss=CROSS_ENTROPY)
    assert "agreement" not in distiller.evaluate(x, y, verbose=0, return_dict=True)
    assert not any(isinstance(metric, TeacherReport) for metric in distiller.metrics)


def test_fit_before_compile_is_an_error_and_reads_no_data():
    (teacher, student), (x, y) = pair(), data(32)
    batches = iter([(x, y)])
    with pytest.raises(ValueError, match=r"You must call `compile\(\)`"):
        Distiller(teacher, student, SoftTargets(2.0)).fit(batches)
    assert len(list(batches)) == 1
