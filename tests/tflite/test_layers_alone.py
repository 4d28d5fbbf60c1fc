"""The rounding of each layer is switched on and off: all off is the float model, all on the quantized one, and a coarse layer costs most."""

import blame_models
import keras
import numpy as np
import pytest

from tfdistill.compress import Quantize, QuantizeAware
from tfdistill.compress.bits.switches import Switches
from tfdistill.convert.samples import collect
from tfdistill.convert.signature import describe
from tfdistill.errors import ConfigurationError, DataError
from tfdistill.tflite import export_tflite, layer_error, layers_alone

L = keras.layers


def switched(name, quantized):
    """Outputs with everything in float, and with everything rounded, as lists."""
    signature = describe(quantized)
    switches = Switches(quantized, signature)
    samples = collect(blame_models.data(name), signature)
    count = len(switches.names)
    return [list(switches.run(samples, np.full(count, on)).values()) for on in (False, True)]


@pytest.mark.parametrize(
    "name", ["convnet", pytest.param("series", marks=pytest.mark.slow), pytest.param("nested", marks=pytest.mark.slow)]
)
def test_off_is_the_float_model_and_on_the_quantized_one(name):
    quantized = Quantize(bias_correction=False).apply(blame_models.model(name), calibration=blame_models.data(name))
    off, on = switched(name, quantized)
    x = blame_models.data(name)
    for given, expected in ((off, blame_models.model(name)(x)), (on, quantized(x))):
        for array, wanted in zip(given, keras.tree.flatten(expected), strict=True):
            np.testing.assert_allclose(array, wanted, rtol=1e-5, atol=1e-5)


def test_a_folded_rescaling_is_switched_off_whole():
    inputs = keras.Input((6, 6, 1), name="image")
    x = L.Conv2D(4, 3, activation="relu", name="conv")(L.Rescaling(1 / 127.5, offset=-1.0, name="scale")(inputs))
    model = keras.Model(inputs, L.Dense(3, name="logits")(L.Flatten()(x)))
    x = np.random.default_rng(0).integers(0, 256, (32, 6, 6, 1)).astype("float32")
    quantized = Quantize(bias_correction=False).apply(model, calibration=x)
    signature = describe(quantized)
    switches = Switches(quantized, signature)
    (off,) = switches.run(collect(x, signature), np.zeros(len(switches.names), bool)).values()
    np.testing.assert_allclose(off, model(x), rtol=1e-4, atol=1e-4)


def test_the_error_of_all_layers_is_that_of_the_file(tmp_path):
    model, x = blame_models.model("convnet"), blame_models.data("convnet")
    found = layers_alone(model, x, calibration=x)
    record = export_tflite(Quantize(bias_correction=False).apply(model, x), tmp_path / "m.tflite", "int8")
    of_file = layer_error(model, record.path, x, max_samples=64).layers[-1]
    assert found.quantized_error == pytest.approx(of_file.total_error, rel=0.05)
    assert [row.name for row in found.layers] == ["image", "conv1", "relu1", "conv2", "relu2", "pool", "logits"]
    assert found.worst_first[0].name in str(found)
    assert found.float_accuracy is None
    assert all(row.gain == found.quantized_error - row.rest_error for row in found.layers)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["convnet", "residual", "perceptron", "nested"])
def test_a_coarse_layer_costs_most_by_itself_and_gains_most_in_float(name):
    found = layers_alone(blame_models.coarse_model(name), blame_models.data(name))
    coarse = blame_models.PLANTED[name].coarse
    assert found.worst_first[0].name == coarse, str(found)
    assert max(found.layers, key=lambda row: row.gain).name == coarse, str(found)


def test_labels_give_accuracies_and_the_record_is_saved(tmp_path):
    model, x = blame_models.model("convnet"), blame_models.data("convnet")
    labels = model.predict(x, verbose=0).argmax(-1)
    found = layers_alone(model, (x, labels), calibration=x, max_samples=32)
    assert found.samples == 32
    assert found.float_accuracy == 1.0
    assert 0 <= found.layers[0].rest_accuracy <= 1.0
    assert type(found).load(found.save(tmp_path / "alone.json")) == found


def test_a_trained_model_is_measured_with_its_own_ranges():
    model = keras.Sequential([keras.Input((6,), name="x"), L.Dense(8, activation="relu", name="hidden"), L.Dense(3, name="logits")])
    x = np.random.default_rng(0).normal(size=(64, 6)).astype("float32")
    aware = QuantizeAware().apply(model)
    aware.compile("sgd", "mse")
    aware.fit(x, np.zeros((64, 3)), verbose=0)
    found = layers_alone(aware, x)
    path = export_tflite(aware, blame_models.folder() / "aware.tflite", "int8").path
    assert [row.name for row in found.layers] == ["x", "hidden", "logits"]
    assert 0 < found.quantized_error < 0.1
    assert path
    with pytest.raises(ConfigurationError, match="is quantized already"):
        layers_alone(aware, x, calibration=x)


def test_a_float_model_needs_calibration_data():
    with pytest.raises(DataError, match="no calibration data"):
        layers_alone(blame_models.model("convnet"), blame_models.data("convnet"))
