"""Quantization-aware training that begins with ranges measured on calibration data."""

import keras
import numpy as np
import pytest

from tfdistill import export_tflite, load_model, under_teacher
from tfdistill.bridge.adopt import introspection
from tfdistill.bridge.adopt.layers import input_quantizers, named_layers
from tfdistill.bridge.wrappers.input_quantizers import range_of_input
from tfdistill.bridge.wrappers.quantization import is_quantized_layer
from tfdistill.compress import Quantize, QuantizeAware
from tfdistill.distill import ChainSettings
from tfdistill.errors import ConfigurationError, DataError
from tfdistill.losses import SoftTargets

L = keras.layers
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def net():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 8), name="tokens")
    h = L.LayerNormalization(epsilon=1e-6, name="norm")(inputs)
    h = L.Add(name="sum")([h, L.MultiHeadAttention(2, 4, name="attention")(h, h)])
    return keras.Model(inputs, L.Dense(3, name="logits")(L.Flatten(name="flat")(h)), name="net")


def data(samples=64):
    """Tokens, the first of which is far smaller than the others in every sample."""
    rng = np.random.default_rng(0)
    x = rng.choice([-1.0, 1.0], (samples, 6, 8)) * rng.uniform(0.5, 1.5, (samples, 6, 8))
    x[:, 0] *= 0.06
    return x.astype("float32"), rng.integers(0, 3, samples)


def ranges(model):
    """Dict of path and tensor to the ends of its range, and how many batches it counts as."""
    found = {}
    for path, layer in named_layers(model.legacy).items():
        if is_quantized_layer(layer):
            for what, low, high in introspection.ranges_of(layer):
                batches = layer.ranges[what][2]
                found[path, what] = (float(low), float(high), None if batches is None else float(batches))
    for layer in input_quantizers(model.legacy):
        found[layer.name] = (*map(float, range_of_input(layer)), None)
    return found


def test_ranges_begin_as_calibration_measures_them():
    x, _ = data()
    began, calibrated = ranges(QuantizeAware().apply(net(), calibration=x)), ranges(Quantize(ranges="minmax").apply(net(), x))
    assert began.keys() == calibrated.keys()
    assert ("norm", "second_squares") in began  # it has quiet rows, and normalizes twice
    assert ("norm", "second_squares") not in ranges(QuantizeAware().apply(net()))
    # The weights of dense layers have one scale in training, and one for each output where they are only calibrated.
    for key, (low, high, _) in began.items():
        np.testing.assert_allclose((low, high), calibrated[key][:2], rtol=0.05, atol=0.02, err_msg=str(key))
    assert {batches for *_, batches in began.values()} == {10.0, None}


def test_it_rounds_little_before_training():
    (x, _), model = data(), net()
    expected = model(x, training=False)
    quantized = QuantizeAware().apply(model, calibration=x)
    assert np.abs(quantized(x, training=False) - expected).mean() < 0.02 * np.ptp(expected)
    assert np.abs(QuantizeAware().apply(model)(x, training=False) - expected).mean() > 0.1 * np.ptp(expected)


def test_training_goes_on_with_the_measured_ranges(tmp_path):
    x, y = data()
    step = QuantizeAware()
    quantized = step.apply(net(), calibration=x)
    before = ranges(quantized)
    quantized.compile(keras.optimizers.SGD(0.0), LOSS)
    quantized.fit(3.0 * x[:16], y[:16], batch_size=16, verbose=0, callbacks=step.callbacks())
    after = ranges(quantized)
    # One batch, three times as large, after what counts as ten.
    low, high, _ = before["logits", "output"]
    np.testing.assert_allclose(after["sum", "output"][1] / before["sum", "output"][1], 1.0, atol=0.2)
    assert after["logits", "output"][2] == 11.0
    assert after["logits", "output"][0] != low or after["logits", "output"][1] != high
    quantized.save(tmp_path / "net.keras")
    assert ranges(load_model(tmp_path / "net.keras")) == after
    record = export_tflite(step.strip(quantized), tmp_path / "net.tflite", "int8", verify_on=x)
    (output,) = record.verification.outputs.values()
    assert output.mean_abs_error / output.scale < 0.02


def test_one_call_for_the_road_measures_them():
    x, y = data()
    settings = ChainSettings(SoftTargets(2.0), loss=LOSS, epochs=1, fit={"batch_size": 16, "verbose": 0})
    road = under_teacher(net(), net(), [QuantizeAware()], settings, x, y)
    assert ("norm", "second_squares") in ranges(road.models[-1])
    assert road.models[-1].get_layer("norm").ranges["output"][2] == 14.0


REFUSED = {
    "few samples": (QuantizeAware(), lambda x: x[:15], DataError, "15"),
    "equal samples": (QuantizeAware(), lambda x: np.repeat(x[:1], 32, 0), DataError, "equal"),
    "another shape": (QuantizeAware(), lambda x: x[:, :5], DataError, "shape"),
    "NaN": (QuantizeAware(), lambda x: np.where(x > 1.4, np.nan, x), DataError, "NaN"),
    "16-bit activations": (QuantizeAware(activation_bits=16), lambda x: x, ConfigurationError, "activation_bits=16"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_data_that_shows_no_range_is_refused(what):
    step, change, error, said = REFUSED[what]
    with pytest.raises(error, match=said):
        step.apply(net(), calibration=change(data()[0]))
