"""Data without labels: the student is trained by the teacher, and metrics that compare with labels are left out, with one remark."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from small import data, pair

import tfdistill
from tfdistill import Distiller
from tfdistill.losses import SoftTargets

X, Y = data(32)
REMARK = "The data has no labels"


def made(share=0.0, **compiled):
    distiller = Distiller(*pair(), SoftTargets(4.0), student_loss_weight=share)
    distiller.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), run_eagerly=True, **compiled)
    return distiller


METRICS = {
    "metrics": dict(metrics=["accuracy"]),
    "weighted_metrics": dict(weighted_metrics=["accuracy"]),
    "objects": dict(metrics=[keras.metrics.SparseTopKCategoricalAccuracy(2)]),
    "with a report": dict(metrics=["accuracy", tfdistill.TeacherReport()]),
    "with a share of the labels": dict(metrics=["accuracy"], share=0.5),
}
DATA = {"array": lambda: X, "dataset": lambda: tf.data.Dataset.from_tensor_slices(X).batch(16)}


@pytest.mark.parametrize(("name", "kind"), [*((name, "array") for name in METRICS), ("metrics", "dataset")])
def test_metrics_of_labels_are_left_out_with_a_remark(name, kind):
    distiller = made(**METRICS[name])
    with pytest.warns(UserWarning, match=REMARK) as caught:
        history = distiller.fit(DATA[kind](), epochs=2, verbose=0, shuffle=False, validation_data=(X, Y)).history
    assert len([w for w in caught if REMARK in str(w.message)]) == 1
    assert np.isfinite(history["loss"]).all()
    assert not any("accuracy" in metric for metric in history if not metric.startswith(("val_", "teacher")))
    # Where there are labels, there are metrics.
    assert any("accuracy" in metric for metric in history if metric.startswith("val_"))
    assert ("agreement" in history) == (name == "with a report")
    assert "accuracy" not in distiller.evaluate(X, verbose=0, return_dict=True)
    distiller.fit(X, Y, verbose=0)
    assert any("accuracy" in metric for metric in distiller.history.history)


def test_a_graph_has_the_same_logs():
    distiller = Distiller(*pair(), SoftTargets(4.0), student_loss_weight=0.0)
    distiller.compile("sgd", metrics=["accuracy"])
    with pytest.warns(UserWarning, match=REMARK):
        assert sorted(distiller.fit(X, verbose=0).history) == ["distillation_loss", "loss", "student_loss", "total_loss"]


def test_nothing_is_said_without_such_metrics():
    made().fit(X, verbose=0)
    made(metrics=[tfdistill.TeacherReport()]).fit(X, verbose=0)
