"""Recurrent tf_keras layers compute their steps alone where there is no GPU, and have their marks while a file is made."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfdistill import export_tflite
from tfdistill.bridge import adopt, check_parity, to_tf_keras
from tfdistill.bridge.imports import tf_keras
from tfdistill.bridge.recurrent_kernels import copy_layer, is_standard_lstm, leave_out_cudnn, marked_for_the_converter
from tfdistill.compress import Cluster
from tfdistill.graph.layers import all_layers

SETTINGS = [({}, True), ({"activation": "relu"}, False), ({"recurrent_dropout": 0.5}, False)]


@pytest.mark.parametrize(("settings", "standard"), SETTINGS)
def test_a_standard_lstm_stays_one(settings, standard):
    layer = tf_keras().layers.LSTM(2, **settings)
    assert is_standard_lstm(layer) is standard
    leave_out_cudnn(layer)
    assert is_standard_lstm(layer) is is_standard_lstm(copy_layer(layer)) is standard


def functions_of(layer, training=True):
    """Names of the functions that a call puts into a graph: cuDNN's computation is one of them."""
    graph = tf.function(lambda x: layer(x, training=training)).get_concrete_function(tf.TensorSpec((2, 3, 4))).graph
    return [function.signature.name for function in graph.as_graph_def().library.function]


@pytest.mark.parametrize("make", [lambda L: L.LSTM(2), lambda L: L.GRU(2), lambda L: L.Bidirectional(L.GRU(2))])
def test_a_graph_has_the_steps_alone(make):
    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype("float32")
    layer = make(tf_keras().layers)
    expected = layer(x)
    assert any("gpu" in name for name in functions_of(layer))
    copied = copy_layer(layer)
    copied.build((None, 3, 4))
    copied.set_weights(layer.get_weights())
    assert not any("gpu" in name for name in functions_of(copied))
    np.testing.assert_array_equal(copied(x), expected)
    with marked_for_the_converter():
        assert any("gpu" in name for name in functions_of(copied))
    assert not any("gpu" in name for name in functions_of(copied))


def test_what_the_bridge_makes_and_loads_has_the_steps_alone(tmp_path):
    inputs = keras.Input((5, 4))
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.LSTM(3)(inputs)))
    made = Cluster(2).apply(model)
    made.save(tmp_path / "made.keras")
    for legacy in (to_tf_keras(model), made.legacy, keras.models.load_model(tmp_path / "made.keras").legacy):
        (layer,) = [one for one in all_layers(legacy) if isinstance(one, tf_keras().layers.LSTM)]
        assert not layer._could_use_gpu_kernel
        assert is_standard_lstm(layer)
    # TFLite has one operation for the marked layer.
    record = export_tflite(adopt(to_tf_keras(model)), tmp_path / "made.tflite")
    assert "UNIDIRECTIONAL_SEQUENCE_LSTM" in {op.name for op in record.census.ops}


STATEFUL = {
    "SimpleRNN": lambda L: L.SimpleRNN(4, stateful=True),
    "GRU": lambda L: L.GRU(4, stateful=True),
    "LSTM": lambda L: L.LSTM(4, stateful=True, return_sequences=True),
    "both directions": lambda L: L.Bidirectional(L.GRU(4, stateful=True)),
}


@pytest.mark.parametrize("name", STATEFUL)
def test_a_layer_that_carries_its_state_on_is_bridged_and_keeps_it(name):
    inputs = keras.Input(batch_shape=(2, 5, 3))
    model = keras.Model(inputs, keras.layers.Dense(2)(STATEFUL[name](keras.layers)(inputs)))
    rng = np.random.default_rng(0)
    first, *others = (rng.normal(size=(2, 5, 3)).astype("float32") for _ in range(3))
    copy = to_tf_keras(model)  # which compares every layer more than once
    for x in (first, *others):
        np.testing.assert_allclose(copy(x), model(x), atol=1e-6)
    check_parity(model, copy)  # amid a sequence
    for x in others:
        found = np.asarray(model(x))
        np.testing.assert_allclose(copy(x), found, atol=1e-6)
    model.layers[1].reset_state()
    assert np.abs(np.asarray(model(others[-1])) - found).max() > 1e-3  # it does depend on what came before
