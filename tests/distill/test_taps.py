"""Taps: every place in every kind of model, under the names a user would try, without a trace left on the model."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from small import CLASSES, Subclassed, mlp

from tfdistill import named_layers
from tfdistill.distill import Tap, Taps
from tfdistill.errors import ModelError

X = np.random.default_rng(0).normal(size=(4, 6, 8)).astype("float32")


class Block(keras.layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.attention = keras.layers.MultiHeadAttention(2, 4)
        self.feed = [keras.layers.Dense(8, name=f"feed_{i}") for i in range(2)]

    def call(self, inputs):
        x = inputs + self.attention(inputs, inputs)
        for layer in self.feed:
            x = layer(x)
        return x


class Deep(keras.Model):
    def __init__(self):
        super().__init__()
        self.blocks = [Block(name="block_a"), Block(name="block_b")]
        self.head = keras.layers.Dense(CLASSES)

    def call(self, inputs, training=None):
        x = inputs
        for block in self.blocks:
            x = block(x)
        return self.head(x[:, 0])


def deep():
    model = Deep()
    model(X)
    return model


def nested():
    inputs = keras.Input((6, 8))
    inner = keras.Sequential([keras.Input((6, 8)), keras.layers.Dense(5, name="inside")], name="encoder")
    x = keras.layers.Flatten(name="flat")(inner(inputs))
    x = keras.ops.multiply(x, 2.0)
    return keras.Model(inputs, keras.layers.Dense(CLASSES, name="head")(x))


def sequential():
    return keras.Sequential([keras.Input((6, 8)), keras.layers.Dense(5, name="first"), keras.layers.Flatten(), keras.layers.Dense(CLASSES)])


# Kind of model: builder, path, shape, and how to compute the same by hand.
PLACES = {
    "functional": (nested, "flat", (4, 30), lambda m: m.get_layer("flat")(m.get_layer("encoder")(X))),
    "nested, whole path": (nested, "encoder/inside", (4, 6, 5), lambda m: m.get_layer("encoder").get_layer("inside")(X)),
    "nested, end of path": (nested, "inside", (4, 6, 5), lambda m: m.get_layer("encoder").get_layer("inside")(X)),
    "nested model itself": (nested, "encoder", (4, 6, 5), lambda m: m.get_layer("encoder")(X)),
    "sequential": (sequential, "first", (4, 6, 5), lambda m: m.get_layer("first")(X)),
    "subclassed, by name": (deep, "block_a/feed_1", (4, 6, 8), lambda m: m.blocks[0](X)),
    "subclassed, by attribute": (deep, "blocks/0/feed/1", (4, 6, 8), lambda m: m.blocks[0](X)),
    "subclassed, attribute of a layer": (deep, "blocks/1", (4, 6, 8), lambda m: m.blocks[1](m.blocks[0](X))),
}


@pytest.mark.parametrize("mode", ["eager", "traced"])
@pytest.mark.parametrize("place", PLACES)
def test_tap_reads_what_the_layer_returned(place, mode):
    build, path, shape, by_hand = PLACES[place]
    model = build()
    taps = Taps(model, [path])
    run = tf.function(taps) if mode == "traced" else taps
    outputs, features = run(X)
    assert features[Tap(path)].shape == shape
    np.testing.assert_allclose(features[Tap(path)], by_hand(model), atol=1e-6)
    np.testing.assert_allclose(outputs, model(X), atol=1e-6)
    assert taps.outputs == ["final_output", path]
    assert all("call" not in vars(layer) for layer in named_layers(model).values())


def test_operations_of_a_functional_model_can_be_tapped():
    model = nested()
    name = next(o.name for o in model.operations if o.name.startswith("multiply"))
    _, features = Taps(model, [name])(X)
    np.testing.assert_allclose(features[Tap(name)], 2.0 * model.get_layer("flat")(model.get_layer("encoder")(X)), atol=1e-6)


def test_attention_scores_in_the_same_pass_as_the_output():
    model = deep()
    scores, output = Tap("block_a/attention", "attention_scores"), Tap("block_a/attention")
    _, features = Taps(model, [scores, output])(X)
    expected_output, expected_scores = model.blocks[0].attention(X, X, return_attention_scores=True)
    np.testing.assert_allclose(features[scores], expected_scores, atol=1e-6)
    np.testing.assert_allclose(features[output], expected_output, atol=1e-6)
    np.testing.assert_allclose(np.sum(features[scores], -1), 1.0, atol=1e-5)


def test_one_call_of_a_layer_that_is_called_several_times():
    inputs = keras.Input((8,))
    shared = keras.layers.Dense(8, name="shared")
    model = keras.Model(inputs, shared(shared(inputs)))
    x = X[:, 0]
    _, features = Taps(model, ["shared@0", "shared@1"])(x)
    np.testing.assert_allclose(features[Tap("shared@0")], shared(x), atol=1e-6)
    np.testing.assert_allclose(features[Tap("shared@1")], shared(shared(x)), atol=1e-6)
    with pytest.raises(ModelError, match="called 2 times"):
        Taps(model, ["shared"])(x)
    with pytest.raises(ModelError, match="below 2"):
        Taps(model, ["shared@2"])(x)


def test_layers_inside_a_loop_are_refused():
    inputs = keras.Input((6, 8))
    model = keras.Model(inputs, keras.layers.RNN(keras.layers.GRUCell(4, name="cell"), name="rnn")(inputs))
    # The cell of a recurrent layer runs in a loop's own graph, from which nothing can be read outside.
    with pytest.raises(ModelError, match="inside a loop"):
        tf.function(Taps(model, ["rnn/cell"]), autograph=False)(X)


REFUSED = {
    "misspelt": (nested, "flatt", "'flat'"),
    "ambiguous": (deep, "attention", "block_a/attention"),
    "nothing near": (nested, "zzzzzz", "There are"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_name_that_is_none_or_several(case):
    build, path, words = REFUSED[case]
    with pytest.raises(ModelError) as caught:
        Taps(build(), [path], "student")
    assert words in str(caught.value)
    assert "student" in str(caught.value)


def test_scores_of_a_layer_without_attention_are_refused():
    with pytest.raises(ModelError, match="attention"):
        Taps(mlp(8), [Tap("hidden_0", "attention_scores")])


def test_two_models_of_one_class_do_not_disturb_each_other():
    models = [Subclassed(), Subclassed()]
    x = X[:, 0]
    for model in models:
        model(x)
    outer = Taps(models[0], ["body"])

    class Both(keras.Model):
        def call(self, inputs, training=None):
            # The second model is tapped while the first is: each hears its own layers only.
            _, inside = Taps(models[1], ["body"])(inputs)
            return models[0](inputs) + 0.0 * keras.ops.sum(inside[Tap("body")])

    _, features = outer(x)
    Both()(x)
    np.testing.assert_allclose(features[Tap("body")], models[0].body(x), atol=1e-6)


def test_the_hooks_are_taken_off_when_the_model_fails():
    model = mlp(8)
    with pytest.raises(ValueError, match="shape"):
        Taps(model, ["hidden_0"])(np.zeros((2, 3), "float32"))
    assert "call" not in vars(model.get_layer("hidden_0"))
