"""`to_tf_keras` compares an unchanged model once; whatever changes in it, or in how it is translated, is compared again."""

import keras
import numpy as np
import pytest

from tfdistill.bridge import check_parity, host, register_bridge, to_tf_keras
from tfdistill.bridge.convert import layers as bridge_layers
from tfdistill.bridge.parity import once


@keras.saving.register_keras_serializable("test_bridge_once")
class Scaled(keras.layers.Layer):
    """Multiplies by a number that its config does not hold."""

    factor = 2.0

    def call(self, inputs):
        return inputs * self.factor


register_bridge(Scaled, host)


@keras.saving.register_keras_serializable("test_bridge_once")
def bent(x):
    return keras.ops.tanh(x)


def small():
    x = inputs = keras.Input((6, 6, 2), name="image")
    x = keras.layers.Conv2D(3, 3, activation="relu", name="conv")(x)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.ReLU(6.0, name="limit")(x)
    return keras.Model(inputs, keras.layers.Dense(2, name="logits")(keras.layers.Flatten(name="flat")(x)), name="small")


@pytest.fixture
def comparisons(monkeypatch):
    """A list that gets an entry for every comparison."""
    made = []

    def counted(*args, **kwargs):
        made.append(args)
        return check_parity(*args, **kwargs)

    monkeypatch.setattr(once, "check_parity", counted)
    return made


def test_an_unchanged_model_is_compared_once(comparisons):
    model = small()
    copies = [to_tf_keras(model) for _ in range(3)]
    assert len(comparisons) == 1
    x = np.ones((1, 6, 6, 2), "float32")
    assert len({copy(x).numpy().tobytes() for copy in copies}) == 1
    check_parity(model, copies[0])  # called by the user, it always compares
    to_tf_keras(small())
    assert len(comparisons) == 2


def last_bit(model):
    value = model.get_layer("conv").kernel.numpy()
    value[1, 2, 0, 1] = np.nextafter(value[1, 2, 0, 1], np.float32(2.0))
    model.get_layer("conv").kernel.assign(value)


def sign_of_zero(model):
    model.get_layer("logits").bias.assign([-0.0, 0.0])


def statistics(model):
    model(np.ones((2, 6, 6, 2), "float32"), training=True)


def attribute(layer, name, value):
    def change(model):
        setattr(model.get_layer(layer), name, value)

    return change


def patched_call(model):
    layer = model.get_layer("limit")
    call = layer.call
    layer.call = lambda inputs: call(inputs)


CHANGED = {
    "the last bit of a weight": last_bit,
    "the sign of a zero": sign_of_zero,
    "moving statistics": statistics,
    "an activation": attribute("conv", "activation", keras.activations.tanh),
    "an activation of a user's": attribute("conv", "activation", bent),
    "an epsilon": attribute("norm", "epsilon", 1e-2),
    "a limit that no value reaches": attribute("limit", "max_value", 7.0),
    "a setting that no config holds": attribute("norm", "supports_masking", False),
    "a frozen layer": attribute("conv", "trainable", False),
    "a frozen model": lambda model: setattr(model, "trainable", False),
    "a replaced method": patched_call,
}


@pytest.mark.parametrize("what", CHANGED)
def test_whatever_changes_is_compared_again(what, comparisons):
    model = small()
    to_tf_keras(model)
    to_tf_keras(model)
    assert len(comparisons) == 1
    CHANGED[what](model)
    to_tf_keras(model)
    assert len(comparisons) == 2


def test_another_seed_is_another_comparison(comparisons):
    model = small()
    to_tf_keras(model)
    to_tf_keras(model, seed=1)
    assert len(comparisons) == 2


def test_a_class_that_is_registered_anew_is_compared_again(comparisons, monkeypatch):
    monkeypatch.setattr(bridge_layers, "_REGISTERED", dict(bridge_layers._REGISTERED))
    model = small()
    to_tf_keras(model)
    register_bridge(keras.layers.ReLU, host)
    to_tf_keras(model)
    to_tf_keras(model)
    assert len(comparisons) == 3


def user_function():
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation=bent)])


def user_layer():
    return keras.Sequential([keras.Input((4,)), Scaled()])


def user_layer_in_a_nested_model():
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.Sequential([keras.Input((3,)), Scaled()])])


def user_model():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(3)

        def call(self, inputs):
            return self.dense(inputs)

    model = Own()
    model(np.zeros((1, 4)))
    return model


@pytest.mark.parametrize("make", [user_function, user_layer, user_layer_in_a_nested_model, user_model], ids=lambda make: make.__name__)
def test_a_model_with_code_of_a_users_is_compared_every_time(make, comparisons):
    model = make()
    to_tf_keras(model)
    to_tf_keras(model)
    assert len(comparisons) == 2


def test_a_translation_that_changes_is_compared_again(comparisons, monkeypatch):
    model = small()
    to_tf_keras(model)
    monkeypatch.setattr(bridge_layers, "HOSTED", (*bridge_layers.HOSTED, "ReLU"))
    copy = to_tf_keras(model)
    assert type(copy.get_layer("limit")).__name__ == "KerasLayer"
    assert len(comparisons) == 2


def test_a_failed_comparison_is_repeated(comparisons, monkeypatch):
    model = small()

    def refuse(*args, **kwargs):
        comparisons.append(args)
        raise ValueError("no")

    monkeypatch.setattr(once, "check_parity", refuse)
    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            to_tf_keras(model)
    assert len(comparisons) == 2
