"""Layers that the bridge does not know are opened, or run as they are: outputs, training and the way back."""

import custom_layers
import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from tfdistill.bridge import check_parity, host, register_bridge, to_keras, to_tf_keras
from tfdistill.bridge.convert.custom import described
from tfdistill.bridge.parity.check import random_inputs
from tfdistill.compress import Prune
from tfdistill.errors import BridgeError
from tfdistill.graph.functional import as_functional
from tfdistill.graph.tracing import open_model

ROWS = custom_layers.MODELS


def inputs_of(model):
    return random_inputs(as_functional(open_model(model)), seed=5, batch_size=3)


def outputs(model, x):
    return [np.asarray(y) for y in keras.tree.flatten(model(x, training=False))]


SLOW = (
    "called twice",
    "layer scale",
    "lists and dicts of layers",
    "private layers without a config",
    "squeeze and excite",
    "in two places",
)
SLOW += ("own RMS normalization", "gated MLP", "a block called twice", "nested", "convolution and normalization", "own dense layer")


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else []) for name in ROWS])
def test_the_copy_computes_the_same_has_paths_and_goes_back(name):
    model = custom_layers.build(name)
    x, before = inputs_of(model), [np.array(v) for v in model.variables]
    shapes = [weight.shape for weight in model.weights]
    rebuilt = to_tf_keras(model)
    assert check_parity(as_functional(open_model(model)), rebuilt).max_abs_error <= 1e-5
    for ours, theirs in zip(outputs(model, x), outputs(rebuilt, x), strict=True):
        np.testing.assert_allclose(theirs, ours, atol=1e-5)
    assert set(ROWS[name][1]) <= {layer.name for layer in rebuilt.layers}
    assert len(rebuilt.trainable_weights) == len(model.trainable_weights)
    assert sum(np.prod(w.shape) for w in rebuilt.weights) == sum(np.prod(w.shape) for w in model.weights)
    for weight in rebuilt.weights:
        weight.assign_add(np.full(weight.shape, 0.05, weight.dtype.name))
    back = to_keras(rebuilt, model)
    assert [type(layer).__name__ for layer in back.layers] == [type(layer).__name__ for layer in model.layers]
    for ours, theirs in zip(outputs(rebuilt, x), outputs(back, x), strict=True):
        np.testing.assert_allclose(theirs, ours, atol=1e-5)
    assert [weight.shape for weight in back.weights] == shapes
    for one, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(one, value)


@pytest.mark.parametrize("policy", ["mixed_float16", "float64"])
def test_precision_is_kept_inside(policy):
    before = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy(policy)
        model = custom_layers.build("nested")
    finally:
        keras.config.set_dtype_policy(before)
    rebuilt = to_tf_keras(model)
    assert check_parity(model, rebuilt).max_abs_error <= 1e-3
    assert {layer.compute_dtype for layer in rebuilt.layers if layer.weights} == {model.layers[0].compute_dtype}


def test_flags_are_kept_inside():
    model = custom_layers.build("nested")
    outer = model.layers[0]
    outer.trainable = False
    outer.mlp.gate.trainable = True
    rebuilt = to_tf_keras(model)
    back = to_keras(rebuilt, model)
    for one in (rebuilt, back):
        assert len(one.trainable_weights) == len(model.trainable_weights) == 4
    assert [back.layers[0].mlp.gate.trainable, back.layers[0].mlp.up.trainable] == [True, False]
    assert rebuilt.get_layer("outer/mlp/gate").trainable
    assert not rebuilt.get_layer("outer/scale/gamma").trainable


def lines(name):
    model = custom_layers.build(name)
    return described(model, to_tf_keras(model))


def test_it_is_said_what_is_opened_and_why_the_others_are_not():
    assert lines("nested") == ("outer (Outer): opened", "outer/mlp (GatedMLP): opened", "outer/scale (LayerScale): opened")
    opened, whole = lines("around stochastic depth")
    assert opened == "block (DroppedResidual): opened"
    assert "block/drop (StochasticDepth): runs as it is, as it cannot be opened" in whole
    assert lines("at a known length") == ("nested/causal (CausalAttention): opened", "nested/causal/attention (CachedAttention): opened")


def test_a_weight_that_is_read_in_training_alone_is_not_lost():
    """The layer computes by another graph in training mode, so that it runs as it is, and its weight is trained."""
    rebuilt = to_tf_keras(custom_layers.sequence(OnlyInTraining(name="own")))
    assert [w.name for w in rebuilt.get_layer("own").trainable_weights] == ["scale:0"]


@keras.saving.register_keras_serializable("tests")
class OnlyInTraining(keras.layers.Layer):
    def build(self, shape):
        self.scale = self.add_weight(name="scale", shape=(shape[-1],), initializer="ones")

    def call(self, x, training=None):
        return x * self.scale if training else x


class Counts(keras.layers.Layer):
    """Computes something else every time."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense, self.times = keras.layers.Dense(custom_layers.WIDTH), 0

    def call(self, x):
        self.times += 1
        return self.dense(x) * self.times


class ReadsValue(keras.layers.Layer):
    """Computes with the value of a weight."""

    def build(self, shape):
        self.scale = self.add_weight(name="scale", shape=(shape[-1],), initializer="ones")

    def call(self, x):
        return x * self.scale.value  # the line


class Assigns(keras.layers.Layer):
    """Counts its calls in a weight."""

    def build(self, shape):
        self.count = self.add_weight(name="count", shape=(), initializer="zeros", trainable=False)

    def call(self, x):
        self.count.assign(self.count + 1.0)
        return x


class AddsLoss(keras.layers.Layer):
    def call(self, x):
        self.add_loss(ops.sum(x))
        return x * 2.0


class UsesTensorFlow(keras.layers.Layer):
    def call(self, x):
        return tf.math.square(x)  # the line


CANNOT = {
    "a counter": (Counts, "something else on data"),
    "the value of a weight": (ReadsValue, r"self.scale.value  # the line"),
    "an assignment": (Assigns, "assign"),
    "a penalty": (AddsLoss, "add_loss"),
    "functions of TensorFlow": (UsesTensorFlow, r"tf.math.square\(x\)  # the line"),
    "the size of the batch as a number": (custom_layers.ReadsMeanInBatch, "something else on data"),
}


def no_config(self):
    raise NotImplementedError("there is none")


@pytest.mark.parametrize("name", CANNOT)
def test_what_can_neither_be_opened_nor_run_as_it_is_is_refused_with_a_remedy_that_works(name):
    kind, words = CANNOT[name]
    without_config = type(kind.__name__, (kind,), {"get_config": no_config})
    with pytest.raises(BridgeError, match=rf"'net/own'[\s\S]*{words}[\s\S]*Nor can it be run[\s\S]*register_keras_serializable") as caught:
        to_tf_keras(custom_layers.sequence(without_config(name="own")))
    assert f"register_bridge({kind.__name__}, builder)" in caught.value.fix
    if kind is Counts:  # Keras itself cannot run that twice alike
        return
    model = custom_layers.sequence(keras.saving.register_keras_serializable("tests")(kind)(name="own"))
    assert to_tf_keras(model).get_layer("own") is not None


class Block(keras.layers.Layer):
    """Its layer gets weights when the block is called, and its call counts, so that it cannot be opened."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(custom_layers.WIDTH, name="dense")

    def call(self, x, scale=None):
        return tf.nn.relu(self.dense(x)) * (1.0 if scale is None else scale)


@pytest.mark.parametrize("registered", [False, True])
def test_a_layer_without_build_that_runs_as_it_is_has_its_weights(registered):
    kind = keras.saving.register_keras_serializable("tests")(type("Built" if registered else "NotBuilt", (Block,), {}))
    if registered:
        register_bridge(kind, host)
    model = custom_layers.sequence(kind(name="own"))
    rebuilt = to_tf_keras(model)
    assert [tuple(w.shape) for w in rebuilt.get_layer("own").weights] == [(6, 6), (6,)]
    copied = type(rebuilt).from_config(rebuilt.get_config())
    assert [tuple(w.shape) for w in copied.get_layer("own").weights] == [(6, 6), (6,)]
    x = np.ones((2, custom_layers.STEPS, custom_layers.WIDTH), "float32")
    np.testing.assert_allclose(to_keras(rebuilt, model)(x), model(x), atol=1e-6)


def test_a_layer_that_runs_as_it_is_may_be_called_by_keywords_alone():
    inputs = keras.Input((custom_layers.STEPS, custom_layers.WIDTH))
    kind = keras.saving.register_keras_serializable("tests")(type("ByKeywords", (Block,), {}))
    model = keras.Model(inputs, kind(name="own")(x=inputs, scale=ops.sigmoid(inputs)))
    check_parity(model, to_tf_keras(model))


class PlainDepth(keras.layers.Layer):
    """As tutorials write it: not registered, without a config, and with a constructor that takes no names."""

    def __init__(self, rate):
        super().__init__()
        self.rate, self.seed_generator = rate, keras.random.SeedGenerator(7)

    def call(self, x, training=None):
        if training:
            kept = keras.random.uniform((keras.ops.shape(x)[0], 1), seed=self.seed_generator) >= self.rate
            return x * keras.ops.cast(kept, x.dtype) / (1 - self.rate)
        return x


def test_a_class_that_is_not_registered_runs_as_it_is_and_is_cloned():
    inputs = keras.Input((6,))
    model = keras.Model(inputs, keras.layers.Dense(2, name="last")(PlainDepth(0.5)(keras.layers.Dense(4, name="first")(inputs))))
    step = Prune(0.5, end_step=2, frequency=1)
    pruned = step.apply(model)
    pruned.compile("sgd", "mse")
    pruned.fit(np.ones((8, 6), "float32"), np.ones((8, 2), "float32"), batch_size=4, verbose=0, callbacks=step.callbacks())
    stripped = step.strip(pruned)
    assert [type(layer) for layer in stripped.layers] == [type(layer) for layer in model.layers]
    x = np.random.default_rng(0).normal(size=(3, 6)).astype("float32")
    np.testing.assert_allclose(stripped(x), pruned(x), atol=1e-6)
    noise = to_tf_keras(model)(np.ones((64, 6), "float32"), training=True).numpy()
    assert len(np.unique(noise.round(5), axis=0)) == 2  # each sample is kept or left out
