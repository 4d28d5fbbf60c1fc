"""Inputs of subclassed models that are indices, which Keras keeps no record of, are found by what reads them."""

import keras
import numpy as np
import pytest

from tfdistill.graph.tracing import open_model

layers, ops = keras.layers, keras.ops


class TokenAndPosition(layers.Layer):
    """Vectors of tokens and of their places, in a layer of the user's own."""

    def __init__(self, mask_zero=False, shift=0):
        super().__init__()
        self.shift = shift
        self.token, self.place = layers.Embedding(10, 4, mask_zero=mask_zero), layers.Embedding(6, 4)

    def call(self, x):
        tokens = x + self.shift if self.shift else x
        return self.token(tokens) + self.place(ops.arange(ops.shape(x)[-1]))


class Subclassed(keras.Model):
    """A model whose `call` is a function of its layers and its input."""

    def __init__(self, parts, compute):
        super().__init__()
        self.parts, self.compute = parts, compute

    def call(self, inputs):
        return self.compute(self.parts, inputs)


def in_turn(parts, x):
    for part in parts:
        x = part(x)
    return x


def nested(*parts):
    return keras.Sequential([keras.Input((6,)), *parts])


# Name -> (makes the layers, computes with them, whether the input is of indices).
MODELS = {
    "in a layer": (lambda: [TokenAndPosition()], in_turn, True),
    "in a layer with a mask": (lambda: [TokenAndPosition(mask_zero=True)], in_turn, True),
    "in two layers deep": (lambda: [nested(TokenAndPosition())], in_turn, True),
    "in a nested model": (lambda: [nested(layers.Reshape((2, 3)), layers.Embedding(10, 4))], in_turn, True),
    "in a layer that computes with them": (lambda: [TokenAndPosition(shift=1)], in_turn, False),
    "looked up and computed with": (lambda: [layers.Embedding(10, 4)], lambda parts, x: parts[0](x) * x[..., None], False),
    "in a nested model that computes": (lambda: [nested(layers.Dense(4))], in_turn, False),
    "compared alone": (lambda: [layers.Dense(4)], lambda parts, x: parts[0](ops.cast(x != 0, "float32")), False),
}


@pytest.mark.parametrize("name", MODELS)
def test_what_lookups_alone_read_is_of_indices(name):
    parts, compute, indices = MODELS[name]
    model = Subclassed(parts(), compute)
    model(np.zeros((2, 6), "int32" if indices else "float32"))
    assert [keras.backend.standardize_dtype(x.dtype) for x in open_model(model).inputs] == ["int32" if indices else "float32"]
