"""What a saved quantization-aware model says about its layers is what the loaded one computes, or it is refused."""

import json

import keras
import numpy as np
import pytest

from tfdistill import load_model
from tfdistill.bridge.adopt.trained_ranges import quantized_layers
from tfdistill.bridge.imports import tf_keras
from tfdistill.bridge.integer import activations
from tfdistill.bridge.wrappers.quantization import quantize_layer, quantized_layer_class
from tfdistill.bridge.wrappers.quantization_settings import Quantization, QuantizedWeight
from tfdistill.compress import QuantizeAware
from tfdistill.errors import ModelError

L = keras.layers
X = np.random.default_rng(0).normal(size=(64, 8)).astype("float32")

SETTINGS = {
    "none": Quantization(),
    "weights": Quantization((QuantizedWeight("kernel", 4, (1,), True, 3),), ("activation",), output=False),
    "observed": Quantization(observed=True),
    "positive": Quantization(positive=(0, 2)),
    "scores": Quantization(scores=True),
    "hides": Quantization(scores=True, hides=True),
    "replaced": Quantization(replaced=(("gelu", "quick_gelu"), ("softmax", "float"))),
    "wide": Quantization(wide=True),
    "all": Quantization(
        (QuantizedWeight("kernel"),), ("activation",), False, "operation", True, (1,), True, (("hard_silu", "hard_swish"),), True, True
    ),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_are_the_same_in_a_saved_layer(name):
    settings = SETTINGS[name]
    config = quantize_layer(tf_keras().layers.Dense(3), settings).get_config()
    again = quantized_layer_class().from_config(json.loads(json.dumps(config)))
    assert again.quantization == settings
    assert again.get_config() == config


def test_settings_of_every_field_have_a_row():
    changed = {
        field for row in SETTINGS.values() for field in Quantization._fields if getattr(row, field) != getattr(Quantization(), field)
    }
    assert changed == set(Quantization._fields)


@pytest.mark.parametrize("fields", [[[], [], True, ""], [[["kernel", 8, []]], [], True, "", False]])
def test_settings_of_earlier_versions_are_shorter(fields):
    config = {**quantize_layer(tf_keras().layers.Dense(3), Quantization()).get_config(), "quantization": fields}
    found = quantized_layer_class().from_config(config).quantization
    assert (found.observed, found.positive, found.scores, found.replaced, found.hides) == (False, (), False, (), False)


# Fields of a file -> what is said of them.
UNKNOWN = {
    "a form": ([[], [], True, "butterfly"], "is computed in the form 'butterfly'"),
    "a form in place of another": (
        [[], [], True, "", False, [], False, [["gelu", "gelu_of_tables"]]],
        "with 'gelu_of_tables' in place of 'gelu'",
    ),
    "a kind of float": ([[], [], True, "", False, [], False, [["gelu", "float16"]]], "with 'float16' in place of 'gelu'"),
    "what is replaced": ([[], [], True, "", False, [], False, [["gelv", "float"]]], "with 'float' in place of 'gelv'"),
    "a width": ([[], [], True, "", False, [], False, [], False, 3], "is as wide as 3"),
    "a setting": ([[], [], True, "", False, [], False, [], False, False, 3], "has 11 settings, of which 10 are known"),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_settings_that_are_not_known_are_refused(name):
    """Without its form a layer would compute the exact function, or not be rounded, and nobody would know."""
    fields, words = UNKNOWN[name]
    config = {**quantize_layer(tf_keras().layers.Dense(3, name="wide"), Quantization()).get_config(), "quantization": fields}
    with pytest.raises(ModelError, match=r"(?s)'wide' .*Fix: load the model with the version that saved it, or quantize") as caught:
        quantized_layer_class().from_config(config)
    assert words in caught.value.happened


def hard_silu_of_two_ranges(x, quantize, what):
    """(x / 6) * relu6(x + 3), as it was computed before it became one table of XNNPACK's: with a range of its own for x / 6."""
    return quantize((1.0 / 6.0) * x, f"{what}_sixth") * quantize.within(x + 3.0, 0.0, 6.0)


def quantized():
    keras.utils.set_random_seed(0)
    parts = [L.Dense(6, "hard_silu"), L.Dense(6), L.Activation("hard_silu"), L.Dense(3)]
    made = QuantizeAware().apply(keras.Sequential([keras.Input((8,)), *parts]), dry_run=False)
    made(X, training=True)
    return made


def test_a_model_whose_forms_had_more_ranges_loads(tmp_path, monkeypatch):
    with monkeypatch.context() as before:
        before.setitem(activations.ACTIVATIONS, "hard_silu", hard_silu_of_two_ranges)
        made = quantized()
        expected = np.asarray(made(X))
        made.save(tmp_path / "made.keras")
        made.save_weights(tmp_path / "made.weights.h5")
    another = quantized()  # its layers have other numbers
    another.legacy.set_weights([np.zeros_like(weight) for weight in another.legacy.get_weights()])
    with pytest.warns(UserWarning, match="ranges that the adopted model .* does not use"):
        loaded = load_model(tmp_path / "made.keras")
    with pytest.warns(UserWarning, match="_sixth_min"):
        another.load_weights(tmp_path / "made.weights.h5")
    step = np.ptp(expected) / 255
    for again in (loaded, another):
        assert not any("sixth" in what for layer in quantized_layers(again.legacy) for what in layer.ranges)
        assert np.abs(np.asarray(again(X)) - expected).mean() < 2 * step
    loaded.save(tmp_path / "again.keras")
    np.testing.assert_array_equal(load_model(tmp_path / "again.keras")(X), loaded(X))


def test_a_model_whose_forms_had_fewer_ranges_is_refused(tmp_path, monkeypatch):
    made = quantized()
    made.save_weights(tmp_path / "made.weights.h5")
    with monkeypatch.context() as before:
        before.setitem(activations.ACTIVATIONS, "hard_silu", hard_silu_of_two_ranges)
        other = quantized()
        with pytest.raises(
            ValueError, match=r"(?s)missing .*_sixth_batches.*Fix: make the model with the target="
        ):  # Keras makes a new one
            other.load_weights(tmp_path / "made.weights.h5")


def test_other_weights_than_ranges_are_not_left_out(tmp_path):
    made = quantized()
    made.save_weights(tmp_path / "made.weights.h5")
    plain = QuantizeAware().apply(keras.Sequential([keras.Input((8,)), L.Dense(6, "hard_silu")]), dry_run=False)
    with pytest.raises(ValueError, match="does not fit the adopted model") as caught:
        plain.load_weights(tmp_path / "made.weights.h5")
    assert "Fix: " not in str(caught.value)
