"""Models that compute NaN or infinity on finite data: the converter's calibrator would end the process; they are refused by name, on every road."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from tfdistill.compress import Quantize, QuantizeAware
from tfdistill.errors import InvariantError
from tfdistill.tflite import export_tflite

X = np.random.default_rng(0).normal(size=(32, 8)).astype("float32")


def net(function):
    inputs = keras.Input((8,), name="x")
    odd = function(layers.Dense(6, name="before")(inputs))
    return keras.Model(inputs, layers.Dense(3, name="after")(odd), name="net")


@keras.saving.register_keras_serializable("not finite")
class Steep(layers.Layer):
    """An exponential that no float32 holds."""

    def call(self, x):
        return ops.minimum(ops.exp(1000.0 * (1.0 + ops.abs(x))), 1.0)


# What the model computes -> a part of the name of its first operation that is not finite.
FUNCTIONS = {
    "an exponential that overflows": (lambda x: Steep(name="steep")(x), "steep"),
    "a logarithm of negative numbers": (lambda x: ops.maximum(ops.log(x), 0.0), "Log"),
    "infinity selected": (lambda x: ops.maximum(ops.where(x > 0.0, x, -np.inf), -1.0), "SelectV2"),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_converter_never_sees_them(name, tmp_path):
    function, first = FUNCTIONS[name]
    with pytest.raises(InvariantError, match=rf"NaN or infinite numbers.*first of all in '[^']*{first}") as caught:
        export_tflite(net(function), tmp_path / "a.tflite", "int8", calibration=X, road="converter")
    assert "sample" in caught.value.happened


def test_calibration_names_the_layer_too():
    with pytest.raises(InvariantError, match=r"first of all in 'where'|first of all in 'steep"):
        Quantize().apply(net(FUNCTIONS["infinity selected"][0]), calibration=X)


def test_a_plan_that_calibrates_survives_them():
    row = QuantizeAware(activation_bits=16).plan(net(FUNCTIONS["an exponential that overflows"][0]))
    assert "NaN or infinite" in str(row)


def test_infinity_that_a_trained_range_clips_is_none():
    """The file's inverse root of a variance that rounds to 0 is the largest number of its range; the converter calibrates what has no range behind it."""
    ids = keras.Input((None,), dtype="int32", name="ids")
    normalized = layers.LayerNormalization()(layers.Embedding(9, 8)(ids))
    model = keras.Model(ids, layers.Dense(3)(layers.GlobalMaxPooling1D()(normalized)))
    assert QuantizeAware().plan(model).names("impossible") == []
