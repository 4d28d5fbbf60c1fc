"""The whole road in one call: what is trained, checked and exported, and what is refused before any training."""

import dataclasses
import functools
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from small import data, pair

import tfdistill
from tfdistill.compress import Cluster, Prune, PruneChannels, Quantize, QuantizeAware
from tfdistill.distill import ChainSettings
from tfdistill.errors import ConfigurationError, DataError, ModelError
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


@pytest.mark.slow
def test_channels_go_until_the_measured_time_is_met():
    wide = keras.Sequential([keras.Input((32, 32, 3))] + [keras.layers.Conv2D(64, 3, activation="relu", name=f"conv{n}") for n in range(3)])
    # In float: processors with matrix units for integers (Intel's AMX) take 64 channels in hardly more time than 8.
    ratio = tfdistill.pipeline.LatencyRatio(None, "float32", seconds=0.5)
    narrow = PruneChannels(keep_latency=0.6, latency=ratio).apply(wide)
    assert narrow.get_layer("conv1").filters < 64
    # The machine's noise is in this second measurement.
    assert 0.1 < ratio(wide, narrow) < 0.8


@pytest.mark.slow
def test_models_of_a_fixed_batch_are_timed():
    model = keras.Sequential([keras.Input(batch_shape=(4, 8)), keras.layers.Dense(4)])
    assert tfdistill.pipeline.LatencyRatio(X, seconds=0.01)(model, model) > 0


def test_a_step_with_a_measurement_is_compared_like_any_other():
    ratios = [tfdistill.pipeline.LatencyRatio(X) for _ in range(2)]
    steps = [PruneChannels(keep_latency=0.6, latency=ratio) for ratio in (*ratios, ratios[0])]
    assert steps[0] == steps[2] != steps[1]
    assert len(set(steps)) == 2


def test_rounds_of_pruning_are_steps_of_the_road():
    teacher, student = pair()
    steps = PruneChannels(keep_parameters=0.6, divisor=1).rounds(2)
    road = tfdistill.under_teacher(teacher, student, steps, dataclasses.replace(SETTINGS, epochs=1), X, Y)
    sizes = [model.count_params() for model in road.models]
    assert sizes[0] > sizes[1] > sizes[2]
    assert sizes[2] <= 0.6 * sizes[0]


def test_a_student_alone_from_a_dataset(tmp_path):
    teacher, student = pair()
    before = student.get_weights()
    dataset = tf.data.Dataset.from_tensor_slices((X, Y)).batch(16)
    road = tfdistill.under_teacher(teacher, student, [], SETTINGS, dataset, path=tmp_path / "m.tflite", variant="float32")
    assert road.model is student
    assert not np.array_equal(before[0], student.get_weights()[0])
    assert road.export.accuracy is not None


class Batches(keras.utils.PyDataset):
    """Batches of 16 samples."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return X[16 * index : 16 * index + 16], Y[16 * index : 16 * index + 16]


CACHED = {
    "arrays": (X, Y),
    "a dataset": tf.data.Dataset.from_tensor_slices((X, Y)).batch(16),
    "a PyDataset": Batches(),
    "inputs alone": X,
}


@pytest.mark.parametrize("kind", CACHED)
def test_a_cache_teaches_and_the_file_is_made_of_the_data_itself(kind, tmp_path):
    teacher, student = pair()
    data, alone = CACHED[kind], {"student_loss_weight": 0.0, "loss": None, "metrics": ()} if kind == "inputs alone" else {}
    cache = tfdistill.soft_targets(teacher, data, tmp_path / "cache", tfdistill.CacheOptions(batch_size=16))
    joined = cache.join(data) if kind == "a PyDataset" else cache.join(data, batch_size=16)
    settings = dataclasses.replace(SETTINGS, epochs=1, fit={}, **alone)
    road = tfdistill.under_teacher(cache, student, [], settings, joined, path=tmp_path / "m.tflite", verify_on=(X, Y))
    assert (road.export.verified_on, road.export.calibration_samples) == ("verify_on", 64)
    assert road.export.accuracy is not None


def test_each_step_has_settings_of_its_own():
    teacher, student = pair()
    steps = [Prune(0.5, end_step=4, frequency=1), Cluster(8)]
    each = [dataclasses.replace(SETTINGS, epochs=epochs) for epochs in (1, 3)]
    road = tfdistill.under_teacher(teacher, student, steps, SETTINGS, X, Y, step_settings=each)
    assert [g.epochs for g in road.record.generations] == [2, 1, 3]
    assert road.models[0] is student
    assert road.model is road.models[2]
    zeros = [float((model.get_layer("hidden_0").get_weights()[0] == 0).mean()) for model in road.models]
    assert zeros[0] == 0
    assert min(zeros[1:]) >= 0.5


def test_channels_go_first_and_zeros_are_made_in_what_is_left():
    teacher, student = pair()
    settings = dataclasses.replace(SETTINGS, epochs=1)
    steps = [PruneChannels(keep_macs=0.7, divisor=4), Prune(0.5, end_step=4, frequency=1)]
    road = tfdistill.under_teacher(teacher, student, steps, settings, X, Y)
    assert [g.role for g in road.record.generations] == ["student", "PruneChannels", "Prune"]
    counts = [tfdistill.profile(model).macs for model in road.models]
    assert counts[1] == counts[2] <= 0.7 * counts[0]
    assert (road.model.get_layer("hidden_0").get_weights()[0] == 0).mean() >= 0.5


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
    "settings for a step that is not there": (
        lambda t, s: tfdistill.under_teacher(t, s, [Cluster(8)], SETTINGS, X, Y, step_settings=[SETTINGS, SETTINGS]),
        ConfigurationError,
        "2 settings for 1 steps",
    ),
    "no settings of a step": (
        lambda t, s: tfdistill.under_teacher(t, s, [Cluster(8)], SETTINGS, X, Y, step_settings=[None]),
        ConfigurationError,
        "step_settings is a NoneType",
    ),
    "no step": (lambda t, s: tfdistill.under_teacher(t, s, ["prune"], SETTINGS, X, Y), ConfigurationError, "'prune' is no step"),
    "calibration": (
        lambda t, s: tfdistill.under_teacher(t, s, [Quantize()], SETTINGS, X, Y),
        ConfigurationError,
        r"Quantize\(.* takes data",
    ),
    "channels by data": (
        lambda t, s: tfdistill.under_teacher(t, s, [PruneChannels(keep_macs=0.7, criterion="taylor")], SETTINGS, X, Y),
        ConfigurationError,
        "criterion='taylor'.* takes data",
    ),
    "fewer labels": (lambda t, s: tfdistill.under_teacher(t, s, [], SETTINGS, X, Y[:50]), DataError, "x has 64, y has 50"),
    "fewer labels to validate on": (
        lambda t, s: tfdistill.under_teacher(t, s, [], SETTINGS, X, Y, (X, Y[:10])),
        DataError,
        "validation data has unequal numbers",
    ),
    "inputs of another shape": (
        lambda t, s: tfdistill.under_teacher(t, s, [], SETTINGS, X[:, :5], Y),
        DataError,
        r"shape \(16, 5\), and the student 'student' takes \(None, 8\)",
    ),
    "a teacher of other inputs": (
        lambda t, s: tfdistill.under_teacher(pair(features=7)[0], s, [], SETTINGS, X, Y),
        ModelError,
        r"input shapes do not match. Teacher 'teacher': \(None, 7\)",
    ),
    "a folder as the file": (lambda t, s: tfdistill.under_teacher(t, s, [], SETTINGS, X, Y, path="."), ConfigurationError, "is a folder"),
    "another ending": (lambda t, s: tfdistill.under_teacher(t, s, [], SETTINGS, X, Y, path="m.lite"), ConfigurationError, "'m.tflite'"),
    "an unknown variant": (
        lambda t, s: tfdistill.under_teacher(t, s, [], SETTINGS, X, Y, path="m.tflite", variant="int7"),
        ConfigurationError,
        "Nearest: 'int8'",
    ),
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
