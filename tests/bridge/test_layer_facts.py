"""What Keras and tf_keras keep in private attributes: each function still finds it, on models where the answer is known."""

import keras
import pytest

from tfdistill.bridge import imports, layer_facts
from tfdistill.graph.layers import all_layers


@pytest.fixture(scope="module")
def tfk():
    return imports.tf_keras()


@pytest.fixture(scope="module")
def nested(tfk):
    """A tf_keras model with a nested one, an Embedding that masks, and an LSTM behind it."""
    inner = tfk.Sequential([tfk.Input((4, 3)), tfk.layers.LSTM(2, name="lstm")], name="inner")
    inputs = tfk.Input((4,), name="tokens")
    embedded = tfk.layers.Embedding(5, 3, mask_zero=True, name="embedding")(inputs)
    return tfk.Model(inputs, tfk.layers.Dense(2, name="logits")(inner(embedded)), name="outer")


def test_all_layers_are_found_in_both_kinds_of_model(nested):
    inner = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="dense")], name="inner")
    inputs = keras.Input((3,))
    outer = keras.Model(inputs, keras.layers.Activation("relu", name="relu")(inner(inputs)), name="outer")
    assert {"outer", "inner", "dense", "relu"} <= {layer.name for layer in all_layers(outer)}
    assert {"outer", "inner", "embedding", "lstm", "logits"} <= {layer.name for layer in all_layers(nested)}


def test_a_functional_model_is_told_from_a_subclassed_one(tfk, nested):
    class Subclassed(tfk.Model):
        def call(self, inputs):
            return inputs

    assert layer_facts.is_graph_network(nested)
    assert layer_facts.is_graph_network(tfk.Sequential([tfk.Input((3,)), tfk.layers.Dense(2)]))
    assert not layer_facts.is_graph_network(Subclassed())


def test_nodes_and_producers(nested):
    nodes = layer_facts.graph_nodes(nested)
    assert [node.layer.name for node in nodes if node.is_input] == ["tokens"]
    assert {node.layer.name for node in nodes if not node.is_input} == {"embedding", "inner", "logits"}
    assert layer_facts.producer(nested.outputs[0]).name == "logits"
    assert layer_facts.producer(nested.inputs[0]).name == "tokens"


def test_masks_travel_with_tensors(nested):
    found = {node.layer.name: layer_facts.carries_mask(node.outputs) for node in layer_facts.graph_nodes(nested)}
    assert found["embedding"]
    assert not found["tokens"]


class OwnStep(keras.Model):
    def train_step(self, data):
        return {}


class OwnConfig(keras.Model):
    def get_config(self):
        return {"name": self.name}


class OwnConstructor(keras.Model):
    def __init__(self, **kwargs):
        inputs = keras.Input((3,))
        super().__init__(inputs, keras.layers.Dense(2)(inputs), **kwargs)


class OwnCall(keras.Model):
    def call(self, inputs):
        return inputs


class Subclassed(keras.Model):
    def call(self, inputs):
        return inputs


def functional(kind):
    inputs = keras.Input((3,))
    return kind(inputs, keras.layers.Dense(2)(inputs))


@pytest.mark.parametrize(
    ("make", "remade"),
    [
        (lambda: functional(keras.Model), True),
        (lambda: keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]), True),
        (lambda: functional(OwnStep), True),
        (lambda: functional(OwnConfig), False),
        (OwnConstructor, False),
        (lambda: functional(OwnCall), False),
        (Subclassed, False),
    ],
    ids=["functional", "Sequential", "train_step", "get_config", "constructor", "functional with call", "subclassed"],
)
def test_who_makes_a_model_again(make, remade):
    model = make()
    assert layer_facts.is_remade_from_graph(model) is remade
    if remade:
        again = type(model).from_config(model.get_config())
        assert [layer.name for layer in again.layers] == [layer.name for layer in model.layers]


@pytest.mark.parametrize(("axis", "kept"), [(-1, [2]), (None, []), (1, [1])])
def test_standardized_axes(tfk, axis, kept):
    layer = tfk.layers.Normalization(axis=axis, mean=0.0, variance=1.0)
    layer.build((None, 4, 3))
    assert layer_facts.standardized_axes(layer) == kept
