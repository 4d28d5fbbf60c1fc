"""A subclassed model is translated completely or refused: weights that its call reads as values, and graphs that differ in training mode."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from small import DIVIDES_ACTIVITY_PENALTIES

from tfdistill.bridge import host, register_bridge, to_tf_keras
from tfdistill.bridge.convert import layers as convert_layers
from tfdistill.compress import Cluster, Prune, QuantizeAware
from tfdistill.errors import BridgeError

WORDS, WIDTH = 11, 6


class Net(keras.Model):
    """Embeds tokens; the test gives the last operation."""

    def __init__(self, end, **kwargs):
        super().__init__(**kwargs)
        self.embed = layers.Embedding(WORDS, WIDTH, name="embed")
        self.dense = layers.Dense(WIDTH, name="dense")
        self.norm = layers.BatchNormalization(momentum=0.5, name="norm")
        self.drop = layers.Dropout(0.5, name="drop")
        self.scale = self.add_weight(name="scale", shape=(WIDTH,), initializer="ones")
        self.calls = 0
        self.end = end

    def call(self, inputs, training=None):
        return self.end(self, self.norm(self.dense(self.embed(inputs)), training=training), training)


class WithoutMode(Net):
    """Its call does not take `training`."""

    def call(self, inputs):
        return self.end(self, self.norm(self.dense(self.embed(inputs))), None)


class Around(keras.Model):
    def __init__(self, inner, **kwargs):
        super().__init__(**kwargs)
        self.inner = inner
        self.last = layers.Dense(2, name="last")

    def call(self, inputs, training=None):
        return self.last(self.inner(inputs, training=training))


class OwnCall(keras.Model):
    """A functional model with a call of its own."""

    def call(self, inputs, training=None, mask=None):
        h = super().call(inputs, training=training, mask=mask)
        return ops.matmul(h, ops.transpose(self.get_layer("embed").embeddings))


def tokens(rng):
    return rng.integers(0, WORDS, (2, 5)).astype("float32")


def net(end, kind=Net):
    model = kind(end, name="net")
    model(np.zeros((2, 5), "float32"))
    return model


def around(end):
    model = Around(net(end), name="around")
    model(np.zeros((2, 5), "float32"))
    return model


def in_a_functional(end):
    inputs = keras.Input((5,))
    return keras.Model(inputs, layers.Dense(2)(net(end)(inputs)), name="outer")


def own_call(end):
    inputs = keras.Input((5,))
    return OwnCall(inputs, layers.Embedding(WORDS, WIDTH, name="embed")(inputs), name="net")


def tied(model, h, training):
    return ops.matmul(h, ops.transpose(model.embed.embeddings))


READ = {
    "tied embeddings": (net, tied, "'net/embed/embeddings'"),
    "tied embeddings in a nested model": (around, tied, "'[a-z/]*net/embed/embeddings'"),
    "tied embeddings in a functional model": (in_a_functional, tied, "'[a-z/]*net/embed/embeddings'"),
    "tied embeddings in a functional model's own call": (own_call, tied, "'embed/embeddings'"),
    "the model's own weight": (net, lambda m, h, training: h * ops.exp(m.scale), "'net/scale'"),
    "two weights": (
        net,
        lambda m, h, training: h * (m.scale + m.dense.bias),
        "'net/scale', 'net/dense/bias'|'net/dense/bias', 'net/scale'",
    ),
    "a statistic": (net, lambda m, h, training: h * ops.sqrt(m.norm.moving_variance), "'net/norm/moving_variance'"),
    "through NumPy": (net, lambda m, h, training: h + m.dense.bias.numpy(), "'net/dense/bias'"),
    "as a number": (net, lambda m, h, training: h + float(m.dense.bias[0]), "'net/dense/bias'"),
    "as a tensor": (net, lambda m, h, training: h + m.dense.bias.value, "'net/dense/bias'"),
    "in a condition": (net, lambda m, h, training: h if m.scale.numpy().mean() < 1.01 else -h, "'net/scale'"),
}


@pytest.mark.parametrize("name", READ)
def test_a_weight_that_is_read_as_a_value_is_refused_by_its_name(name):
    make, end, words = READ[name]
    model = make(end)
    before = [np.array(v) for v in model.variables]
    with pytest.raises(BridgeError, match=rf"reads the weight ({words}) as a value[\s\S]*ReversibleEmbedding[\s\S]*register_bridge"):
        to_tf_keras(model, inputs=keras.Input((5,)) if make is net else None)
    for a, b in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("step", [Prune(0.5, end_step=4), Cluster(4), QuantizeAware()], ids=lambda step: type(step).__name__)
def test_every_step_refuses_it_when_it_is_applied(step):
    with pytest.raises(BridgeError, match="'net/embed/embeddings' as a value"):
        step.apply(net(tied))


@keras.saving.register_keras_serializable("tests")
class Reads(layers.Layer):
    """Computes with a weight of a layer that it is given."""

    def __init__(self, dense, **kwargs):
        super().__init__(**kwargs)
        self.dense = dense

    def call(self, inputs):
        return ops.matmul(inputs, self.dense.kernel)

    def get_config(self):
        return {**super().get_config(), "dense": keras.saving.serialize_keras_object(self.dense)}

    @classmethod
    def from_config(cls, config):
        return cls(keras.saving.deserialize_keras_object(config.pop("dense")), **config)

    def build(self, input_shape):
        if not self.dense.built:
            self.dense.build(input_shape)


def read_by_a_layer():
    inputs = keras.Input((WIDTH,))
    dense = layers.Dense(WIDTH, name="dense")
    return keras.Model(inputs, Reads(dense, name="reads")(dense(inputs)), name="model")


def wrapped_and_not():
    inputs = keras.Input((5, WIDTH))
    dense = layers.Dense(WIDTH, name="dense")
    return keras.Model(inputs, layers.TimeDistributed(dense, name="each")(dense(inputs)), name="model")


def used_twice():
    variable = keras.Variable(np.ones(WIDTH, "float32"), name="offset")
    inputs = keras.Input((WIDTH,))
    return keras.Model(inputs, ops.multiply(ops.add(inputs, variable), variable), name="model")


COPIES = {
    "a layer's kernel in an operation": (
        lambda: net(lambda m, h, training: ops.matmul(h, m.dense.kernel)),
        "'net/dense/kernel' is used by 'net/dense' and 'net/matmul'",
    ),
    "a layer's bias in an operation": (lambda: net(lambda m, h, training: h + m.dense.bias), "'net/dense/bias' is used by"),
    "a layer's kernel in another layer": (read_by_a_layer, "'dense/kernel' is used by 'model/(dense|reads)' and 'model/(dense|reads)'"),
    "a layer that is wrapped too": (wrapped_and_not, "'dense/kernel' is used by 'model/(dense|each)' and 'model/(dense|each)'"),
    "a variable in two operations": (used_twice, "'offset' is used by 'model/add' and 'model/multiply'"),
}


@pytest.mark.parametrize("name", COPIES)
def test_a_weight_that_would_become_two_is_refused(name):
    make, words = COPIES[name]
    register_bridge(Reads, host)
    try:
        with pytest.raises(BridgeError, match=words):
            to_tf_keras(make())
    finally:
        convert_layers._REGISTERED.pop(Reads)


def counts(model, h, training):
    model.calls += 1
    return h * model.calls


MODES = {
    "a weight in training only": (lambda m, h, training: h * m.scale if training else h, "another graph in training mode: 'multiply'"),
    "a weight's value in training only": (lambda m, h, training: h * ops.exp(m.scale) if training else h, "another graph in training mode"),
    "a layer in training only": (lambda m, h, training: m.drop(h, training=True) if training else h, "'drop' .* the outputs at inference"),
    "a layer at inference only": (lambda m, h, training: h if training else m.drop(h), "the outputs there, where it is 'drop'"),
    "another number": (lambda m, h, training: h * (2.0 if training else 1.0), "another graph in training mode"),
    "another axis": (lambda m, h, training: ops.mean(h, axis=1 if training else 2), "another graph in training mode"),
    "another output": (lambda m, h, training: (h, m.drop(h)) if training else h, "another graph in training mode"),
    "training mode always": (lambda m, h, training: m.drop(h, training=True), "'drop' in training mode at inference"),
    "a mode without its name": (lambda m, h, training: m.drop(h, training), "keyword"),
    "a counter": (counts, "something else on data than on symbolic tensors"),
}


@pytest.mark.parametrize("name", MODES)
def test_a_call_that_is_another_one_in_training_is_refused(name):
    end, words = MODES[name]
    with pytest.raises(BridgeError, match=words):
        to_tf_keras(net(end))


@keras.saving.register_keras_serializable("tests")
class Tempered(layers.Layer):
    """The remedy: a layer that owns the weight."""

    def build(self, input_shape):
        self.scale = self.add_weight(name="scale", shape=(input_shape[-1],), initializer="ones")

    def call(self, inputs, training=None):
        return inputs * ops.exp(self.scale) * (2.0 if training else 1.0)


class Remedied(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense, self.tempered = layers.Dense(WIDTH, name="dense"), Tempered(name="tempered")

    def call(self, inputs, training=None):
        return self.tempered(self.dense(inputs), training=training)


class Tied(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.embed, self.dense = layers.ReversibleEmbedding(WORDS, WIDTH, name="embed"), layers.Dense(WIDTH, name="dense")

    def call(self, inputs):
        return self.embed(self.dense(self.embed(inputs)), reverse=True)


def built(model, shape):
    model(np.zeros(shape, "float32"))
    return model


CROSSES = {
    "random layers": lambda: net(lambda m, h, training: m.drop(m.drop(h, training=training), training=training)),
    "a variable that meets a tensor": lambda: net(lambda m, h, training: h * m.scale),
    "a call without the mode": lambda: net(lambda m, h, training: h, WithoutMode),
    "nested": lambda: around(lambda m, h, training: m.drop(h, training=training)),
    "the remedy for a value": lambda: built(Remedied(name="net"), (2, 5)),
    **({"the remedy for tied embeddings": lambda: built(Tied(name="net"), (2, 5))} if hasattr(layers, "ReversibleEmbedding") else {}),
}


@pytest.mark.parametrize("name", CROSSES)
def test_the_copy_depends_on_every_weight(name, rng):
    register_bridge(Tempered, host)
    try:
        model = CROSSES[name]()
        rebuilt = to_tf_keras(model)
    finally:
        convert_layers._REGISTERED.pop(Tempered)
    x = tokens(rng)
    assert len(rebuilt.trainable_weights) <= len(model.trainable_weights)
    for weight in rebuilt.trainable_weights:
        before, value = np.array(rebuilt(x)), weight.numpy()
        weight.assign(value + rng.normal(size=value.shape).astype("float32"))
        assert np.abs(np.array(rebuilt(x)) - before).max() > 0.0
        weight.assign(value)


def frozen(model, h, training):
    return model.drop(model.norm(h, training=False), training=training)


STEPS = {"bridge": None, "prune": Prune(0.5, schedule="constant", frequency=1), "cluster": Cluster(4), "quantize": QuantizeAware()}


@pytest.mark.parametrize("step", STEPS)
def test_a_layer_that_is_called_in_inference_mode_stays_in_it(step, rng):
    """The first call of the normalization follows the mode, the second does not: its statistics move once."""
    model, x = net(frozen), tokens(rng)
    applied = to_tf_keras(model) if step == "bridge" else STEPS[step].apply(model)
    moved = []
    for one in (model, applied):
        (mean,) = [v for v in one.variables if "moving_mean" in v.name]
        before = np.array(mean)
        one(x, training=True)
        moved.append(np.array(mean) - before)
    assert np.abs(moved[1]).max() > 0.0 or step == "quantize"  # before its first training step, it rounds all to zero
    if step in ("bridge", "prune"):
        np.testing.assert_allclose(moved[1], moved[0], atol=2e-2 if step == "prune" else 1e-6)


class Base(Net):
    """All of it is called in inference mode, as a base that only lends its features."""

    def call(self, inputs, training=None):
        return self.dense(self.drop(self.norm(self.embed(inputs), training=False), training=False))


@pytest.mark.parametrize("step", STEPS)
def test_a_base_in_inference_mode_stays_in_it(step, rng):
    model, x = net(None, Base), tokens(rng)
    applied = to_tf_keras(model) if step == "bridge" else STEPS[step].apply(model)
    before = [np.array(v) for v in applied.variables if "moving_" in v.name]
    np.testing.assert_allclose(applied(x, training=True), applied(x, training=True), atol=1e-5)
    assert len(before) == 2
    for a, b in zip(before, [v for v in applied.variables if "moving_" in v.name], strict=True):
        np.testing.assert_array_equal(a, b)


def test_random_layers_stay_random_in_training(rng):
    rebuilt, x = to_tf_keras(net(lambda m, h, training: m.drop(h, training=training))), tokens(rng)
    np.testing.assert_array_equal(rebuilt(x), rebuilt(x))
    assert (np.array(rebuilt(x, training=True)) == 0.0).any()


@keras.saving.register_keras_serializable("tests")
class Penalized(layers.Layer):
    """A layer with a penalty on its weight, one on its outputs, and one that its call adds."""

    def build(self, input_shape):
        self.scale = self.add_weight(name="scale", shape=(input_shape[-1],), initializer="ones", regularizer="l2")

    def call(self, inputs):
        self.add_loss(ops.mean(ops.square(inputs)))
        return inputs * self.scale


@pytest.mark.parametrize("activity", [None, "l2"])
def test_penalties_of_a_hosted_layer_are_carried_over(activity, rng):
    register_bridge(Penalized, host)
    try:
        inputs = keras.Input((4,))
        model = keras.Model(inputs, layers.Dense(2, name="head")(Penalized(activity_regularizer=activity, name="own")(inputs)))
        applied = Prune(0.5, schedule="constant", frequency=1).apply(model)
    finally:
        convert_layers._REGISTERED.pop(Penalized)
    x, y = rng.normal(size=(8, 4)).astype("float32"), np.zeros((8, 2), "float32")
    losses = []
    for one in (model, applied):
        one.compile(loss="mse")
        losses.append(one.evaluate(x, y, verbose=0) - float(np.mean(np.square(one(x)))))
    assert losses[0] > 0.04
    if activity and not DIVIDES_ACTIVITY_PENALTIES:
        losses[0] -= 0.01 * np.square(x).sum() * (1 - 1 / len(x))
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
