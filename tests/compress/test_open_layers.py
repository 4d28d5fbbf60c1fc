"""Layers that others wrote are replaced by what is inside them: it computes the same, trains alike, and the steps that change shapes take it."""

import custom_layers
import keras
import numpy as np
import pytest
from custom_layers import STEPS, WIDTH, GatedMLP, Standardized, StochasticDepth, sequence
from keras import layers
from remedies_of_source import Row, check
from test_custom_layers import inputs_of, outputs

import tfdistill
from tfdistill.compress import LowRank, PruneChannels, open_layers, register_channels, shrink_like
from tfdistill.compress.channels.rules import table
from tfdistill.errors import ModelError
from tfdistill.graph.flat import flat_graph
from tfdistill.graph.opening import is_foreign

ROWS = custom_layers.MODELS
# Layers of these rows that stay, and why.
STAY = {
    "stochastic depth": ("drop", "random numbers of its own"),
    "around stochastic depth": ("block_drop", "random numbers of its own"),
    "inference mode inside": ("block", "always calls 'norm' in inference mode"),
    "derived from a kernel": ("own", "has the kernel of a Dense"),
    "only sets arguments": ("own", "has the kernel of a Dense"),
    "an operation of TensorFlow's": ("block", "cannot be used as input to a TensorFlow function"),
    "an operation of TensorFlow's, in a layer of lists": ("block_inner", "cannot be used as input to a TensorFlow function"),
}
# Rows whose models Keras itself cannot load, opened or not: it takes the layers for saved elsewhere, or has no name for a function.
NOT_LOADED = (
    "inference mode inside",
    "only sets arguments",
    "an operation of TensorFlow's",
    "in two places",
    "a table in two models",
    "an operation of TensorFlow's, in a layer of lists",
    "a function inside a layer of Keras's",
)
QUICK = (
    "keras.io's transformer",
    "own RMS normalization",
    "inference mode inside",
    "around stochastic depth",
    "models inside",
    "in two places",
)
# Rows that draw random numbers in training.
RANDOM = ("keras.io's transformer", "attention by keywords", "stochastic depth", "around stochastic depth", "a config that lacks something")
NAMES = [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in ROWS]


def opened(name):
    """Returns the model of a row and the same one opened; what is said of layers that stay is what the table says."""
    model = custom_layers.build(name)
    if name not in STAY:
        return model, open_layers(model)
    with pytest.warns(UserWarning, match=STAY[name][1]):
        return model, open_layers(model)


def foreign(model):
    return [call.path for call in flat_graph(model).calls if is_foreign(call.operation)]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_inside_computes_the_same_in_both_modes(name, tmp_path):
    model, made = opened(name)
    x, before = inputs_of(model), [np.array(v) for v in model.variables]
    assert foreign(made) == ([STAY[name][0]] if name in STAY else [])
    for ours, theirs in zip(outputs(model, x), outputs(made, x), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert (
        sum(w.shape.num_elements() if hasattr(w.shape, "num_elements") else np.prod(w.shape) for w in made.weights) == model.count_params()
    )
    assert len(made.trainable_weights) == len(model.trainable_weights)
    assert made is model or {id(w) for w in made.weights}.isdisjoint({id(w) for w in model.weights})
    assert (made is model) == (name == "repeated")  # a wrapper of Keras's around a layer is one of Keras's
    after = []
    for each in (model, made):
        keras.utils.set_random_seed(0)
        each.compile(keras.optimizers.SGD(0.05), "mse", run_eagerly=True)
        after.append(each.train_on_batch(x, keras.tree.map_structure(lambda y: np.ones(y.shape, "float32"), each(x, training=False))))
    if made is not model and name not in RANDOM:
        np.testing.assert_allclose(*after, rtol=1e-5)
        for ours, theirs in zip(outputs(model, x), outputs(made, x), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert any((np.array(v) != old).any() for v, old in zip(model.variables, before, strict=True))
    if name not in NOT_LOADED:
        made.save(tmp_path / "opened.keras")
        loaded = keras.saving.load_model(tmp_path / "opened.keras", compile=False)
        for ours, theirs in zip(outputs(loaded, x), outputs(made, x), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def transformer():
    """A block of keras.io's transformer, of a class that no process but this one knows."""
    return custom_layers.build("keras.io's transformer")


def test_channels_heads_and_ranks_are_removed_inside():
    model = open_layers(transformer())
    x = inputs_of(model)
    for step in (PruneChannels(keep_macs=0.7, divisor=1), LowRank(keep_parameters=0.9, divisor=1)):
        small = step.apply(model)
        assert tfdistill.profile(small).parameters < tfdistill.profile(model).parameters
        assert outputs(small, x)[0].shape == outputs(model, x)[0].shape
    narrow = shrink_like(model, width=0.5, divisor=1)
    assert narrow.count_params() < 0.6 * model.count_params()


@pytest.mark.parametrize("name", ["own dense layer", "a mask for each example", "patches"])
def test_weights_of_a_layer_and_operations_are_followed(name):
    """A kernel that `call` multiplies with, attention of `keras.ops`, and a reshape with the size of the batch."""
    _, model = opened(name)
    small = PruneChannels(keep_channels=0.9, divisor=1).apply(model)
    assert small.count_params() < model.count_params()


def test_a_reshape_to_the_batch_and_heads_is_made_again_for_fewer_heads():
    inputs = keras.Input((STEPS, 8))
    model = open_layers(keras.Model(inputs, layers.Dense(2)(Heads(4, name="heads")(inputs))))
    small = PruneChannels(keep_channels=0.6, divisor=1, scope="layer").apply(model)
    assert small.get_layer("heads_dense").units in (4, 6)
    assert small(np.zeros((3, STEPS, 8), "float32")).shape == (3, STEPS, 2)


@keras.saving.register_keras_serializable("tests")
class Heads(layers.Layer):
    """Splits its channels into heads of two, with the size of the batch in the shape."""

    def __init__(self, heads, **kwargs):
        super().__init__(**kwargs)
        self.heads, self.dense = heads, layers.Dense(2 * heads, name="dense")

    def call(self, x):
        batch = keras.ops.shape(x)[0]
        return keras.ops.mean(keras.ops.reshape(keras.ops.relu(self.dense(x)), (batch, STEPS, self.heads, 2)), -1)

    def get_config(self):
        return {**super().get_config(), "heads": self.heads}


@pytest.mark.skipif(not hasattr(layers, "ReversibleEmbedding"), reason="this release of Keras has no such layer")
@pytest.mark.parametrize("tie", [True, False])
def test_a_table_that_gives_the_logits_too_gets_narrower(tie):
    tokens = keras.Input((STEPS,), dtype="int32")
    table = layers.ReversibleEmbedding(12, 8, tie_weights=tie, name="table")
    x = table(tokens)
    model = keras.Model(tokens, table(layers.Add()([layers.Dense(8, activation="relu")(x), x]), reverse=True))
    small = PruneChannels(keep_channels=0.5, divisor=1).apply(model)
    assert small.get_layer("table").output_dim == 4
    assert small(np.zeros((2, STEPS), "int32")).shape == (2, STEPS, 12)


def test_layers_are_chosen_and_a_model_without_any_is_itself():
    model = sequence(GatedMLP(8, name="one"), GatedMLP(8, name="two"))
    assert foreign(open_layers(model, layers="one")) == foreign(open_layers(model, exclude="t*")) == ["two"]
    whole = open_layers(model)
    assert isinstance(model, keras.Sequential)
    assert open_layers(whole) is whole
    assert sorted(layer.name for layer in whole.layers if layer.weights) == [
        *("head", "one_down", "one_gate", "one_up", "two_down", "two_gate", "two_up"),
    ]


def test_the_work_inside_is_part_of_a_budget():
    """What a layer that is left whole computes counts as `profile` counts it."""
    model = sequence(layers.Dense(16, name="wide"), layers.Dense(WIDTH, name="back"), GatedMLP(8, name="mlp"))
    counted = tfdistill.profile(model).macs
    for step in (PruneChannels(keep_macs=0.9, divisor=1), LowRank(keep_macs=0.9, divisor=1)):
        plan, small = step.plan(model), step.apply(model)
        assert plan.macs == counted
        assert plan.expected_macs == tfdistill.profile(small).macs <= 0.9 * counted
    assert plan.row("mlp").macs == plan.row("mlp").expected_macs > 0


def of_named_kernel(folder):
    model = sequence(Standardized(4, name="own"))
    assert foreign(open_layers(model, layers="own")) == []


def registered(folder):
    model = sequence(layers.Dense(8, name="wide"), StochasticDepth(name="drop"), layers.Dense(4, name="back"))
    before = dict(table._REGISTERED)
    try:
        register_channels(StochasticDepth, lambda call: [call.inputs[0]])
        assert PruneChannels(keep_channels=0.6, divisor=1).apply(model).get_layer("wide").units < 8
    finally:
        table._REGISTERED.clear()
        table._REGISTERED.update(before)


def hidden():
    return sequence(GatedMLP(16, name="mlp"))


def after_opening(step):
    return lambda folder: step(open_layers(hidden()))


OPENED = "take tfdistill.compress.open_layers(model)"
REMEDIES = {
    "a layer that stays": Row(
        "register_channels tells PruneChannels", lambda _: open_layers(sequence(StochasticDepth(name="drop"))), registered
    ),
    "a layer with a kernel": Row(
        "name one with a kernel in layers=", lambda _: open_layers(sequence(Standardized(4, name="own"))), of_named_kernel
    ),
    "a layer that was named": Row(
        "leave it as it is: exclude='drop'",
        lambda _: open_layers(sequence(GatedMLP(8, name="mlp"), StochasticDepth(name="drop")), layers=["mlp", "drop"]),
        lambda _: open_layers(sequence(GatedMLP(8, name="mlp"), StochasticDepth(name="drop")), exclude="drop"),
    ),
    "fewer channels": Row(
        OPENED, lambda _: PruneChannels(keep_macs=0.7).apply(hidden()), after_opening(PruneChannels(keep_macs=0.7, divisor=1).apply)
    ),
    "fewer channels than there are": Row(
        OPENED,
        lambda _: PruneChannels(keep_macs=0.2, divisor=1).apply(sequence(layers.Dense(8), layers.Dense(WIDTH), GatedMLP(16, name="mlp"))),
        after_opening(PruneChannels(keep_macs=0.2, divisor=1).apply),
    ),
    "smaller ranks": Row(
        OPENED,
        lambda _: LowRank(keep_parameters=0.5, divisor=1).apply(sequence(layers.Dense(16), layers.Dense(WIDTH), GatedMLP(16, name="mlp"))),
        after_opening(LowRank(keep_parameters=0.5, divisor=1).apply),
    ),
    "a narrower student": Row(
        OPENED, lambda _: shrink_like(hidden(), width=0.5), after_opening(lambda model: shrink_like(model, width=0.5))
    ),
    "a student of so many parameters": Row(
        OPENED,
        lambda _: shrink_like(sequence(layers.Dense(16), layers.Dense(WIDTH), GatedMLP(16, name="mlp")), params=100, divisor=1),
        after_opening(lambda model: shrink_like(model, params=100, divisor=1)),
    ),
    "a student with whole layers": Row(
        OPENED,
        lambda _: shrink_like(sequence(layers.Dense(16), layers.Dense(WIDTH), GatedMLP(16, name="mlp")), width=0.5),
        after_opening(lambda model: shrink_like(model, width=0.5)),
    ),
}


@pytest.mark.parametrize("name", REMEDIES)
def test_what_is_said_to_do_works(name, tmp_path):
    check(REMEDIES[name], tmp_path)


def test_a_student_may_have_whole_layers():
    model = sequence(layers.Dense(16), layers.Dense(WIDTH, name="back"), GatedMLP(16, name="mlp"))
    with pytest.warns(UserWarning, match=r"leaves 1 layers of 'net' whole [^|]*without this warning: exclude=\['mlp', 'back'\]"):
        shrink_like(model, width=0.5)
    shrink_like(model, width=0.5, exclude=["mlp", "back"])


def test_other_models_are_refused():
    with pytest.raises(ModelError, match="open_layers"):
        open_layers(layers.Dense(3))
    with pytest.raises(ModelError, match="mlp"):
        open_layers(hidden(), layers="mpl")
