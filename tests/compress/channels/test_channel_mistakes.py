"""What cannot give a score is an error, and what a user gives in another form counts as what it is."""

import keras
import numpy as np
import pytest
from channel_models import randomized
from keras import layers, ops
from test_channel_reasons import STEP, dense_model
from test_channel_settings import Rolled, X, Y, net, rolled

from tfdistill.compress import PruneChannels, register_channels
from tfdistill.errors import ConfigurationError, DataError, ModelError


def with_nan():
    model = dense_model(lambda x: x)
    kernel = model.get_layer("held").kernel
    kernel.assign(np.where(np.arange(8) == 3, np.nan, kernel.numpy()))
    return model


def teacher_of(width):
    return keras.Sequential([keras.Input((8, 8, 3)), layers.Flatten(), layers.Dense(width)])


# Criterion, model, data -> error and a part of it.
WRONG = {
    "weights that are no numbers": ("l2", with_nan, {}, ModelError, "gives NaN or infinity for channels of 'free' in 'net'"),
    "a loss that is no number": (
        "taylor",
        net,
        {"x": X, "y": Y, "loss": lambda y, outputs: ops.log(-ops.abs(outputs[:, 0]) - 1)},
        DataError,
        "the loss is nan on examples from 0 on",
    ),
    "a loss of nothing": (
        "fisher",
        net,
        {"x": X, "y": Y, "loss": lambda y, outputs: 0 * outputs[:, 0]},
        DataError,
        "is zero for every channel",
    ),
    "itself as teacher": ("taylor", net, {"x": X, "teacher": net}, DataError, "a teacher that is not the model itself"),
    "one output as teacher": ("taylor", net, {"x": X, "teacher": lambda: teacher_of(1)}, ModelError, r"have the shapes \[\(8, 1\)\]"),
    "distance to one output": (
        "output_distance",
        net,
        {"x": X, "teacher": lambda: teacher_of(1)},
        ModelError,
        r"those of the model's: \[\(8, 3\)\]",
    ),
    "a path as teacher": ("taylor", net, {"x": X, "teacher": "teacher.keras"}, ConfigurationError, "teacher= is a str"),
    "an unknown loss": ("taylor", net, {"x": X, "y": Y, "loss": "crossentropy"}, ConfigurationError, "loss='crossentropy'"),
    "a generator": ("hrank", net, {"x": iter(X)}, DataError, "arrays of examples"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_gives_no_score_is_refused(name):
    criterion, make, data, error, said = WRONG[name]
    data = {key: value() if key == "teacher" and callable(value) else value for key, value in data.items()}
    with pytest.raises(error, match=said):
        PruneChannels(keep_channels=0.8, divisor=1, criterion=criterion).plan(make(), **data)


def test_inputs_by_their_names_are_those():
    first, second = keras.Input((5,), name="b"), keras.Input((5,), name="a")
    hidden = layers.Dense(8, name="hidden")(layers.Concatenate()([first, second * 1000.0]))
    model = randomized(keras.Model([first, second], layers.Dense(3)(hidden)))
    a, b = np.random.default_rng(0).normal(size=(2, 8, 5)).astype("float32")
    step = PruneChannels(keep_channels=0.7, divisor=1, criterion="output_distance")
    removed = step.plan(model, [b, a]).row("hidden").removed
    assert removed == step.plan(model, {"a": a, "b": b}).row("hidden").removed
    assert removed != step.plan(model, [a, b]).row("hidden").removed


def test_a_function_keeps_all_its_arguments():
    def found(x):
        return ops.any(x > 0, axis=-1)

    arguments = {"mask": lambda x, mask: found(x), "output_shape": lambda shape: shape, "arguments": {"factor": 2.0}, "dtype": "float64"}
    model = dense_model(lambda x: layers.LSTM(4)(layers.Lambda(lambda x, factor: x * factor, name="own", **arguments)(x)))
    made, own = STEP.apply(model).get_layer("own"), model.get_layer("own")
    assert (made.mask, made.function, made.arguments, made.dtype_policy.name) == (own.mask, own.function, {"factor": 2.0}, "float64")


class Activation:
    """A function that has no hash."""

    __hash__ = None
    __name__ = "own"

    def __call__(self, x):
        return ops.relu(x)


def test_an_activation_without_a_hash_is_tried():
    plan = STEP.plan(dense_model(lambda x: layers.Activation(Activation())(x)))
    assert plan.row("held").removed


def test_an_activation_that_is_a_layer_is_not_built():
    model = dense_model(lambda x: layers.Dense(6, activation=layers.PReLU(), name="own")(x))
    row = STEP.plan(model).row("own")
    assert (model.get_layer("own").activation.built, row.removed) == (False, {})
    assert "its activation PReLU does not compute each channel of its own, or has weights" in row.reason
    assert STEP.plan(dense_model(lambda x: layers.Dense(6, activation=layers.LeakyReLU(), name="own")(x))).row("own").removed


def test_axes_that_are_missing_or_too_many_are_said():
    for axes in ([(None, None)], [(None,) * 5]):
        register_channels(Rolled, lambda call, axes=axes: axes)
        with pytest.raises(ModelError, match="returned axes of the sizes"):
            PruneChannels(keep_channels=0.7).plan(rolled(Rolled))


def test_a_named_layer_that_only_reads_less_is_done():
    model = dense_model(lambda x: layers.Dense(8, name="last")(x))
    kernel = model.get_layer("free").kernel
    kernel.assign(np.where(np.arange(8) < 2, 1e-6, kernel.numpy()))
    model.get_layer("held").kernel.assign(np.where(np.arange(8)[:, None] < 2, 1e-6, model.get_layer("held").kernel.numpy()))
    plan = PruneChannels(keep_channels=0.95, divisor=1, layers=["free", "held"]).plan(model)
    row = plan.row("held")
    assert not row.removed
    assert (row.action, row.reason) == ("done", "what it reads gets narrower")
    assert row.expected_parameters < row.parameters
