"""The loss of accuracy is split over stages: each against the one before it, on the same samples, with the interval of verification."""

import functools

import blame_models
import keras
import numpy as np
import pytest

from tfdistill.errors import ConfigurationError, DataError, ModelError
from tfdistill.tflite import accuracy_by_stage, export_tflite, verify
from tfdistill.tflite.verification.paired import accuracy_drop_interval

L = keras.layers
X = np.random.default_rng(0).normal(size=(300, 6)).astype("float32")
TRUE = np.random.default_rng(1).normal(size=(6, 3)).astype("float32")
LABELS = (X @ TRUE).argmax(-1)


@functools.cache
def net(noise=0.0, end="linear", units=3):
    """A model that is right but for noise in its weights."""
    model = keras.Sequential([keras.Input((6,), name="x"), L.Dense(units, use_bias=False, activation=end, name="scores")])
    model.layers[0].kernel.assign(TRUE[:, :units] + noise * np.random.default_rng(2).normal(size=(6, units)))
    return model


@functools.cache
def path():
    return export_tflite(net(0.5), blame_models.folder() / "stage.tflite", "int8", calibration=X).path


def test_what_the_stages_lose_adds_up_and_has_the_interval_of_its_pair():
    found = accuracy_by_stage([("teacher", net()), ("student", net(0.5)), ("int8", path())], X, LABELS)
    assert [row.stage for row in found.stages] == ["teacher", "student", "int8"]
    assert found.samples == 300
    right = [net(noise).predict(X, verbose=0).argmax(-1) == LABELS for noise in (0.0, 0.5)]
    first, second, third = found.stages
    assert (first.value, second.value) == pytest.approx((right[0].mean(), right[1].mean()))
    assert (second.lost_low, second.lost_high) == pytest.approx(accuracy_drop_interval(*right))
    assert second.is_certain
    assert not third.is_certain
    assert first.lost is None
    assert found.worst is second
    assert "certain" in str(found)
    (total,) = found.total
    assert total.lost == pytest.approx(second.lost + third.lost)
    assert total.stage == "teacher to int8"
    checked = verify(path(), net(0.5), X, LABELS).outputs["scores"]
    assert third.value == checked.accuracy
    assert (third.lost_low, third.lost_high) == pytest.approx(checked.loss_interval)


def test_logits_and_probabilities_are_decided_each_at_their_own_threshold():
    yes = (X @ TRUE[:, :1] > 0).astype("int32")
    found = accuracy_by_stage([("logits", net(units=1)), ("probabilities", net(end="sigmoid", units=1))], X, yes, task="binary")
    assert [(row.metric, row.value) for row in found.stages] == [("binary_accuracy", 1.0)] * 2


def test_numbers_are_compared_by_their_mean_absolute_error(tmp_path):
    numbers = X @ TRUE
    found = accuracy_by_stage([("exact", net()), ("noisy", net(0.5))], (X, numbers), task="regression")
    noisy = found.stages[1]
    errors = np.abs(net(0.5).predict(X, verbose=0) - numbers)
    assert noisy.metric == "mean_absolute_error"
    assert noisy.lost == pytest.approx(errors.mean(), rel=1e-4)
    assert noisy.lost_low < noisy.lost < noisy.lost_high
    assert noisy.is_certain
    assert type(found).load(found.save(tmp_path / "stages.json")) == found


def test_outputs_belong_together_by_their_order_and_labels_choose_them():
    def two(names):
        inputs = keras.Input((6,), name="x")
        return keras.Model(inputs, [L.Dense(3, name=name)(inputs) for name in names])

    found = accuracy_by_stage([("a", two("pq")), ("b", two("rs"))], X, {"q": LABELS})
    assert [(row.stage, row.output) for row in found.stages] == [("a", "q"), ("b", "q")]


REFUSED = {
    "one stage": (lambda: accuracy_by_stage([("a", net())], X, LABELS), ConfigurationError),
    "one name twice": (lambda: accuracy_by_stage([("a", net()), ("a", path())], X, LABELS), ConfigurationError),
    "no pairs": (lambda: accuracy_by_stage([net(), path()], X, LABELS), ConfigurationError),
    "no labels": (lambda: accuracy_by_stage([("a", net()), ("b", path())], X), DataError),
    "other outputs": (lambda: accuracy_by_stage([("a", net()), ("b", net(units=1))], X, LABELS), ModelError),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused(case):
    with pytest.raises(REFUSED[case][1]):
        REFUSED[case][0]()
