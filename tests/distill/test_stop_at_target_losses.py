"""StopAtTarget on losses: the student's loss on the labels is held against the teacher's, never the sum that it is trained on."""

import keras
import numpy as np
import pytest
from small import data, mlp

from tfdistill import Distiller
from tfdistill.distill.callbacks import StopAtTarget
from tfdistill.errors import ConfigurationError
from tfdistill.losses import SoftTargets

CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def cross_entropy(model, x, y, weight=1.0):
    z = model.predict(x, verbose=0).astype("float64")
    return float((weight * -(z - np.log(np.exp(z).sum(-1, keepdims=True)))[np.arange(len(y)), y]).mean())


def trained(regularizer=None, **kwargs):
    teacher = mlp(16, name="teacher", kernel_regularizer=regularizer)
    made = Distiller(teacher, mlp(8, name="student", kernel_regularizer=regularizer), SoftTargets(4.0), **kwargs)
    made.compile(keras.optimizers.SGD(0.01), loss=CROSS_ENTROPY, metrics=["accuracy"], run_eagerly=True)
    return made


METRICS = {
    "val_loss": "val_student_loss",
    "val_total_loss": "val_student_loss",
    "val_student_loss": "val_student_loss",
    "loss": "student_loss",
    "total_loss": "student_loss",
    "student_loss": "student_loss",
}
KINDS = {
    "plain": {},
    "penalties on both": dict(regularizer=keras.regularizers.L2(0.5)),
    "hardly any labels": dict(student_loss_weight=0.01),
}


@pytest.mark.parametrize(("metric", "kind"), [*((m, "plain") for m in METRICS), *(("val_loss", k) for k in KINDS if k != "plain")])
def test_kept_is_the_ratio_of_the_two_losses_on_labels(metric, kind):
    (x, y), (vx, vy) = data(32), data(48, seed=5)
    model = trained(**KINDS[kind])
    stop = StopAtTarget(1.0, metric, validation_data=(vx, vy))
    logs = model.fit(x, y, validation_data=(vx, vy), verbose=0, callbacks=[stop]).history
    expected = cross_entropy(model.teacher, vx, vy)
    np.testing.assert_allclose(stop.teacher_value, expected, rtol=1e-5)
    name = metric.removeprefix("val_")
    np.testing.assert_allclose(logs[f"kept_{name}"][0], expected / logs[METRICS[metric]][0], rtol=1e-5)
    if metric.startswith("val_"):
        np.testing.assert_allclose(logs["val_student_loss"][0], cross_entropy(model.student, vx, vy), rtol=1e-5)


def test_weighted_validation_data_weighs_both(rng):
    (x, y), (vx, vy) = data(32), data(48, seed=5)
    weight = rng.uniform(0, 3, 48).astype("float32")
    model = trained()
    stop = StopAtTarget(1.0, "val_loss", validation_data=(vx, vy, weight))
    logs = model.fit(x, y, validation_data=(vx, vy, weight), verbose=0, callbacks=[stop]).history
    np.testing.assert_allclose(
        logs["kept_loss"][0], cross_entropy(model.teacher, vx, vy, weight) / cross_entropy(model.student, vx, vy, weight), rtol=1e-5
    )


def test_a_students_whole_loss_does_not_end_training_in_the_first_epoch():
    x, y = data(32)
    model = trained()
    # The teacher answers the labels: a loss near 0, which the student is far from, while their divergence starts small at a small share.
    before = cross_entropy(model.student, x, y)
    stop = StopAtTarget(0.9, "val_loss", teacher_value=before / 10)
    logs = model.fit(x, y, validation_data=(x, y), epochs=2, verbose=0, callbacks=[stop]).history
    assert stop.stopped_epoch is None
    assert max(logs["kept_loss"]) < 0.2


@pytest.mark.parametrize("metric", ["val_loss", "student_loss"])
@pytest.mark.parametrize("given", ["value", "data"])
def test_without_a_loss_on_the_labels_it_is_refused_and_the_remedy_works(metric, given):
    x, y = data(32)
    how = dict(teacher_value=0.5) if given == "value" else dict(validation_data=(x, y))
    with pytest.raises(ConfigurationError, match=r"student_loss_weight=0.*\n.*\n.*val_accuracy"):
        trained(student_loss_weight=0.0).fit(x, y, validation_data=(x, y), verbose=0, callbacks=[StopAtTarget(0.9, metric, **how)])
    stop = StopAtTarget(0.9, "val_accuracy", teacher_value=0.9)
    assert "kept_accuracy" in trained(student_loss_weight=0.0).fit(x, y, validation_data=(x, y), verbose=0, callbacks=[stop]).history


def test_the_teacher_is_evaluated_where_nothing_was_compiled_as_the_loss_on_labels():
    x, y = data(32)
    model = Distiller(mlp(16, name="teacher"), mlp(8, name="student"), SoftTargets(2.0), student_loss_weight=0.0)
    model.compile("sgd", metrics=["accuracy"])
    stop = StopAtTarget(0.9, "val_accuracy", validation_data=(x, y))
    logs = model.fit(x, y, validation_data=(x, y), verbose=0, callbacks=[stop]).history
    np.testing.assert_allclose(logs["teacher_accuracy"][0], (model.teacher.predict(x, verbose=0).argmax(-1) == y).mean(), rtol=1e-6)


def test_a_plain_model_is_compared_by_its_own_loss():
    x, y = data(32)
    model = mlp(8)
    model.compile("sgd", loss=CROSS_ENTROPY, run_eagerly=True)
    stop = StopAtTarget(1.0, "val_loss", teacher_value=0.1)
    logs = model.fit(x, y, validation_data=(x, y), verbose=0, callbacks=[stop]).history
    np.testing.assert_allclose(logs["kept_loss"][0], 0.1 / logs["val_loss"][0])
