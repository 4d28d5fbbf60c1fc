"""Weights that are pruned by their gradients: scores are those of NumPy's formulas, for kernels inside any layer, under a teacher too."""

import keras
import numpy as np
import pytest
from keras import layers
from small import data, mlp

import tfdistill
from tfdistill.bridge.adopt import introspection
from tfdistill.compress import Prune
from tfdistill.compress.prune.callbacks import pruned_layers
from tfdistill.compress.prune.schedule import tfmot_schedule
from tfdistill.errors import ConfigurationError, ModelError
from tfdistill.losses import SoftTargets

CRITERIA = ("taylor", "fisher", "movement")
RATE, STEPS, BATCH = 0.5, 8, 8
X, Y = data()


def numpy_training(kernel, bias, x, y, criterion, first):
    """Gradient descent on the mean square error of a dense layer; half of the weights with the least scores go before step `first`, the largest of each column aside."""
    score, product, mask = np.zeros_like(kernel), np.zeros_like(kernel), np.ones_like(kernel)
    for step in range(1, STEPS + 1):
        if criterion == "movement":
            score = score - product
        else:
            score = 0.9 * score + 0.1 * (np.abs(product) if criterion == "taylor" else product**2 / 2)
        if step == first:
            ranked = score.copy()
            ranked[score.argmax(0), np.arange(score.shape[1])] = np.inf
            mask.ravel()[np.argsort(ranked.ravel())[: kernel.size // 2]] = 0
        kernel = kernel * mask
        part = slice((step - 1) * BATCH, step * BATCH)
        error = 2 * (x[part] @ kernel + bias - y[part]) / (BATCH * y.shape[1])
        gradient = x[part].T @ error
        product = kernel * gradient
        kernel, bias = (kernel - RATE * gradient) * mask, bias - RATE * error.sum(0)
    return kernel, score


@pytest.mark.parametrize("criterion", CRITERIA)
def test_scores_and_masks_are_those_of_numpy(criterion):
    model = keras.Sequential([keras.Input((8,)), layers.Dense(6, name="only")])
    kernel, bias = (w.numpy() for w in model.weights)
    targets = np.random.default_rng(1).normal(size=(len(X), 6)).astype("float32")
    prune = Prune(0.5, schedule="constant", begin_step=5, end_step=6, frequency=1, criterion=criterion)
    pruned = prune.apply(model)
    pruned.compile(keras.optimizers.SGD(RATE), "mse")
    pruned.fit(X, targets, batch_size=BATCH, shuffle=False, verbose=0, callbacks=prune.callbacks())
    expected, score = numpy_training(kernel, bias, X, targets, criterion, first=5)
    stripped = prune.strip(pruned)
    np.testing.assert_allclose(stripped.get_layer("only").kernel, expected, atol=1e-5)
    (wrapper,) = pruned_layers(pruned)
    (found,) = (w.numpy() for w in introspection.own_variables(wrapper) if "score" in w.name)
    np.testing.assert_allclose(found, score, rtol=1e-3, atol=1e-6)
    prune.check(stripped)


SETTINGS = {
    "schedule": {"criterion": "taylor", "end_step": 6},
    "blocks": {"criterion": "fisher", "end_step": 6, "block": (2, 1)},
    "pattern": {"criterion": "movement", "end_step": 6, "n_of_m": (2, 4)},
    "initial": {"criterion": "movement", "end_step": 6, "initial_sparsity": 0.3, "frequency": 6},
}


# Settings -> the step from which the sparsity rises, and how often masks are computed.
FIRST = {
    "magnitude from the start": ({"end_step": 100}, (0, 5)),
    "magnitude after a remainder": ({"end_step": 7, "frequency": 3}, (1, 3)),
    "magnitude at once": ({"end_step": 1}, (0, 1)),
    "magnitude without an end": ({"schedule": "constant"}, (1, 100)),
    "gradients from the start": ({"end_step": 4, "criterion": "taylor"}, (2, 1)),
    "gradients without an end": ({"schedule": "constant", "criterion": "taylor"}, (2, 100)),
    "gradients later": ({"end_step": 9, "begin_step": 4, "criterion": "fisher"}, (4, 1)),
}


@pytest.mark.parametrize("name", FIRST)
def test_schedules_begin_where_they_are_asked_to(name):
    settings, (begin, frequency) = FIRST[name]
    prune = Prune(0.5, **settings)
    schedule = tfmot_schedule(prune, 0.5)
    assert (schedule.begin_step, schedule.frequency) == (begin, frequency)


@pytest.mark.parametrize("name", SETTINGS)
def test_schedules_and_patterns_are_kept(name):
    prune = Prune(**SETTINGS[name])
    pruned = prune.apply(mlp(16, 12))
    pruned.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    pruned.fit(X, Y, batch_size=8, verbose=0, callbacks=prune.callbacks())
    stripped = prune.strip(pruned)
    prune.check(stripped)
    assert np.count_nonzero(stripped.get_layer("hidden_0").kernel)


def every_layer():
    """Kernels in a table, a recurrent cell, attention, and a layer that is called twice."""
    tokens = keras.Input((6,), dtype="int32", name="tokens")
    x = layers.LSTM(8, return_sequences=True, name="cell")(layers.Embedding(20, 8, name="table")(tokens))
    x, twice = layers.MultiHeadAttention(2, 4, name="attention")(x, x), layers.Dense(8, activation="relu", name="twice")
    x = layers.GlobalAveragePooling1D(name="pool")(twice(twice(x)))
    return keras.Model(tokens, layers.Dense(3, name="logits")(x), name="every")


@pytest.mark.slow
@pytest.mark.parametrize("criterion", CRITERIA)
def test_kernels_of_every_kind_are_scored_under_a_teacher(criterion, tmp_path):
    tokens, labels = np.random.default_rng(0).integers(0, 20, (32, 6)), np.arange(32) % 3
    prune = Prune(0.5, end_step=6, criterion=criterion)
    pruned = prune.apply(every_layer())
    distiller = tfdistill.Distiller(every_layer(), pruned, SoftTargets(2.0))
    distiller.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    distiller.fit(tokens, labels, batch_size=8, epochs=2, verbose=0, callbacks=prune.callbacks())
    for wrapper in pruned_layers(pruned):
        for variable in introspection.own_variables(wrapper):
            assert "score" not in variable.name or np.count_nonzero(variable), variable.name
    prune.check(prune.strip(pruned))
    pruned.save(tmp_path / "pruned.keras")
    again = tfdistill.load_model(tmp_path / "pruned.keras")
    scores = [[v.numpy() for w in pruned_layers(m) for v in introspection.own_variables(w) if "score" in v.name] for m in (pruned, again)]
    assert all(np.array_equal(a, b) for a, b in zip(*scores, strict=True))
    again.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    again.fit(tokens, labels, batch_size=8, verbose=0, callbacks=prune.callbacks())
    prune.check(prune.strip(again))


@pytest.mark.parametrize("criterion", CRITERIA)
def test_steps_that_overflow_in_half_precision_are_not_scored(criterion):
    inputs = keras.Input((8,))
    hidden = layers.Dense(16, activation="relu", dtype="mixed_float16", name="hidden")(inputs)
    model = keras.Model(inputs, layers.Dense(5, dtype="float32", name="logits")(hidden))
    prune = Prune(0.5, begin_step=10, end_step=20, criterion=criterion)
    pruned = prune.apply(model)
    # The first steps overflow, until the scale is small enough.
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(), initial_scale=2.0**22)
    pruned.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    pruned.fit(X, Y, batch_size=8, epochs=3, verbose=0, callbacks=prune.callbacks())
    assert float(optimizer.dynamic_scale) < 2.0**22
    scores = [v.numpy() for w in pruned_layers(pruned) for v in introspection.own_variables(w) if "score" in v.name]
    assert all(np.isfinite(score).all() and score.any() for score in scores)
    prune.check(prune.strip(pruned))


def test_a_frozen_layer_is_left_whole():
    model = mlp(16, 12)
    model.get_layer("hidden_1").trainable = False
    prune = Prune(0.5, end_step=4, criterion="taylor")
    assert prune.plan(model).names("done") == ["hidden_0", "logits"]
    with pytest.raises(ModelError, match="it is frozen, so that criterion='taylor' has no gradients"):
        Prune(0.5, end_step=4, criterion="taylor", layers=["hidden_1"]).apply(model)


@pytest.mark.parametrize(
    ("given", "said"), [({"criterion": "magnitud"}, "'magnitude'"), ({"criterion": "fisher", "end_step": 2}, "at least 3")]
)
def test_wrong_settings_are_refused(given, said):
    with pytest.raises(ConfigurationError, match=said):
        Prune(**{"end_step": 4, **given})
