"""Layers whose own operation XNNPACK does not take in integers, or that round coarsely: written in others, all of which it takes."""

import keras
import numpy as np
import pytest

from tfdistill import load_model
from tfdistill.compress import Quantize, QuantizeAware
from tfdistill.runtime.delegated import delegation
from tfdistill.runtime.interpreter import open_file
from tfdistill.tflite import Tolerances, export_tflite

L = keras.layers
X = np.random.default_rng(0).normal(size=(64, 8, 10, 4)).astype("float32")
SLOPES = keras.initializers.RandomUniform(-0.1, 0.4, seed=1)
# Layer -> how it is built; the operation that is not in its file for XNNPACK; whether that is there for the interpreter's own kernels.
ROWS = {
    "PReLU": (lambda: L.PReLU(SLOPES, name="here"), "PRELU", True),
    "PReLU, a slope for each channel": (lambda: L.PReLU(SLOPES, shared_axes=[1, 2], name="here"), "PRELU", True),
    "doubled": (lambda: L.UpSampling2D(2, name="here"), "RESIZE_NEAREST_NEIGHBOR", True),
    "three times as high": (lambda: L.UpSampling2D((3, 1), name="here"), "RESIZE_NEAREST_NEIGHBOR", True),
    "twice as wide": (lambda: L.UpSampling2D((1, 2), name="here"), "RESIZE_NEAREST_NEIGHBOR", True),
    "averages, padded": (lambda: L.AveragePooling2D(3, 1, "same", name="here"), "AVERAGE_POOL_2D", False),
    "averages of every second, padded": (lambda: L.AveragePooling2D((3, 2), 2, "same", name="here"), "AVERAGE_POOL_2D", False),
    "averages, padded by nothing": (lambda: L.AveragePooling2D(2, 2, "same", name="here"), "AVERAGE_POOL_2D", False),
    "averages of larger windows than the image": (lambda: L.AveragePooling2D(11, 1, "same", name="here"), "AVERAGE_POOL_2D", False),
    "averages of a row": (lambda: L.AveragePooling1D(3, 2, "same", name="here"), "AVERAGE_POOL_2D", False),
    "averages of a row, unpadded": (lambda: L.AveragePooling1D(2, name="here"), "AVERAGE_POOL_2D", False),
}


def net(name):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 10, 4), name="image")
    layer, h = ROWS[name][0](), L.Conv2D(8, 1, name="before")(inputs)
    h = layer(L.Reshape((8, 80))(h)) if isinstance(layer, L.AveragePooling1D) else layer(h)
    return keras.Model(inputs, h, name="net")


def names(record):
    return {op.name for op in record.census.ops}


@pytest.mark.parametrize("name", ROWS)
def test_xnnpack_takes_all_of_it(name, tmp_path):
    model, (_, operation, elsewhere) = net(name), ROWS[name]
    quantized = Quantize().apply(model, X)
    record = export_tflite(quantized, tmp_path / "net.tflite", "int8", verify_on=X, tolerances=Tolerances())
    assert operation not in names(record)
    assert delegation(open_file(record.path, trusted=True).interpreter).share == 1.0
    # The file computes what the quantized model does, but for halves that are rounded the other way, twice in a row; and that what the float model does, to half a step.
    found = next(iter(open_file(record.path, trusted=True, xnnpack=False).run(X).values()))
    step = record.outputs[0].scale
    apart = np.abs(found - quantized(X, training=False)) / step
    assert apart.max() <= 2.01
    assert (apart > 0.5).mean() < 0.1
    assert np.abs(found - model(X, training=False)).mean() <= 0.5 * step
    plan = QuantizeAware(target="builtin").plan(model)
    assert (operation in plan.row("here").operations) is elsewhere


@pytest.mark.parametrize("name", ["PReLU", "doubled", "averages, padded"])
def test_saved_and_loaded_it_is_the_same_file(name, tmp_path):
    quantized = Quantize().apply(net(name), X)
    record = export_tflite(quantized, tmp_path / "net.tflite", "int8", verify_on=X, tolerances=Tolerances())
    quantized.save(tmp_path / "net.keras")
    again = export_tflite(load_model(tmp_path / "net.keras"), tmp_path / "again.tflite", "int8", verify_on=X, tolerances=Tolerances())
    assert again.sha256 == record.sha256


@pytest.mark.parametrize("name", ["PReLU", "doubled", "averages, padded", "averages of a row"])
def test_trained_quantized(name, tmp_path):
    step, model = QuantizeAware(), net(name)
    quantized = step.apply(model)
    quantized.compile(keras.optimizers.SGD(0.01), "mse")
    quantized.fit(X, np.asarray(model(X)), batch_size=16, epochs=4, verbose=0, callbacks=step.callbacks())
    record = export_tflite(step.strip(quantized), tmp_path / "net.tflite", "int8", verify_on=X, tolerances=Tolerances())
    (output,) = record.verification.outputs.values()
    assert output.mean_abs_error / output.scale < 0.005
    assert ROWS[name][1] not in names(record)


def test_the_plan_says_so_and_a_free_size_keeps_its_operation():
    assert "PReLU as products" in QuantizeAware().plan(net("PReLU")).row("here").reason
    assert "as concatenations" in QuantizeAware().plan(net("doubled")).row("here").reason
    assert QuantizeAware(target="builtin").plan(net("doubled")).row("here").operations == ("RESIZE_NEAREST_NEIGHBOR",)
    inputs = keras.Input((None, None, 4))
    free = keras.Model(inputs, L.UpSampling2D(2, name="here")(L.Conv2D(8, 1)(inputs)))
    assert "concatenations" not in QuantizeAware().plan(free, dry_run=False).row("here").reason


@pytest.mark.parametrize("layer", [L.UpSampling2D(2), L.AveragePooling2D(3, 1, "same"), L.PReLU(SLOPES)])
def test_a_layer_that_is_left_out_computes_in_float(layer):
    inputs = keras.Input((8, 10, 4))
    model = keras.Model(inputs, layer(L.Conv2D(8, 1, name="before")(inputs)))
    quantized = QuantizeAware(exclude=layer.name).apply(model, calibration=X, dry_run=False)
    rounded = quantized.get_layer("before")(X)
    np.testing.assert_allclose(quantized(X), layer(np.asarray(rounded)), atol=0.05)
