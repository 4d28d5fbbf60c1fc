"""Dense layers with one scale for their weights: what the file holds, that it computes what the model does, and that the model stays what it was."""

import keras
import numpy as np
import pytest

from tfdistill.bridge.adopt.layers import named_layers
from tfdistill.compress import Quantize
from tfdistill.runtime.interpreter import open_file
from tfdistill.tflite import Tolerances, export_tflite

L = keras.layers
X = np.random.default_rng(0).normal(size=(64, 12)).astype("float32")


def net(*middle, bias=True):
    """A dense layer, what is given behind it, and a dense layer; all weights random, variances from 1/4 to 4."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((12,)), L.Dense(16, use_bias=bias, name="hidden"), *(layer() for layer in middle), L.Dense(4, name="logits")]
    )
    rng = np.random.default_rng(1)
    for weight in model.weights:
        values = (
            rng.uniform(0.25, 4.0, weight.shape)
            if "variance" in weight.name or weight.name == "gamma"
            else rng.normal(0.0, 0.5, weight.shape)
        )
        weight.assign(values)
    return model


ROWS = {
    "no normalization": lambda: net(L.ReLU),
    "a normalization": lambda: net(L.BatchNormalization, L.ReLU),
    "without a bias": lambda: net(L.BatchNormalization, L.ReLU, bias=False),
    "without gamma": lambda: net(lambda: L.BatchNormalization(scale=False), L.ReLU),
    "without beta": lambda: net(lambda: L.BatchNormalization(center=False, epsilon=1e-5), L.ReLU),
    "behind the activation": lambda: net(L.ReLU, L.BatchNormalization),
}


@pytest.mark.parametrize("name", ROWS)
def test_a_dense_layer_has_one_scale_in_the_file(name, tmp_path):
    model, quantize = ROWS[name](), Quantize(per_channel_dense=False)
    expected = np.asarray(model(X))
    quantized = quantize.apply(model, X)
    record = export_tflite(quantized, tmp_path / "m.tflite", "int8", verify_on=X, tolerances=Tolerances())
    assert {(op.name, op.version) for op in record.census.ops if op.name == "FULLY_CONNECTED"} == {("FULLY_CONNECTED", 4)}
    opened = open_file(record.path, trusted=True, xnnpack=False)
    scales = {
        d["name"]: len(d["quantization_parameters"]["scales"]) for d in opened.interpreter.get_tensor_details() if d["shape"].size == 2
    }
    assert set(scales.values()) == {1}
    (found,) = opened.run(X).values()
    # A value of the first layer that lies between two steps may be rounded either way: one step of it times a weight, and a step of the output.
    step = next(iter(opened.outputs.values())).scale
    hidden = max(
        d["quantization"][0] for d in opened.interpreter.get_tensor_details() if tuple(d["shape"]) == (1, 16) and d["dtype"] == np.int8
    )
    most = step + hidden * np.abs(np.asarray(model.layers[-1].kernel)).max()
    assert np.abs(found - np.asarray(quantized(X, training=False))).max() < 1.01 * most
    assert np.abs(found - expected).mean() < 0.02 * np.ptp(expected)
    assert "weights with one scale" in quantize.plan(model).row("hidden").reason
    finer = export_tflite(Quantize().apply(model, X), tmp_path / "finer.tflite", "int8", verify_on=X, tolerances=Tolerances())
    assert record.size_bytes < finer.size_bytes


@pytest.mark.parametrize("name", ["a normalization", "without a bias", "behind the activation"])
def test_biases_are_corrected_to_the_means_of_what_is_folded(name):
    model = ROWS[name]()
    expected = np.asarray(model(X))
    plain, corrected = (Quantize(per_channel_dense=False, bias_correction=choice).apply(model, X) for choice in (False, True))
    errors = [np.abs(np.asarray(made(X)) - expected).mean() for made in (plain, corrected)]
    assert errors[1] < 1.1 * errors[0]


def test_a_folded_normalization_is_frozen_so_that_training_goes_on_from_the_same_function():
    model = ROWS["a normalization"]()
    quantized = Quantize(per_channel_dense=False).apply(model, X)
    layers = named_layers(quantized.legacy)
    assert [layer.trainable for path, layer in layers.items() if "batch_normalization" in path] == [False]
    np.testing.assert_allclose(quantized(X, training=True), quantized(X, training=False), atol=0.02 * float(np.ptp(model(X))))
    before = np.asarray(model(X))
    quantized.compile("adam", "mse")
    quantized.fit(X, before, epochs=1, verbose=0)
    assert np.abs(np.asarray(quantized(X, training=False)) - before).mean() < 0.03 * np.ptp(before)
