"""What the bridge keeps besides outputs: precision, flags, penalties, custom layers, variables of a model's own."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from zoo_models import nested, randomize

from tfdistill.bridge import check_parity, host, register_bridge, to_keras, to_tf_keras
from tfdistill.errors import BridgeError
from tfdistill.graph.tracing import open_model


def sequence(*parts, shape=(6,)):
    return keras.Sequential([keras.Input(shape), *parts], name="model")


def built(model, *inputs):
    model(*inputs)
    return model


def test_a_lambda_when_it_is_allowed():
    model = sequence(layers.Lambda(lambda x, by: x * by, arguments={"by": 3.0}), layers.Dense(2))
    check_parity(model, to_tf_keras(model, allow_lambda=True))


class Scaled(layers.Layer):
    """A custom layer with a weight and an inner layer."""

    def __init__(self, by=2.0, **kwargs):
        super().__init__(**kwargs)
        self.by, self.inner = by, layers.Dense(3)

    def build(self, shape):
        self.offset = self.add_weight(shape=(3,), name="offset")
        self.inner.build(shape)

    def call(self, inputs):
        return self.by * self.inner(inputs) + self.offset

    def get_config(self):
        return {**super().get_config(), "by": self.by}


def test_a_registered_custom_layer():
    keras.saving.get_custom_objects()["Scaled"] = Scaled
    register_bridge(Scaled, host)
    model = randomize(sequence(Scaled(3.0, name="scaled"), layers.Dense(2)))
    rebuilt = to_tf_keras(model)
    assert check_parity(model, rebuilt).max_abs_error == 0.0
    rebuilt.get_layer("scaled").weights[0].assign_add([1.0, 1.0, 1.0])
    fresh = to_keras(rebuilt, model)
    np.testing.assert_array_equal(fresh.get_layer("scaled").offset, model.get_layer("scaled").offset + 1.0)


class Unregistered(Scaled):
    """Keras cannot find this class by its name, nor make a second one."""

    def get_config(self):
        raise NotImplementedError


def test_a_hosted_layer_that_keras_cannot_make_again():
    register_bridge(Unregistered, host)
    with pytest.raises(BridgeError, match=r"'plain' \(Unregistered\)[\s\S]*register_keras_serializable"):
        to_tf_keras(sequence(Unregistered(name="plain")))


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "bfloat16", "float64"])
def test_precision(policy):
    before = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy(policy)
        model = sequence(layers.Conv1D(4, 3), layers.BatchNormalization(), layers.Flatten(), layers.Dense(3, dtype="float32"), shape=(8, 4))
    finally:
        keras.config.set_dtype_policy(before)
    rebuilt = to_tf_keras(randomize(model))
    assert check_parity(model, rebuilt).max_abs_error == 0.0
    assert [layer.compute_dtype for layer in rebuilt.layers] == [layer.compute_dtype for layer in model.layers]
    assert [layer.dtype_policy.name for layer in to_keras(rebuilt, model).layers] == [layer.dtype_policy.name for layer in model.layers]


def test_trainable_flags_are_kept():
    model = nested()
    model.get_layer("middle").trainable = False
    model.get_layer("middle").get_layer("inner").layers[1].trainable = True
    rebuilt = to_tf_keras(model)
    for fresh in (rebuilt, to_keras(rebuilt, model)):
        inner = [m.get_layer("middle").get_layer("inner").layers for m in (fresh, model)]
        assert [layer.trainable for layer in inner[0] if layer.weights] == [layer.trainable for layer in inner[1] if layer.weights]
        assert len(fresh.trainable_weights) == len(model.trainable_weights)


def test_penalties_and_constraints_are_kept():
    model = sequence(
        layers.Dense(4, kernel_regularizer=keras.regularizers.L1L2(0.1, 0.2), bias_constraint="non_neg", name="a"),
        layers.BatchNormalization(gamma_regularizer="l1"),
        layers.Dense(4, bias_regularizer="l2", kernel_constraint=keras.constraints.MaxNorm(2)),
    )
    rebuilt = to_tf_keras(randomize(model))
    np.testing.assert_allclose(sum(rebuilt.losses), sum(model.losses), rtol=1e-6)
    assert [type(layer.bias_constraint).__name__ for layer in rebuilt.layers[::2]] == ["NonNeg", "NoneType"]
    assert rebuilt.layers[2].kernel_constraint.max_value == 2


class Tokens(keras.Model):
    """Integers in, and a variable that an operation uses."""

    def __init__(self):
        super().__init__(name="tokens")
        self.embed, self.head = layers.Embedding(9, 4, name="embed"), layers.Dense(2, name="head")
        self.bias = self.add_weight(shape=(4,), initializer="ones", name="bias")

    def call(self, inputs):
        return self.head(ops.mean(self.embed(inputs) + self.bias, axis=1))

    def get_config(self):
        return {}


class WithoutConfig(Tokens):
    def get_config(self):
        raise NotImplementedError


def tokens(kind):
    model = built(kind(), np.zeros((2, 5), "int32"))
    return randomize(model), keras.Input((5,), dtype="int32", name="ids")


def test_a_subclass_with_given_inputs_and_a_variable_of_its_own():
    model, inputs = tokens(Tokens)
    before = model.get_weights()
    rebuilt = to_tf_keras(model, inputs=inputs)
    assert rebuilt.inputs[0].dtype == "int32"
    check_parity(open_model(model, inputs), rebuilt)
    for weight in rebuilt.weights:
        weight.assign_add(np.ones(weight.shape, "float32"))
    fresh = to_keras(rebuilt, model, inputs=inputs)
    for a, b, c in zip(before, model.get_weights(), fresh.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a + 1, c)


def test_a_variable_that_a_clone_would_share():
    model, inputs = tokens(WithoutConfig)
    before, rebuilt = model.get_weights(), to_tf_keras(model, inputs=inputs)
    with pytest.raises(BridgeError, match=r"'tokens/add'.*tokens/bias.*share[\s\S]*get_config"):
        to_keras(rebuilt, model, inputs=inputs)
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
