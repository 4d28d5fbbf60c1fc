"""The streaming wake word of MLPerf Tiny, frame by frame: the rows that its convolutions look back on are inputs and outputs of the file."""

import json
import os
import pathlib

import keras
import numpy as np
import pytest

import tfdistill
from tfdistill.bridge.imports import tf_keras
from tfdistill.runtime.interpreter import open_file

L, ops = keras.layers, keras.ops
FOLDER = pathlib.Path(os.environ.get("TFDISTILL_MLPERF_TINY", ""))


class Ring(L.Layer):
    """Puts the last rows of the frames before in front of a frame, and keeps them for the next."""

    def __init__(self, rows, **kwargs):
        super().__init__(**kwargs)
        self.rows = rows

    def build(self, shape):
        self.past = self.add_weight((shape[0], self.rows, *shape[2:]), initializer="zeros", trainable=False, name="past")
        self.built = True

    def reset_state(self):
        self.past.assign(ops.zeros_like(self.past))

    def call(self, x):
        rows = ops.concatenate([self.past, x], 1)
        self.past.assign(rows[:, 1:])
        return rows

    def get_config(self):
        return {**super().get_config(), "rows": self.rows}


def by_frames(whole):
    """Returns the net that computes what `whole`, a tf_keras model of all frames, does after as many of them, from one frame at a time."""
    frame = x = keras.Input(batch_shape=(1, 1, *whole.input_shape[2:]), name="frame")
    for layer in whole.layers:
        kind = type(layer).__name__
        if kind in ("InputLayer", "Dropout"):
            continue
        if kind == "DepthwiseConv2D":
            x = Ring(layer.kernel_size[0] - 1)(x)
            copy = L.DepthwiseConv2D(layer.kernel_size, use_bias=layer.use_bias)
        elif kind == "Conv2D":
            copy = L.Conv2D(layer.filters, layer.kernel_size, use_bias=layer.use_bias)
        elif kind == "Dense":
            copy = L.Dense(layer.units, activation="softmax", name="scores")
        elif kind == "BatchNormalization":
            copy = L.BatchNormalization(epsilon=layer.epsilon)
        else:
            copy = {"Activation": L.ReLU, "Flatten": L.Flatten}[kind]()
        x = copy(x)
        copy.set_weights(layer.get_weights())
    return keras.Model(frame, x, name="wake_word")


def after_all_frames(model, spectrogram):
    for layer in model.layers:
        if isinstance(layer, Ring):
            layer.reset_state()
    return [np.asarray(model(frame[None, None])) for frame in spectrogram][-1][0]


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore:.*cannot be opened"
)  # the bridge opens no layer that keeps a state of its own: the converter makes the integers
def test_the_streaming_net_of_mlperf_tiny(tmp_path):
    whole = tf_keras().models.load_model(FOLDER / "str_ww_ref_model.h5", compile=False)
    spectrograms = np.load(FOLDER / "calibration_samples.npz")["specs"].astype("float32")
    model = by_frames(whole)
    expected = np.asarray(whole(spectrograms[:8]))
    np.testing.assert_allclose([after_all_frames(model, each) for each in spectrograms[:8]], expected, atol=1e-5)

    frames = spectrograms.reshape(-1, 1, *spectrograms.shape[2:])
    about = tfdistill.tflite.FileMetadata(name="wake word")
    record = tfdistill.export_tflite(
        model, tmp_path / "m.tflite", "int8", calibration=frames[:512], verify_on=frames[512:812], states="explicit", metadata=about
    )
    assert record.argmax_agreement > 0.98
    assert [state.shape[1] for state in record.states] == [2, 4, 9, 14]
    opened = open_file(record.path)
    for state in record.states:
        one, two = opened.inputs[state.input], opened.outputs[state.output]
        assert (one.scale, one.zero_point, one.shape) == (two.scale, two.zero_point, two.shape)

    kit = tfdistill.kit(record.path, "microcontroller", tmp_path / "kit")
    described = json.loads((tmp_path / "kit" / "model.json").read_text())
    assert {pair["input"]: pair["output"] for pair in described["states"]} == {state.input: state.output for state in record.states}
    assert all(vector["steps"] > 1 for vector in described["vectors"])
    assert kit.arena_bytes < 20_000
    assert "at most 0 " in kit.notes[0] or "at most 1 " in kit.notes[0]
