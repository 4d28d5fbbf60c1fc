"""Layers computed the way an integer file computes them: without rounding, the output is that of the layer itself."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tfdistill.bridge.wrappers.quantization import is_quantized_layer
from tfdistill.compress import rebuild
from tfdistill.compress.quantize.build import build
from tfdistill.compress.quantize.consumers import places
from tfdistill.compress.quantize.scheme import layer_quantizations

STEPS = 7


def tokens(*stack):
    """Layers on embedded tokens, the last of which are padding."""
    inputs = keras.Input((STEPS,), dtype="int32")
    x = layers.Embedding(20, 6, mask_zero=True)(inputs)
    for layer in stack:
        x = layer(x)
    return keras.Model(inputs, x)


def signal(*stack, mask_value=None):
    """Layers on a signal, the last steps of which are hidden if there is a value for that."""
    inputs = keras.Input((STEPS, 4))
    x = inputs if mask_value is None else layers.Masking(mask_value)(inputs)
    for layer in stack:
        x = layer(x)
    return keras.Model(inputs, x)


def attending(layer, mask_value=None, **settings):
    inputs = keras.Input((STEPS, 4))
    x = inputs if mask_value is None else layers.Masking(mask_value)(inputs)
    return keras.Model(inputs, layer(x, x, **settings))


def merging(layer, several=lambda x: [x, layers.Conv1D(4, 1)(x), layers.Conv1D(4, 3, padding="same")(x)]):
    inputs = keras.Input((STEPS, 4))
    return keras.Model(inputs, layer(several(inputs)))


def translator():
    inputs = keras.Input((STEPS, 4))
    _, *states = layers.LSTM(5, return_state=True, unroll=True)(inputs)
    return keras.Model(inputs, layers.LSTM(5, return_sequences=True, unroll=True)(inputs, initial_state=states))


MODELS = {
    "LSTM": lambda: signal(layers.LSTM(5, unroll=True)),
    "LSTM masked": lambda: tokens(layers.LSTM(5, return_sequences=True)),
    "LSTM backwards masked": lambda: tokens(layers.LSTM(5, go_backwards=True, return_sequences=True)),
    "LSTM hard": lambda: signal(layers.LSTM(5, recurrent_activation="hard_sigmoid", activation="elu")),
    "LSTM without bias": lambda: signal(layers.LSTM(5, use_bias=False, dropout=0.2, recurrent_dropout=0.1)),
    "LSTM states": translator,
    "GRU": lambda: signal(layers.GRU(5, return_sequences=True)),
    "GRU masked": lambda: tokens(layers.GRU(5)),
    "GRU before": lambda: tokens(layers.GRU(5, reset_after=False)),
    "GRU without bias": lambda: signal(layers.GRU(5, use_bias=False)),
    "SimpleRNN": lambda: tokens(layers.SimpleRNN(5)),
    "SimpleRNN linear": lambda: signal(layers.SimpleRNN(5, activation=None)),
    "cells": lambda: tokens(layers.RNN([layers.LSTMCell(4), layers.GRUCell(3)], return_sequences=True)),
    "Bidirectional": lambda: tokens(layers.Bidirectional(layers.GRU(4, return_sequences=True))),
    "Bidirectional sum": lambda: signal(layers.Bidirectional(layers.LSTM(4, unroll=True), merge_mode="sum")),
    "Bidirectional two kinds": lambda: tokens(layers.Bidirectional(layers.LSTM(4), backward_layer=layers.GRU(4, go_backwards=True))),
    "masked average": lambda: tokens(layers.GlobalAveragePooling1D()),
    "masked average kept": lambda: tokens(layers.GlobalAveragePooling1D(keepdims=True)),
    "Masking": lambda: signal(layers.GlobalAveragePooling1D(), mask_value=0.0),
    "Masking by another value": lambda: signal(layers.GRU(4), mask_value=-1.0),
    "average": lambda: signal(layers.GlobalAveragePooling1D()),
    "grouped attention": lambda: attending(layers.GroupQueryAttention(4, 4, 2), mask_value=0.0),
    "grouped attention causal": lambda: attending(layers.GroupQueryAttention(4, 2, 1), use_causal_mask=True),
    "attention causal": lambda: attending(layers.MultiHeadAttention(2, 4), use_causal_mask=True),
    "attention masked": lambda: attending(layers.MultiHeadAttention(2, 4), mask_value=0.0),
    "Add of three": lambda: merging(layers.Add()),
    "Multiply of three": lambda: merging(layers.Multiply()),
    "Average of three": lambda: merging(layers.Average()),
    "Add that broadcasts": lambda: merging(layers.Add(), several=lambda x: [x, x[:, :1], x[..., :1]]),
    "Add of several ranks": lambda: merging(layers.Add(), several=lambda x: [x, layers.GlobalAveragePooling1D()(x), x]),
    "three forms": lambda: signal(
        layers.Conv1D(6, 1), layers.LayerNormalization(), layers.SeparableConv1D(5, 3, activation="hard_sigmoid")
    ),
}


ODD = {
    "RMSNormalization": lambda: signal(layers.Conv1D(6, 1), layers.RMSNormalization()),
    "RMSNormalization over two axes": lambda: signal(layers.RMSNormalization(axis=[1, 2])),
    "UnitNormalization": lambda: signal(layers.Conv1D(6, 1), layers.UnitNormalization()),
    "UnitNormalization over two axes": lambda: signal(layers.UnitNormalization(axis=[1, 2])),
    "LayerNormalization": lambda: signal(layers.LayerNormalization()),
    "LayerNormalization over two axes": lambda: signal(layers.LayerNormalization(axis=[1, 2])),
    "LayerNormalization over steps": lambda: signal(layers.LayerNormalization(axis=1)),
    "LayerNormalization without scale": lambda: signal(layers.LayerNormalization(scale=False)),
    "GroupNormalization": lambda: signal(layers.GroupNormalization(2)),
    "GroupNormalization over steps": lambda: signal(layers.GroupNormalization(7, axis=1)),
    "BatchNormalization": lambda: signal(layers.BatchNormalization()),
    "BatchNormalization over steps": lambda: signal(layers.BatchNormalization(axis=1, center=False)),
    "Normalization": lambda: signal(layers.Normalization(mean=[0.1, 0.2, 0.3, 0.4], variance=[1.0, 2.0, 3.0, 4.0])),
    "Normalization by one number": lambda: signal(layers.Normalization(axis=None, mean=0.5, variance=4.0, invert=True)),
    "Rescaling": lambda: signal(layers.Rescaling(0.5, 1.0), layers.ReLU()),
    "Rescaling folded": lambda: signal(layers.Rescaling(0.5, 1.0), layers.Conv1D(6, 3)),
    "ELU": lambda: signal(layers.ELU(0.7)),
    "ReLU of a slope": lambda: signal(layers.ReLU(negative_slope=0.2)),
    "ReLU to 2": lambda: signal(layers.ReLU(max_value=0.5)),
    "ReLU of all": lambda: signal(layers.ReLU(max_value=0.5, negative_slope=0.2, threshold=0.1)),
    "activation": lambda: signal(layers.Activation("mish")),
    "activation of the user's": lambda: signal(layers.Activation(bell)),
}


def bell(x):
    return 0.5 * keras.ops.tanh(x) - keras.ops.exp(-keras.ops.abs(x))


def padded(model, seed=0):
    rng = np.random.default_rng(seed)
    if model.input_shape == (None, STEPS):
        x, hidden = rng.integers(1, 20, (16, STEPS)).astype("int32"), 0
    else:
        x = rng.normal(size=(16, STEPS, 4)).astype("float32")
        hidden = getattr(model.layers[1], "mask_value", 0.0)
    for i, row in enumerate(x):
        row[2 + i % (STEPS - 1) :] = hidden
    return x


# Keras warns so of its own GroupQueryAttention.
@pytest.mark.filterwarnings("ignore:[^$]*was passed an input with a mask:UserWarning")
@pytest.mark.parametrize("name", MODELS)
def test_a_form_computes_what_the_layer_does(name):
    keras.utils.set_random_seed(0)
    model = MODELS[name]()
    for weight in model.trainable_weights:
        weight.assign(np.random.default_rng(1).normal(size=weight.shape) * 0.5)  # biases too
    opened = rebuild.open_model(model)
    # All layers left out: their forms are computed, and nothing is rounded.
    made = build(opened, layer_quantizations(places(opened.legacy), chosen=set(), bits={}), quantize_inputs=False)
    assert any(is_quantized_layer(layer) and layer.quantization.form for layer in made._flatten_layers())
    x = padded(model)
    np.testing.assert_allclose(made(x, training=False), model(x, training=False), atol=2e-5)


@pytest.mark.parametrize("name", ODD)
def test_a_form_has_the_gradient_of_the_layer(name):
    keras.utils.set_random_seed(0)
    model = ODD[name]()
    for weight in model.trainable_weights:
        weight.assign(np.random.default_rng(1).normal(size=weight.shape) * 0.5 + 1.0)
    opened = rebuild.open_model(model)
    made = build(opened, layer_quantizations(places(opened.legacy), chosen=set(), bits={}), quantize_inputs=False)
    assert any(is_quantized_layer(layer) and layer.quantization.form for layer in made._flatten_layers())
    x = tf.constant(np.random.default_rng(0).normal(size=(16, STEPS, 4)).astype("float32"))
    found = []
    for function in (made, model):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x, training=False)
            total = tf.reduce_sum(y * np.random.default_rng(2).normal(size=y.shape).astype("float32"))
        found.append((y, tape.gradient(total, x)))
    np.testing.assert_allclose(found[0][0], found[1][0], atol=2e-5)
    np.testing.assert_allclose(found[0][1], found[1][1], atol=2e-4)
