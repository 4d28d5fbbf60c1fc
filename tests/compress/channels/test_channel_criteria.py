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


def changes():
    """First-order change of each example's squared error when a hidden unit is removed: (units, examples)."""
    model = dense()[0]
    first, second = kernels(model)
    hidden = np.maximum(X @ first + model.get_layer("hidden").bias.numpy(), 0)
    error = 2 * (hidden @ second + model.get_layer("out").bias.numpy() - Y) / Y.shape[1]
    return (hidden * (error @ second.T)).T


@pytest.mark.parametrize("criterion", ["taylor", "fisher"])
@pytest.mark.parametrize("teacher", [False, True])
def test_gradients(criterion, teacher):
    model, trace, group = dense()
    expected = np.abs(changes()).mean(1) if criterion == "taylor" else (changes() ** 2).mean(1) / 2

    class Known(keras.Model):
        def call(self, x):
            places = [int(np.flatnonzero((row == X).all(1))[0]) for row in np.asarray(x)]
            return keras.ops.convert_to_tensor(Y[places])

    data = Examples(X, teacher=Known(), batch_size=4) if teacher else Examples(X, Y, "mse", batch_size=4)
    found = data_importance.gradient_scores(trace, model, [group], data, criterion)
    np.testing.assert_allclose(found[group.number], expected, rtol=1e-4)


def _residual(x):
    x = layers.Conv2D(4, 3, padding="same", name="conv")(x)
    return layers.Add()([x, layers.Conv2D(4, 3, padding="same", activation="sigmoid", name="inside")(x)])


def _excited(x):
    x = layers.Conv2D(4, 3, name="conv")(x)
    gate = layers.Dense(4, activation="sigmoid", name="inside")(layers.GlobalAveragePooling2D(keepdims=True)(x))
    return layers.Multiply()([x, gate])


def _joined(x):
    x = layers.Conv2D(4, 3, padding="same", name="conv")(x)
    return layers.Concatenate()([layers.Conv2D(3, 3, padding="same", name="inside")(x), layers.ReLU()(x)])


def _depthwise(x):
    x = layers.BatchNormalization(moving_mean_initializer="random_normal")(layers.Conv2D(4, 3, name="conv")(x))
    return layers.BatchNormalization(moving_mean_initializer="random_normal")(layers.DepthwiseConv2D(3, name="depthwise")(x))


def _attended(x):
    x = layers.Reshape((36, 4))(layers.Conv2D(4, 3, padding="same", name="conv")(x))
    x = layers.MultiHeadAttention(2, 3, output_shape=5, name="inside")(query=x, value=x)
    return layers.Reshape((6, 6, 5))(x)


# What makes the channels of "conv" and reads them -> the kernels that read them, and the axis and its first place that they are at.
READ = {
    "a plain chain": (lambda x: layers.Conv2D(4, 3, name="conv")(x), {"out": (0, 0)}),
    "in front of BatchNormalization, and a depthwise convolution": (_depthwise, {"out": (0, 0)}),
    "a sum with what is made of it": (_residual, {"inside": (2, 0), "out": (0, 0)}),
    "squeeze-excite": (_excited, {"inside": (0, 0), "out": (0, 0)}),
    "attention, by keywords": (_attended, {f"inside/{part}": (0, 0) for part in ("query", "key", "value")}),
    "a concatenation behind what is made of it": (_joined, {"inside": (2, 0), "out": (0, 3)}),
}


@pytest.mark.parametrize("case", READ)
def test_the_first_order_change_is_that_of_what_reads_a_channel(case):
    """Against differences: the kernels that read a channel are scaled a little up and down, which is as if the channel were."""
    keras.utils.set_random_seed(1)
    made, readers = READ[case]
    inputs = keras.Input((6, 6, 2))
    model = keras.Model(inputs, layers.Dense(3, name="out")(layers.GlobalAveragePooling2D()(made(inputs))))
    x, y = RNG.normal(size=(5, 6, 6, 2)).astype("float32"), RNG.normal(size=(5, 3)).astype("float32")
    kernels = {name: next(weight for weight in model.weights if weight.path.endswith(f"{name}/kernel")) for name in readers}
    weights = {name: kernel.numpy() for name, kernel in kernels.items()}

    def losses(unit, factor):
        for name, (axis, first) in readers.items():
            scaled = weights[name].copy()
            np.moveaxis(scaled, axis, 0)[first + unit] *= factor
            kernels[name].assign(scaled)
        return ((model(x, training=False).numpy().astype("float64") - y) ** 2).mean(-1)

    expected = [np.abs(losses(unit, 1.01) - losses(unit, 0.99)).mean() / 0.02 for unit in range(4)]
    for name, value in weights.items():
        kernels[name].assign(value)
    trace = ChannelTrace(model)
    group = next(group for group in groups_of(trace, 1) if "conv" in group.paths)
    found = data_importance.gradient_scores(trace, model, [group], Examples(x, y, "mse", batch_size=3), "taylor")
    np.testing.assert_allclose(found[group.number], expected, rtol=2e-3, atol=1e-5)


@pytest.mark.parametrize("criterion", ["taylor", "fisher"])
def test_heads_are_scored_by_the_kernels_inside(criterion):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((4, 6))
    model = keras.Model(inputs, layers.Dense(3)(layers.MultiHeadAttention(2, 3, name="attention")(inputs, inputs)))
    trace, data = ChannelTrace(model), Examples(RNG.normal(size=(5, 4, 6)).astype("float32"), RNG.normal(size=(5, 4, 3)), "mse")
    groups = groups_of(trace, 1)
    found = data_importance.gradient_scores(trace, model, groups, data, criterion)
    assert all((scores > 0).all() for scores in found.values()), found


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
