"""Scores of channels against formulas in NumPy."""

import functools

import keras
import numpy as np
import pytest
from keras import layers

from tfdistill.compress.channels import data_importance, importance
from tfdistill.compress.channels.data_importance import Examples
from tfdistill.compress.channels.groups import groups_of
from tfdistill.compress.channels.trace import ChannelTrace

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(6, 5)).astype("float32"), RNG.normal(size=(6, 3)).astype("float32")


@functools.cache
def dense():
    """Five inputs, eight hidden units, three outputs."""
    keras.utils.set_random_seed(3)
    inputs = keras.Input((5,))
    hidden = layers.Dense(8, activation="relu", name="hidden", bias_initializer="random_normal")(inputs)
    model = keras.Model(inputs, layers.Dense(3, name="out")(hidden))
    trace = ChannelTrace(model)
    return model, trace, groups_of(trace, 1)[0]


@functools.cache
def image():
    keras.utils.set_random_seed(3)
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(4, 3, padding="same", name="conv")(inputs)
    x = layers.ReLU()(layers.BatchNormalization(name="norm", gamma_initializer="random_normal")(x))
    model = keras.Model(inputs, layers.Dense(3, name="out")(layers.GlobalAveragePooling2D()(x)))
    trace = ChannelTrace(model)
    return model, trace, groups_of(trace, 1)[0]


def kernels(model):
    return model.get_layer("hidden").kernel.numpy(), model.get_layer("out").kernel.numpy()


def normal(x):
    return x / x.mean()


@pytest.mark.parametrize("power", [1, 2])
def test_magnitude(power):
    model, trace, group = dense()
    first, second = kernels(model)
    made, read = (np.abs(first) ** power).sum(0) ** (1 / power), (np.abs(second) ** power).sum(1) ** (1 / power)
    expected = normal((normal(made) + normal(read)) / 2)
    np.testing.assert_allclose(importance.magnitude(trace, group, power), expected, rtol=1e-6)


def test_magnitude_with_a_normalization():
    model, trace, group = image()
    weights = (model.get_layer("conv").kernel, model.get_layer("norm").gamma, model.get_layer("out").kernel)
    conv, gamma, out = (np.abs(w.numpy()) for w in weights)
    expected = normal(np.mean([normal(conv.sum((0, 1, 2))), normal(gamma), normal(out.sum(1))], 0))
    np.testing.assert_allclose(importance.magnitude(trace, group, 1), expected, rtol=1e-6)


def test_scale_of_a_normalization():
    model, trace, group = image()
    np.testing.assert_allclose(importance.scale(trace, group), normal(np.abs(model.get_layer("norm").gamma.numpy())), rtol=1e-6)
    assert importance.scale(*dense()[1:]) is None


def test_random_is_the_same_for_a_seed():
    group = dense()[2]
    np.testing.assert_array_equal(importance.at_random(group, 1), importance.at_random(group, 1))
    assert not np.array_equal(importance.at_random(group, 1), importance.at_random(group, 2))


def products(batch):
    """Weight times gradient of the mean squared error, of both kernels."""
    model = dense()[0]
    first, second = kernels(model)
    x, y = X[batch], Y[batch]
    before = x @ first + model.get_layer("hidden").bias.numpy()
    hidden = np.maximum(before, 0)
    error = 2 * (hidden @ second + model.get_layer("out").bias.numpy() - y) / y.size
    return first * (x.T @ ((error @ second.T) * (before > 0))), second * (hidden.T @ error)


@pytest.mark.parametrize("criterion", ["taylor", "fisher"])
@pytest.mark.parametrize("teacher", [False, True])
def test_gradients(criterion, teacher):
    model, trace, group = dense()
    expected = 0
    for batch in (slice(0, 4), slice(4, 6)):
        made, read = products(batch)
        expected = expected + ((made.sum(0) + read.sum(1)) ** 2 if criterion == "taylor" else ((made**2).sum(0) + (read**2).sum(1)) / 2) / 2

    class Known(keras.Model):
        def call(self, x):
            places = [int(np.flatnonzero((row == X).all(1))[0]) for row in np.asarray(x)]
            return keras.ops.convert_to_tensor(Y[places])

    data = Examples(X, teacher=Known(), batch_size=4) if teacher else Examples(X, Y, "mse", batch_size=4)
    found = data_importance.gradient_scores(trace, model, [group], data, criterion)
    np.testing.assert_allclose(found[group.number], expected, rtol=1e-4)


def test_ranks_of_feature_maps():
    model, trace, group = image()
    x = RNG.normal(size=(3, 6, 6, 2)).astype("float32")
    maps = keras.Model(model.input, model.layers[-3].output)(x).numpy()
    expected = np.linalg.matrix_rank(np.moveaxis(maps, -1, 1)).mean(0)
    np.testing.assert_allclose(data_importance.rank_scores(trace, [group], Examples(x))[group.number], expected)
    assert data_importance.rank_scores(*dense()[1:2], [dense()[2]], Examples(X))[1] is None


def test_distance_of_the_outputs():
    model, trace, group = dense()
    first, second = kernels(model)
    hidden = np.maximum(X @ first + model.get_layer("hidden").bias.numpy(), 0)
    expected = [np.mean((hidden[:, i : i + 1] * second[i]) ** 2) for i in range(8)]
    np.testing.assert_allclose(data_importance.distance_scores(trace, [group], Examples(X))[group.number], expected, rtol=1e-4)
    further = data_importance.distance_scores(trace, [group], Examples(X, teacher=model))
    np.testing.assert_allclose(further[group.number], expected, rtol=1e-4)


@pytest.mark.parametrize("criterion", ["taylor", "fisher", "hrank", "output_distance", "bn_scale"])
def test_a_criterion_prunes(criterion):
    from tfdistill.compress import PruneChannels

    model = image()[0]
    x, data = RNG.normal(size=(8, 6, 6, 2)).astype("float32"), {}
    if criterion in ("taylor", "fisher"):
        data = {"y": np.arange(8) % 3, "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True)}
    data = {} if criterion == "bn_scale" else {"x": x, **data}
    step = PruneChannels(keep_channels=0.8, divisor=1, criterion=criterion)
    assert step.apply(model, **data).get_layer("conv").filters == 2
    assert step.plan(model, **data).row("conv").expected_channels == {"channels": 2}


def test_a_group_without_a_score_is_left_whole():
    from tfdistill.compress import PruneChannels

    plan = PruneChannels(keep_channels=0.8, divisor=1, criterion="bn_scale").plan(dense()[0])
    assert "criterion='bn_scale' has no score for it" in plan.row("hidden").reason
