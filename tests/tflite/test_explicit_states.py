"""States as inputs and outputs of the file: call by call the file computes what the stateful model does, by copying bytes."""

import functools
import pathlib
import tempfile

import keras
import numpy as np
import pytest

import tfdistill
from tfdistill.bridge.imports import tf_keras
from tfdistill.errors import ConfigurationError, ModelError, TfdistillError, VerificationError
from tfdistill.graph.explicit_states import explicit_states
from tfdistill.runtime.interpreter import open_file
from tfdistill.tflite import Tolerances, export_tflite, verify

L, ops = keras.layers, keras.ops
CALLS, STEPS = 40, 3
X = np.random.default_rng(0).normal(size=(CALLS, STEPS, 4)).astype("float32")


@keras.saving.register_keras_serializable(package="test_explicit_states")
class Ring(L.Layer):
    """Keeps the last two rows of its input for the next call, as a streaming convolution needs them."""

    def __init__(self, first=0.0, **kwargs):
        super().__init__(**kwargs)
        self.first = first

    def build(self, shape):
        self.past = self.add_weight(
            (shape[0], 2, shape[-1]), initializer=keras.initializers.Constant(self.first), trainable=False, name="past"
        )
        self.built = True

    def reset_state(self):
        self.past.assign(ops.full_like(self.past, self.first))

    def call(self, x):
        rows = ops.concatenate([self.past, x], 1)
        self.past.assign(rows[:, -2:])
        return rows


@keras.saving.register_keras_serializable(package="test_explicit_states")
class Slope(Ring):
    def reset_state(self):
        self.past.assign(ops.reshape(ops.arange(ops.size(self.past), dtype="float32"), self.past.shape))


def recurrent(layer, batch=1):
    frames = keras.Input(batch_shape=(batch, STEPS, 4), name="frames")
    x = layer(L.Dense(4, activation="tanh", name="before")(frames))
    return keras.Model(frames, L.Dense(2, name="scores")(x), name="net")


def convolution(batch=1, ring=Ring, **settings):
    frames = keras.Input(batch_shape=(batch, STEPS, 4), name="frames")
    x = L.Flatten()(L.Conv1D(5, 3, activation="relu", name="conv")(ring(name="ring", **settings)(frames)))
    return keras.Model(frames, L.Dense(2, name="scores")(x), name="net")


def nested(batch=1):
    frames = keras.Input(batch_shape=(batch, STEPS, 4), name="frames")
    core = recurrent(L.LSTM(5, stateful=True, return_sequences=True, name="lstm"), batch)
    x = L.GRU(3, stateful=True, name="gru")(core(frames))
    return keras.Model({"frames": frames}, {"scores": L.Dense(2, name="head")(x), "again": x}, name="net")


def called_twice(batch=1):
    frames = keras.Input(batch_shape=(batch, STEPS, 4), name="frames")
    gru = L.GRU(4, stateful=True, return_sequences=True, name="gru")
    return keras.Model(frames, L.Dense(2, name="scores")(L.Flatten()(gru(gru(frames)))), name="net")


def stacked(batch=1):
    return recurrent(L.RNN([L.LSTMCell(3), L.GRUCell(4)], stateful=True, name="stack"), batch)


# Model of a batch -> the names of its states, in their order.
MODELS = {
    "LSTM": (lambda batch=1: recurrent(L.LSTM(5, stateful=True, name="rnn"), batch), ["rnn_h", "rnn_c"]),
    "GRU": (lambda batch=1: recurrent(L.GRU(5, stateful=True, name="rnn"), batch), ["rnn_h"]),
    "SimpleRNN": (lambda batch=1: recurrent(L.SimpleRNN(5, stateful=True, name="rnn"), batch), ["rnn_h"]),
    "both directions": (
        lambda batch=1: recurrent(L.Bidirectional(L.GRU(3, stateful=True), name="both"), batch),
        ["both_state_0", "both_state_1"],
    ),
    "stacked cells": (stacked, ["stack_state_0", "stack_state_1", "stack_state_2"]),
    "nested": (nested, ["net_lstm_h", "net_lstm_c", "gru_h"]),
    "called twice": (called_twice, ["gru_h"]),
    "convolution": (convolution, ["ring_state_0"]),
}


@functools.cache
def model(name):
    keras.utils.set_random_seed(1)
    return MODELS[name][0]()


@functools.cache
def exported(name, variant="float32", **arguments):
    path = pathlib.Path(tempfile.mkdtemp()) / "m.tflite"
    calibration = X if variant in ("int8", "int16x8") else None
    return export_tflite(model(name), path, variant, calibration, X, states="explicit", tolerances=Tolerances(), **arguments)


def by_hand(record, samples):
    """Runs a file as firmware does: by positions, from the first numbers of the record, copying bytes."""
    interpreter = open_file(record.path).interpreter
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    states = {s.input_index: np.full(s.shape, s.first, s.dtype) for s in record.states}
    taken = {s.input_index: s.output_index for s in record.states}
    (frames,) = [i for i in range(len(inputs)) if i not in taken]
    (scores,) = [i for i, tensor in enumerate(record.outputs) if tensor.name == "scores"]
    rows = []
    for sample in samples:
        scale, zero = inputs[frames]["quantization"]
        x = np.clip(np.round(sample / scale) + zero, -128, 127).astype("int8") if scale else sample
        for index, value in {frames: x[None], **states}.items():
            interpreter.set_tensor(inputs[index]["index"], value)
        interpreter.invoke()
        states = {into: interpreter.get_tensor(outputs[out]["index"]) for into, out in taken.items()}
        scale, zero = outputs[scores]["quantization"]
        found = interpreter.get_tensor(outputs[scores]["index"])[0]
        rows.append((found.astype("float32") - zero) * scale if scale else found)
    return np.array(rows)


def called(stateful, x):
    return stateful({"frames": x} if isinstance(stateful.input, dict) else x)


def calls_of(stateful, samples):
    """What a stateful model gives call by call, from its first state."""
    for layer in stateful._flatten_layers():
        if hasattr(layer, "reset_state") and not isinstance(layer, keras.Model) and getattr(layer, "stateful", True):
            for state in keras.tree.flatten(getattr(layer, "states", None) or layer.non_trainable_variables):
                state.assign(ops.zeros_like(state))
    found = [called(stateful, sample[None]) for sample in samples]
    return np.array([np.asarray(x["scores"] if isinstance(x, dict) else x)[0] for x in found])


@pytest.mark.parametrize("name", MODELS)
def test_the_model_with_explicit_states_computes_the_calls_of_the_stateful_one(name):
    """Also for a stateful model that was built for a larger batch, but for layers of the user's own."""
    keras.utils.set_random_seed(1)
    stateful = MODELS[name][0](1 if name == "convolution" else 3)
    explicit = explicit_states(stateful, 1)
    assert [state.name for state in explicit.states] == MODELS[name][1]
    states = [np.zeros((1, *state.shape), "float32") for state in explicit.states]
    for sample in X[:4]:
        expected = called(stateful, np.repeat(sample[None], stateful.inputs[0].shape[0], 0))
        given = [ops.convert_to_tensor(x) for x in (sample[None], *states)]
        named = dict(zip(["frames", *(state.name for state in explicit.states)], given, strict=True))
        outputs = explicit.model(named if name == "nested" else given)
        if name == "nested":
            states = [outputs[state.output] for state in explicit.states]
            outputs, expected = [outputs["scores"]], expected["scores"]
        else:
            states = outputs[1:]
        np.testing.assert_allclose(outputs[0], np.asarray(expected)[:1], atol=1e-5)


@pytest.mark.parametrize(
    "name",
    [
        "LSTM",
        "nested",
        "convolution",
        *(pytest.param(n, marks=pytest.mark.slow) for n in MODELS if n not in ("LSTM", "nested", "convolution")),
    ],
)
def test_a_file_of_floats_is_the_stateful_model_call_by_call(name):
    record = exported(name)
    assert [state.input for state in record.states] == MODELS[name][1]
    np.testing.assert_allclose(by_hand(record, X[:10]), calls_of(model(name), X[:10]), atol=1e-5)
    assert record.max_abs_error < 1e-5
    assert record.verification.samples == CALLS


@pytest.mark.parametrize("name", ["convolution", *(pytest.param(n, marks=pytest.mark.slow) for n in MODELS if n != "convolution")])
def test_an_int8_file_carries_its_states_on_by_bytes(name):
    # The bridge does not open a layer of the user's own that assigns to a variable.
    record = exported(name, "int8", road="converter" if name == "convolution" else "auto")
    outputs = {tensor.name: tensor for tensor in record.outputs}
    for state in record.states:
        other = outputs[state.output]
        assert (other.dtype, other.scale, other.zero_point, other.shape) == (state.dtype, state.scale, state.zero_point, state.shape)
        assert state.dtype == "int8"
        assert state.first == state.zero_point
    found, expected = by_hand(record, X), calls_of(model(name), X)
    assert np.abs(found - expected).mean() < 0.03 * np.ptp(expected)
    # A state that is not carried on, but begins anew with each call, is another computation.
    assert np.abs(found - expected).mean() < 0.4 * np.abs(by_hand(record, X) - np.array([by_hand(record, x[None])[0] for x in X])).mean()


@pytest.mark.slow
def test_the_steps_of_a_recurrent_state_are_shared_without_an_operation():
    assert "QUANTIZE" not in {operation.name for operation in exported("GRU", "int8").census.ops}


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [{"io": "float32"}, {"io": "uint8"}, {"road": "converter"}], ids=str)
def test_other_types_of_inputs_and_roads_carry_states_on(arguments):
    record = exported("LSTM", "int8", **arguments)
    outputs = {tensor.name: tensor for tensor in record.outputs}
    assert all((outputs[s.output].scale, outputs[s.output].zero_point) == (s.scale, s.zero_point) for s in record.states)
    output = record.verification.outputs["scores"]
    assert output.mean_abs_error < 0.03 * output.scale


@pytest.mark.slow
def test_int16_states_have_one_scale_too():
    record = exported("LSTM", "int16x8")
    assert {state.dtype for state in record.states} == {"int16"}
    output = record.verification.outputs["scores"]
    assert output.mean_abs_error < 0.01 * output.scale


@pytest.mark.slow
def test_a_larger_batch_has_sequences_side_by_side(tmp_path):
    keras.utils.set_random_seed(1)
    stateful = MODELS["LSTM"][0](4)
    record = export_tflite(stateful, tmp_path / "m.tflite", verify_on=X, batch_size=2, states="explicit")
    assert record.states[0].shape == (2, 5)
    assert record.max_abs_error < 1e-5


def test_a_model_of_tf_keras_streams(tmp_path):
    tfk = tf_keras()
    stateful = tfk.layers.GRU(5, stateful=True, name="rnn")
    adopted = tfdistill.adopt(tfk.Sequential([tfk.Input(batch_shape=(1, STEPS, 4), name="frames"), stateful, tfk.layers.Dense(2)]))
    record = export_tflite(adopted, tmp_path / "m.tflite", verify_on=X, states="explicit")
    assert len(record.states) == 1
    assert record.max_abs_error < 1e-5


def test_verify_runs_the_sequence_of_such_a_file():
    record = verify(exported("GRU").path, model("GRU"), X)
    assert record.max_abs_error < 1e-5
    with pytest.raises(VerificationError, match="takes the inputs"):
        verify(exported("GRU").path, model("LSTM"), X)


def test_the_stateful_model_stays_as_it_was(tmp_path):
    stateful = MODELS["LSTM"][0]()
    stateful(X[:1])
    states, nodes = [np.array(x) for x in stateful.get_layer("rnn").states], len(stateful.get_layer("before")._inbound_nodes)
    export_tflite(stateful, tmp_path / "m.tflite", verify_on=X, states="explicit")
    for before, after in zip(states, stateful.get_layer("rnn").states, strict=True):
        np.testing.assert_array_equal(before, after)
    assert len(stateful.get_layer("before")._inbound_nodes) == nodes
    assert stateful.get_layer("rnn").stateful


def test_a_state_that_begins_as_another_number_says_so(tmp_path):
    keras.utils.set_random_seed(1)
    record = export_tflite(convolution(first=0.5), tmp_path / "m.tflite", verify_on=X, states="explicit")
    assert record.states[0].first == 0.5
    assert record.max_abs_error < 1e-5
    with pytest.raises(ModelError, match="begins with different numbers"):
        explicit_states(convolution(ring=Slope), 1)


REFUSED = {
    "no states": (lambda: recurrent(L.LSTM(5, name="rnn")), {}, ModelError, "keeps state between calls"),
    "a free batch": (lambda: model("GRU"), {"batch_size": None}, ConfigurationError, "fixed batch"),
    "a larger batch": (lambda: model("GRU"), {"batch_size": 2}, ConfigurationError, "states of 1 sequences"),
    "a ring of another batch": (lambda: convolution(2), {}, ModelError, "built for a batch of 2"),
    "another word": (lambda: model("GRU"), {"states": "outside"}, ConfigurationError, "states"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_before_anything_is_written(case, tmp_path):
    make, arguments, kind, text = REFUSED[case]
    with pytest.raises(kind, match=text) as caught:
        export_tflite(make(), tmp_path / "m.tflite", **{"states": "explicit", **arguments})
    assert isinstance(caught.value, TfdistillError)
    assert not list(tmp_path.iterdir())


def test_an_integer_file_without_explicit_states_says_what_to_do(tmp_path):
    with pytest.raises(TfdistillError, match="states='explicit'"):
        export_tflite(model("GRU"), tmp_path / "m.tflite", "int8", X)
