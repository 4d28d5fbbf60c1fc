"""The whole road in one call: what is trained, checked and exported, and what is refused before any training."""

import functools
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from small import data, pair

import tfdistill
from tfdistill.compress import Cluster, Prune, QuantizeAware
from tfdistill.distill import ChainSettings
from tfdistill.errors import ConfigurationError, DataError
from tfdistill.losses import SoftTargets

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
SETTINGS = ChainSettings(SoftTargets(2.0), loss=LOSS, metrics=["accuracy"], epochs=2, fit={"batch_size": 16})
X, Y = data()


@pytest.mark.slow
def test_the_whole_road(tmp_path):
    teacher, student = pair()
    gentle = ChainSettings(SoftTargets(2.0), loss=LOSS, optimizer=lambda: keras.optimizers.Adam(1e-4), epochs=1, fit={"batch_size": 16})
    steps = [functools.partial(Prune.for_training, sparsity=0.5), Cluster(8), QuantizeAware()]
    road = tfdistill.under_teacher(teacher, student, steps, SETTINGS, X, Y, (X, Y), step_settings=gentle, path=tmp_path / "m.tflite")
    assert [g.role for g in road.record.generations] == ["student", "Prune", "Cluster", "QuantizeAware"]
    assert [g.epochs for g in road.record.generations] == [2, 1, 1, 1]
    assert road.export.variant == "int8"
    assert road.export.verified_on == "verify_on"
    assert not road.export.census.stray_floats()
    kernel = np.asarray(road.model.get_layer("hidden_0").layer.kernel)
    assert (kernel == 0).mean() >= 0.5
    assert len(np.unique(kernel)) <= 9
    for words in ("ChainRecord", "QuantizeAware", "ExportRecord", "zero point"):
        assert words in str(road)


def test_a_student_alone_from_a_dataset(tmp_path):
    teacher, student = pair()
    before = student.get_weights()
    dataset = tf.data.Dataset.from_tensor_slices((X, Y)).batch(16)
    road = tfdistill.under_teacher(teacher, student, [], SETTINGS, dataset, path=tmp_path / "m.tflite", variant="float32")
    assert road.model is student
    assert not np.array_equal(before[0], student.get_weights()[0])
    assert road.export.accuracy is not None


MADE = {
    "arrays": (X, {}, 4),
    "arrays in larger batches": (X, {"batch_size": 40}, 2),
    "a dataset": (tf.data.Dataset.from_tensor_slices((X, Y)).batch(16), {}, 4),
    "a number": (X, {"steps_per_epoch": 3}, 3),
}


@pytest.mark.parametrize("row", MADE)
def test_a_step_is_made_for_the_length_of_its_training(row):
    x, fit, expected = MADE[row]
    seen = []

    def maker(steps, epochs):
        seen.append((steps, epochs))
        return "no step"

    teacher, student = pair()
    settings = ChainSettings(SoftTargets(2.0), loss=LOSS, epochs=5, fit={"batch_size": 16, **fit})
    with pytest.raises(ConfigurationError, match="returned 'no step'"):
        tfdistill.under_teacher(teacher, student, [maker], settings, x, Y)
    assert seen == [(expected, 5)]


REFUSED = {
    "no settings": (lambda t, s: tfdistill.under_teacher(t, s, [], {"epochs": 2}, X, Y), ConfigurationError, "settings is a dict"),
    "no step": (lambda t, s: tfdistill.under_teacher(t, s, ["prune"], SETTINGS, X, Y), ConfigurationError, "'prune' is no step"),
    "an iterator": (lambda t, s: tfdistill.under_teacher(t, s, [], SETTINGS, itertools.repeat((X, Y))), DataError, "can be read once"),
    "an unknown length": (
        lambda t, s: tfdistill.under_teacher(
            t,
            s,
            [functools.partial(Prune.for_training, sparsity=0.5)],
            SETTINGS,
            tf.data.Dataset.from_tensor_slices((X, Y)).repeat().batch(16),
        ),
        DataError,
        "steps_per_epoch",
    ),
}


@pytest.mark.parametrize("row", REFUSED)
def test_what_is_refused_before_any_training(row):
    call, error, said = REFUSED[row]
    teacher, student = pair()
    before = student.get_weights()
    with pytest.raises(error, match=said):
        call(teacher, student)
    assert all(np.array_equal(a, b) for a, b in zip(before, student.get_weights(), strict=True))
