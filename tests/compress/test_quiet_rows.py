"""Normalizations of rows that are far smaller than others, as a class token among patches is: in integers, they come out as large as in float."""

import keras
import numpy as np
import pytest

from tfdistill import export_tflite, load_model
from tfdistill.compress import Quantize
from tfdistill.tflite import verify

L = keras.layers
NORMALIZATIONS = {
    "layer": lambda **settings: L.LayerNormalization(**settings),
    "root mean square": lambda **settings: L.RMSNormalization(**settings),
    "group": lambda **settings: L.GroupNormalization(groups=2, **settings),
    "unit": lambda name, **_: L.UnitNormalization(name=name),
}
# What is quiet -> its share of the others' size; where; in how many samples; the epsilon; whether the layer then normalizes twice.
DATA = {
    "a row of each sample": (0.06, 0, 64, 1e-6, True),
    "a row of one sample": (0.06, 0, 1, 1e-6, False),
    "a row that epsilon keeps quiet": (0.06, 0, 64, 1e-1, False),
    "a row of zeros": (0.0, 0, 64, 1e-6, False),
    "none": (1.0, 0, 64, 1e-6, False),
}


def made(kind, data, samples=64):
    """A normalization, data with its quiet rows, and the calibrated model."""
    size, place, count, epsilon, _ = DATA[data]
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    x = rng.choice([-1.0, 1.0], (samples, 6, 8)) * rng.uniform(0.5, 1.5, (samples, 6, 8))
    x[:count, :, :4] *= size if kind == "group" else 1.0
    x[:count, place] *= 1.0 if kind == "group" else size
    inputs = keras.Input((6, 8))
    model = keras.Model(inputs, NORMALIZATIONS[kind](epsilon=epsilon, name="norm")(inputs))
    x = x.astype("float32")
    return model, x, Quantize().apply(model, x)


def sizes(model, x, kind):
    """Root of the mean square of what the quiet rows become."""
    outputs = np.asarray(model(x, training=False))
    return np.sqrt(np.mean((outputs[:, :, :4] if kind == "group" else outputs[:, 0]) ** 2))


@pytest.mark.parametrize("kind", NORMALIZATIONS)
def test_quiet_rows_become_as_large_as_in_float(kind):
    model, x, quantized = made(kind, "a row of each sample")
    assert any(what.startswith("second_") for what in quantized.get_layer("norm").ranges)
    assert sizes(quantized, x, kind) == pytest.approx(sizes(model, x, kind), rel=0.06)


@pytest.mark.parametrize("data", DATA)
def test_only_what_has_quiet_rows_normalizes_twice(data):
    *_, quantized = made("layer", data)
    assert any(what.startswith("second_") for what in quantized.get_layer("norm").ranges) is DATA[data][-1]


def test_the_file_and_a_saved_model_normalize_twice(tmp_path):
    model, x, quantized = made("layer", "a row of each sample")
    quantized.save(tmp_path / "made.keras")
    loaded = load_model(tmp_path / "made.keras")
    np.testing.assert_array_equal(loaded(x, training=False), quantized(x, training=False))
    export_tflite(model, tmp_path / "made.tflite", "int8", calibration=x, road="bridge")
    (output,) = verify(tmp_path / "made.tflite", model, x).outputs.values()
    assert output.mean_abs_error / output.scale < 0.006
