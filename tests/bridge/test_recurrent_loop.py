"""A recurrent layer that trains quantized computes the same in a loop, as graphs of training do, as with every step written out, as files and eager calls do."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from tfdistill.bridge import imports
from tfdistill.bridge.wrappers.quantization import quantize_layer
from tfdistill.bridge.wrappers.quantization_settings import Quantization, QuantizedWeight

STEPS, FEATURES, BATCH = 4, 3, 4
KERNELS = (QuantizedWeight("cell.kernel", 8), QuantizedWeight("cell.recurrent_kernel", 8))


def both(make, **settings):
    layers = imports.tf_keras().layers
    return lambda: layers.Bidirectional(make(layers), **settings)


# Layer -> (function that makes it, weights that are rounded).
LAYERS = {
    "GRU": (lambda: imports.tf_keras().layers.GRU(4, return_sequences=True), KERNELS),
    "GRU, reset before": (lambda: imports.tf_keras().layers.GRU(4, reset_after=False), KERNELS),
    "LSTM": (lambda: imports.tf_keras().layers.LSTM(4), KERNELS),
    "LSTM of other activations": (lambda: imports.tf_keras().layers.LSTM(4, activation="elu", use_bias=False), KERNELS),
    "GRU of a function of its own": (lambda: imports.tf_keras().layers.GRU(4, activation=lambda x: x * tf.sigmoid(1.3 * x)), KERNELS),
    "SimpleRNN of one that stacks": (
        lambda: imports.tf_keras().layers.SimpleRNN(4, activation=lambda x: tf.reduce_sum(tf.stack([tf.tanh(x), 0.5 * x]), 0)),
        KERNELS,
    ),
    "LSTM that gives its states": (lambda: imports.tf_keras().layers.LSTM(4, return_sequences=True, return_state=True), KERNELS),
    "LSTM backwards": (lambda: imports.tf_keras().layers.LSTM(4, go_backwards=True, return_sequences=True), KERNELS),
    "SimpleRNN": (lambda: imports.tf_keras().layers.SimpleRNN(4, return_state=True), KERNELS),
    "SimpleRNN of one step": (lambda: imports.tf_keras().layers.SimpleRNN(4, activation="relu"), KERNELS),
    "cells": (
        lambda: imports.tf_keras().layers.RNN(
            [imports.tf_keras().layers.LSTMCell(4), imports.tf_keras().layers.GRUCell(3)], return_sequences=True, return_state=True
        ),
        (),
    ),
    "both directions": (both(lambda layers: layers.GRU(4, return_sequences=True)), ()),
    "both directions, added": (both(lambda layers: layers.LSTM(4), merge_mode="sum"), ()),
    "zeros where masked": (lambda: imports.tf_keras().layers.GRU(4, return_sequences=True, zero_output_for_mask=True), KERNELS),
}
MASKED = ("GRU", "LSTM", "LSTM backwards", "cells", "both directions", "zeros where masked")
ROWS = [(name, False) for name in LAYERS] + [(name, True) for name in MASKED]
FAST = (("LSTM", False), ("GRU", True))


@pytest.fixture
def unoptimized():
    """Graphs that are run as they are traced: here, optimizing them takes longer than running them."""
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    yield
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": False})


@pytest.mark.parametrize(("name", "masked"), [row if row in FAST else pytest.param(*row, marks=pytest.mark.slow) for row in ROWS])
def test_a_loop_computes_what_steps_written_out_compute(name, masked, unoptimized):
    tf.keras.utils.set_random_seed(0)
    make, weights = LAYERS[name]
    steps = 1 if name.endswith("one step") else STEPS
    wrapper = quantize_layer(make(), Quantization(weights, output=False, form="recurrent"))
    rng = np.random.default_rng(0)
    mask = {"mask": tf.constant(rng.uniform(size=(BATCH, steps)) > 0.4)} if masked else {}
    wrapper(tf.zeros((BATCH, steps, FEATURES)), **mask)

    def compute(x, training):
        with tf.GradientTape() as tape:
            outputs = tf.nest.flatten(wrapper(x, training=training, **mask))
            loss = tf.add_n([tf.reduce_sum(tf.sin(3.0 * y)) for y in outputs])
        return outputs, tape.gradient(loss, wrapper.trainable_variables) if training else []

    signature = [tf.TensorSpec((None, steps, FEATURES))]
    graphs = {
        training: tf.function(functools.partial(compute, training=training), input_signature=signature, autograph=False)
        for training in (True, False)
    }
    # Ranges are known from the second batch on.
    for training in (True, True, False):
        x = tf.constant(rng.normal(size=(BATCH, steps, FEATURES)) * 2.0, tf.float32)
        before = [variable.numpy() for variable in wrapper.variables]
        outputs, gradients = compute(x, training)
        after = [variable.numpy() for variable in wrapper.variables]
        for variable, value in zip(wrapper.variables, before, strict=True):
            variable.assign(value)
        looped, others = graphs[training](x)
        ranges = [variable.numpy() for variable in wrapper.variables]
        assert any((a != b).any() for a, b in zip(before, ranges, strict=True)) == training
        for one, other in zip((*outputs, *after), (*looped, *ranges), strict=True):
            np.testing.assert_array_equal(other, one)
        for one, other in zip(gradients, others, strict=True):
            np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-5)


def test_the_graph_of_training_is_as_large_for_many_steps_as_for_few():
    def operations(steps):
        wrapper = quantize_layer(imports.tf_keras().layers.SimpleRNN(4), Quantization(KERNELS, output=False, form="recurrent"))
        function = tf.function(lambda x: wrapper(x, training=True), autograph=False)
        graph = function.get_concrete_function(tf.TensorSpec((None, steps, FEATURES))).graph.as_graph_def()
        return len(graph.node) + sum(len(f.node_def) for f in graph.library.function)

    assert operations(3) == operations(40) < 600


def test_dropout_leaves_out_the_same_inputs_in_all_steps():
    tf.keras.utils.set_random_seed(0)
    layer = imports.tf_keras().layers.SimpleRNN(
        8, "linear", kernel_initializer="identity", recurrent_initializer="zeros", return_sequences=True, dropout=0.5
    )
    wrapper = quantize_layer(layer, Quantization(output=False, form="recurrent"))
    function = tf.function(lambda x: wrapper(x, training=True), autograph=False)
    ones = tf.ones((BATCH, STEPS, 8))
    first, second = function(ones).numpy(), function(ones).numpy()
    assert 0 < (first == 0).mean() < 1
    np.testing.assert_array_equal(first, np.repeat(first[:, :1], STEPS, 1))
    assert (first != second).any()
