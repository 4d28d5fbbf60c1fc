"""Models of every kind are factorized as planned, and what comes out is a model like any other."""

import functools

import keras
import numpy as np
import pytest
from keras import layers
from low_rank_models import MODELS, randomized

import tfdistill
from tfdistill.compress import LowRank, Prune, PruneChannels, QuantizeAware
from tfdistill.graph.flat import flat_graph

STEP = LowRank(keep_parameters=0.7, divisor=2)


@functools.cache
def original(name):
    return MODELS[name]()


@functools.cache
def small(name):
    return STEP.apply(original(name))


@functools.cache
def plan(name):
    return STEP.plan(original(name))


def inputs_of(model, samples=6, seed=1):
    rng = np.random.default_rng(seed)
    made = {
        name: rng.integers(0, 40, (samples, *x.shape[1:]))
        if "int" in x.dtype
        else rng.normal(size=(samples, *x.shape[1:])).astype("float32")
        for name, x in flat_graph(model).inputs.items()
    }
    return made if len(made) > 1 else next(iter(made.values()))


@pytest.mark.parametrize("name", MODELS)
def test_models_are_factorized_as_planned(name, tmp_path):
    """`apply` itself compares layers and outputs with the products of the factors."""
    model, thin, rows = original(name), small(name), plan(name)
    counted = tfdistill.profile(thin)
    assert 0.5 * rows.parameters < counted.parameters == rows.expected_parameters <= 0.7 * rows.parameters
    assert rows.parameters == model.count_params()
    assert (rows.macs, rows.expected_macs) == (tfdistill.profile(model).macs, counted.macs)
    assert counted.macs < rows.macs or name == "text"
    STEP.check(thin, rows)
    x = inputs_of(model)
    assert keras.tree.map_structure(np.shape, thin(x)) == keras.tree.map_structure(np.shape, model(x))
    if name != "subclassed":
        assert getattr(thin, "output_names", None) == getattr(model, "output_names", None)
        assert {layer.name for layer in model.layers} <= {layer.name for layer in thin.layers}
        assert type(thin) is type(model)
    thin.save(tmp_path / "thin.keras")
    np.testing.assert_allclose(keras.saving.load_model(tmp_path / "thin.keras")(x), thin(x), rtol=1e-5, atol=1e-6)
    text = str(rows)
    assert f"parameters: {rows.parameters:,} -> {rows.expected_parameters:,}" in text
    assert type(rows).from_dict(rows.to_dict()) == rows


def test_nesting_and_sharing_stay():
    thin = LowRank(rank=4).apply(original("sequential"))
    assert [layer.name for layer in thin.layers] == ["begin_first", "begin", "inner", "logits"]
    assert [layer.name for layer in thin.get_layer("inner").layers] == ["wide_first", "wide", "back_first", "back"]
    thin = LowRank(rank=4).apply(original("shared"))
    # Of Dense(12 -> 16), inner Dense(16 -> 16) and the logits, each once.
    assert thin.count_params() == (12 * 4 + 4 * 16 + 16) + (16 * 4 + 4 * 16 + 16) + (16 * 3 + 3)


def test_names_that_are_taken_are_not_given():
    model = randomized(
        keras.Sequential([keras.Input((12,)), layers.Dense(16, name="a"), layers.Dense(12, name="a_first"), layers.Dense(12, name="b")])
    )
    names = [layer.name for layer in LowRank(rank=3).apply(model).layers]
    assert names == ["a_first_1", "a", "a_first_first", "a_first", "b_first", "b"]


@pytest.mark.parametrize("taken", ["a layer", "an input", "a nested model", "an input of a nested model"])
def test_names_of_all_that_is_around_are_taken(taken):
    inputs = keras.Input((12,), name="a_first" if taken == "an input" else "x")
    x = layers.Dense(16, name="a")(inputs)
    if taken == "a layer":
        x = layers.Dense(16, name="a_first")(x)
    elif "nested" in taken:
        own = keras.Input((16,), name="a_first" if "input" in taken else "y")
        x = keras.Model(own, layers.Dense(16, name="deep")(own), name="a_first" if "input" not in taken else "inner")(x)
    model = randomized(keras.Model(inputs, layers.Dense(12, name="b")(x)))
    step = LowRank(rank=3, layers="a")
    thin = step.apply(model)
    assert [layer.name for layer in thin.layers[1:3]] == ["a_first_1", "a"]
    step.check(thin, step.plan(model))


def test_weights_that_are_read_elsewhere_stay():
    class Tied(keras.Model):
        def __init__(self):
            super().__init__()
            self.words, self.dense = layers.Embedding(30, 16, name="words"), layers.Dense(16, name="dense")

        def call(self, x):
            return keras.ops.einsum("btd,vd->btv", self.dense(self.words(x)), self.words.embeddings)

    model = Tied()
    model(np.zeros((1, 4), "int32"))
    row = LowRank(rank=4).plan(model).row("words")
    assert (row.action, row.reason) == ("skipped", "its kernel is read elsewhere, too")


@pytest.mark.parametrize("name", ["residual", "text"])
def test_it_is_taught_and_later_steps_take_it(name):
    model, thin = original(name), STEP.apply(original(name))
    distiller = tfdistill.Distiller(model, thin, tfdistill.losses.SoftTargets(2.0))
    distiller.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    history = distiller.fit(inputs_of(model, 8), np.arange(8) % 3, batch_size=8, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    assert Prune(0.5, end_step=2).plan(thin).names("done")
    assert QuantizeAware().plan(thin, dry_run=False).names("done")


def test_channels_go_before_and_after_it():
    model = original("residual")
    fewer = PruneChannels(keep_channels=0.8, divisor=1).apply(model)
    thin = LowRank(keep_macs=0.6, divisor=1).apply(fewer)
    assert tfdistill.profile(PruneChannels(keep_macs=0.8, divisor=1).apply(thin)).macs < tfdistill.profile(thin).macs


def test_it_becomes_an_int8_file(tmp_path):
    x = inputs_of(original("residual"), 32)
    step = LowRank(keep_macs=0.6, divisor=2)
    thin = step.apply(original("residual"), calibration=x)
    path = tmp_path / "thin.tflite"
    tfdistill.export_tflite(thin, path, variant="int8", calibration=x)
    assert path.stat().st_size
    step.check(thin, step.plan(original("residual"), calibration=x))


def test_free_sizes_and_half_precision():
    inputs = keras.Input((None, 12), dtype="float16")
    dense = layers.Dense(16, activation="relu", name="hidden", dtype="mixed_float16")
    model = randomized(keras.Model(inputs, layers.Dense(12, name="out", dtype="mixed_float16")(dense(inputs))))
    thin = LowRank(keep_parameters=0.8, divisor=1).apply(model)
    assert thin.get_layer("hidden_first").dtype_policy.name == "mixed_float16"
    assert LowRank(keep_parameters=0.8, divisor=1).plan(model).macs is None


def low_rank_images(seed=0, samples=96):
    """Images whose patches lie in a few directions: one pattern for each image, and little noise."""
    rng = np.random.default_rng(seed)
    patterns, noise = np.random.default_rng(7).normal(size=(3, 8, 8, 3)), 0.02 * rng.normal(size=(samples, 8, 8, 3))
    return (rng.normal(size=(samples, 3)) @ patterns.reshape(3, -1)).reshape(samples, 8, 8, 3).astype("float32") + noise.astype("float32")


@pytest.mark.parametrize("method", ["svd", "spatial_svd"])
def test_data_makes_it_better_on_such_data(method):
    """On examples that were not seen, the outputs of every method come nearer to the model's."""
    inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(16, 3, padding="same", activation="relu", name="a")(inputs)
    x = layers.Conv2D(16, 3, activation="relu", name="b")(x)
    x = layers.Dense(24, activation="relu", name="c")(layers.Flatten()(x))
    model = randomized(keras.Model(inputs, layers.Dense(8, name="d")(x)))
    step = LowRank(rank=3, method={"?": "svd"} if method == "svd" else {"[ab]": "spatial_svd"})
    unseen, expected = low_rank_images(1), model(low_rank_images(1))
    far = [float(np.mean((step.apply(model, calibration=data)(unseen) - expected) ** 2)) for data in (None, low_rank_images())]
    assert far[1] < 0.5 * far[0]
    rows = [step.plan(model, calibration=data).row("b") for data in (None, low_rank_images())]
    assert [row.by for row in rows] == ["weights", "outputs"]
    assert rows[1].lost < rows[0].lost
