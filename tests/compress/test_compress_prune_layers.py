"""Pruning of every kind of layer that has kernels: all of them together in a few models, and each alone (slow)."""

import functools

import keras
import numpy as np
import pytest
from kernel_models import EVERY, TABLES, TOGETHER, data, model_of
from small import DIVIDES_ACTIVITY_PENALTIES

from tfdistill.bridge.adopt import introspection
from tfdistill.compress import Prune, kernels, rebuild
from tfdistill.compress.prune.callbacks import PrunedModel, pruned_layers
from tfdistill.distill.distiller import Distiller
from tfdistill.distill.objective.taps import ATTENTION_SCORES, Tap, Taps

layers = keras.layers


def distil(student, step, epochs, table, optimizer="adam", **settings):
    """Trains with a teacher, three steps per epoch; `settings` are those of `compile`."""
    x, y = data(table)
    inputs = keras.Input(x.shape[1:], dtype=x.dtype.name)
    teacher = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(layers.Rescaling(1.0)(inputs))))
    distiller = Distiller(teacher, student, keras.distillation.LogitsDistillation(2.0, loss=keras.losses.KLDivergence()))
    distiller.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True), **settings)
    distiller.fit(x, y, batch_size=4, epochs=epochs, verbose=0, callbacks=step.callbacks())


def steps_of(model):
    return {int(layer.pruning_step) for layer in pruned_layers(model)}


def plan_to_strip(table, step, names):
    """Plan, apply, train, check, strip; returns the adopted model and the stripped one."""
    model, (x, _) = model_of(table, names), data(table)
    rows = {row.name: row for row in step.plan(model).rows}
    for name in names:
        assert rows[name].action == "done", rows[name]
    applied = step.apply(model)
    np.testing.assert_allclose(applied.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-5)
    distil(applied, step, 2, table)
    assert steps_of(applied) == {6}
    step.check(applied)
    stripped = step.strip(applied)
    assert type(stripped) is type(model)
    step.check(stripped)
    np.testing.assert_allclose(applied.predict(x, verbose=0), stripped.predict(x, verbose=0), atol=1e-5)
    found = rebuild.layers_by_name(stripped)
    for name in names:
        attributes = TABLES[table][1][name][1]
        assert kernels.prunable_attributes(found[name]) == attributes
        values = [rebuild.effective_weight(found[name], attribute) for attribute in attributes]
        assert all(kernels.zeros(value) >= 0.3 * value.size for value in values), name
        assert rows[name].parameters - rows[name].expected_nonzero <= sum(kernels.zeros(value) for value in values)
    return applied, stripped


STEP = Prune({"*": 0.5}, end_step=4, frequency=2)


@pytest.fixture(scope="module")
def trained():
    """Function of a table: its model after `plan_to_strip`, made once."""
    return functools.cache(lambda table: plan_to_strip(table, STEP, TOGETHER[table]))


@pytest.mark.parametrize("table", TABLES)
def test_every_layer_is_pruned_trained_and_stripped(trained, table):
    applied, _ = trained(table)
    assert isinstance(applied, PrunedModel)
    names = {*TOGETHER[table], "logits"}
    assert names <= set(applied.named_layers())
    assert {path for path, layer in applied.named_layers().items() if introspection.is_pruned(layer)} >= names


@pytest.mark.parametrize("table", ["sequences", "tokens", pytest.param("images", marks=pytest.mark.slow)])
def test_a_loaded_model_continues_its_schedule(trained, table, tmp_path):
    applied, _ = trained(table)
    applied.save(tmp_path / "pruned.keras")
    loaded, (x, _) = keras.models.load_model(tmp_path / "pruned.keras"), data(table)
    assert type(loaded) is PrunedModel
    np.testing.assert_array_equal(applied.predict(x, verbose=0), loaded.predict(x, verbose=0))
    for one, other in zip(pruned_layers(applied), pruned_layers(loaded), strict=True):
        for (_, mask), (_, same) in zip(introspection.masks_of(one), introspection.masks_of(other), strict=True):
            np.testing.assert_array_equal(mask, same)
    distil(loaded, STEP, 1, table)
    assert steps_of(loaded) == {9}
    STEP.check(loaded)
    STEP.check(STEP.strip(loaded))


def test_a_checkpoint_during_the_schedule_is_complete(tmp_path):
    step, table, names = Prune({"*": 0.5}, end_step=6, frequency=2), "sequences", ["attention", "shared"]
    model = model_of(table, names)
    halted = step.apply(model)
    distil(halted, step, 1, table, keras.optimizers.SGD(0.1))
    halted.save_weights(tmp_path / "half.weights.h5")
    resumed = step.apply(model)
    resumed.load_weights(tmp_path / "half.weights.h5")
    assert steps_of(resumed) == {3}
    for one, other in zip(halted.weights, resumed.weights, strict=True):
        np.testing.assert_array_equal(one, other)
    distil(resumed, step, 1, table)
    step.check(resumed)


def test_depthwise_kernels_are_left_unless_they_are_selected():
    model = model_of("images", ["depthwise2d", "separable2d"])
    row = Prune(0.5, end_step=4).plan(model).row
    assert row("depthwise2d").action == "skipped"
    assert "spared" in row("depthwise2d").reason
    assert "pointwise_kernel" in row("separable2d").reason
    assert "depthwise_kernel" not in row("separable2d").reason
    for settings in ({"layers": "depthwise2d"}, {"layers": "*wise*"}, {"sparsity": {"depthwise2d": 0.5}}):
        assert Prune(**{"sparsity": 0.5, "end_step": 4, **settings}).plan(model).row("depthwise2d").action == "done"


def test_taps_reach_into_a_pruned_model(trained):
    (applied, stripped), (x, _) = trained("sequences"), data("sequences")
    taps = [Tap("attention"), Tap("attention", ATTENTION_SCORES), Tap("shared@0"), Tap("shared@1"), Tap("nest/inside")]
    _, ours = Taps(applied, taps)(x)
    _, theirs = Taps(stripped, taps)(x)
    for tap in taps:
        np.testing.assert_allclose(ours[tap], theirs[tap], atol=1e-5)


def test_the_mask_of_padded_steps_is_kept():
    applied = STEP.apply(model_of("tokens", ["embedding"]))
    padded = np.where(np.arange(8) < 5, data("tokens")[0] % 11 + 1, 0)
    before = applied.predict(padded, verbose=0)
    rows = introspection.weight_named(applied.get_layer("embedding"), "embeddings")
    for token, changes in ((0, False), (1, True)):
        rows.assign_add(9.0 * (np.arange(12) == token)[:, None] * np.ones(rows.shape, "float32"))
        assert np.any(applied.predict(padded, verbose=0) != before) == changes


def test_a_penalty_of_an_activity_is_kept():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(3, activity_regularizer=keras.regularizers.L2(0.1), name="logits")(inputs))
    applied, penalties = Prune(0.5, end_step=4).apply(model), []
    for each in (model, applied):
        each(np.ones((2, 4), "float32"))
        penalties.append(float(sum(each.losses)))
    assert penalties[0] > 0
    assert penalties[0] / (1 if DIVIDES_ACTIVITY_PENALTIES else 2) == pytest.approx(penalties[1], rel=1e-5)


def test_half_precision_is_kept():
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(6, dtype="mixed_float16", name="half"), layers.Dense(3, dtype="float32", name="logits")]
    )
    applied = Prune(0.5, end_step=2, frequency=1).apply(model)
    _, values = Taps(applied, ["half"])(np.ones((2, 4), "float32"))
    assert values[Tap("half")].dtype == "float16"


PATTERNS = {"single": {}, "block": {"block": (2, 2), "block_pooling": "max"}, "n of m": {"n_of_m": (2, 4)}}
# A kernel is a matrix to a pattern, whichever layer it is in: one of every kind of matrix, and those without one.
PATTERNED = ("dense", "einsum", "attention", "lstm", "conv2d", "transposed2d", "separable2d", "depthwise2d", "transposed3d", "embedding")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "pattern"),
    [pytest.param(n, p, id=f"{n}-{k}") for k, p in PATTERNS.items() for n in (EVERY if k == "single" else PATTERNED)],
)
def test_each_layer_alone(name, pattern, tmp_path):
    table, _ = EVERY[name]
    step = Prune(end_step=4, frequency=2, layers=name, **pattern)
    if pattern and ("depthwise" in name or (name == "embedding" and "n_of_m" in pattern)):
        row = step.plan(model_of(table, [name])).row(name)
        assert row.action == "impossible"
        assert "filter" in row.reason or "looked up" in row.reason
        return
    if pattern and "separable" in name:
        assert "filter" in step.plan(model_of(table, [name])).row(name).reason
        applied = step.apply(model_of(table, [name]))
        distil(applied, step, 2, table)
    else:
        applied, _ = plan_to_strip(table, step, [name])
    step.check(applied)
    applied.save(tmp_path / "pruned.keras")
    loaded = keras.models.load_model(tmp_path / "pruned.keras")
    distil(loaded, step, 1, table, run_eagerly=True)  # three steps, which take less time than a graph of them; it was trained as one before
    step.check(step.strip(loaded))


@pytest.mark.parametrize("settings", [{"steps_per_execution": 3}, {"run_eagerly": True}], ids=str)
def test_each_training_step_counts_once(settings):
    step, table = Prune(0.5, end_step=6, frequency=3), "sequences"
    applied, (x, y) = step.apply(model_of(table, ["shared"])), data(table)
    applied.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), **settings)
    applied.fit(x, y, batch_size=4, epochs=2, verbose=0, callbacks=step.callbacks())
    applied.evaluate(x, y, batch_size=4, verbose=0)
    assert steps_of(applied) == {6}
    step.check(applied)
