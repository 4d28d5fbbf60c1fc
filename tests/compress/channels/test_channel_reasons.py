"""What channels cannot be followed through is left whole, with the reason in the plan, and the rest of the model is pruned."""

import functools

import keras
import numpy as np
import pytest
from channel_models import randomized
from keras import layers, ops

from tfdistill.compress import PruneChannels, register_channels
from tfdistill.errors import ModelError


def dense_model(body, shape=(6, 5), batch=None):
    """A model of sequences: `free` is pruned, `held` cannot be, as it goes into `body`."""
    inputs = keras.Input(batch_shape=(batch, *shape))
    x = layers.Dense(8, activation="relu", name="free")(inputs)
    x = body(layers.Dense(8, name="held")(x))
    x = layers.Flatten()(x) if len(x.shape) > 2 else x
    return randomized(keras.Model(inputs, layers.Dense(3, name="logits")(x), name="net"))


def own(x):
    """A layer of the user's own."""

    class Own(layers.Layer):
        def call(self, x):
            return x

    return Own(name="own")(x)


def states_first(x):
    """Two directions that are called with states, and then without."""
    both = layers.Bidirectional(layers.GRU(4), name="both")
    states = [layers.GlobalAveragePooling1D()(layers.Dense(4)(x)) for _ in range(2)]
    return layers.Concatenate()([both(x, initial_state=states), both(layers.Dense(8, name="other")(x))])


def nested_in_time(x):
    inner = keras.Sequential([keras.Input((8,)), layers.Dense(4)])
    return layers.TimeDistributed(inner, name="timed")(x)


# Function -> a part of the reason.
REASONS = {
    "a class of the user's": (own, "Own is no class of Keras's: tfdistill.compress.open_layers"),
    "a function": (lambda x: layers.Lambda(lambda x: x)(x), "no rule is known for a Lambda"),
    "attention without weights": (lambda x: layers.Attention()([x, x]), "no rule is known for a Attention"),
    "a product": (lambda x: ops.prod(x, axis=-1), "prod over them"),
    "a softmax": (lambda x: layers.Softmax()(x), "a softmax over them"),
    "a softmax operation": (lambda x: ops.softmax(x), "softmax over them"),
    "a softmax as activation": (
        lambda x: layers.Activation("softmax")(x),
        "its activation softmax does not compute each channel of its own",
    ),
    "a mask": (lambda x: layers.LSTM(4)(layers.Masking()(x)), "the mask depends on them"),
    "an index": (lambda x: x[..., 2], "some of them are picked"),
    "an array": (lambda x: x + np.ones(8, "float32"), "meets channels that are left whole"),
    "a number for each": (lambda x: layers.Rescaling([1.0] * 8)(x), "a number for each channel"),
    "the inputs of the model": (lambda x: layers.Concatenate()([x, x]) + keras.ops.ones((16,)), "meets channels that are left whole"),
    "a repeated axis": (lambda x: x * layers.Dense(1, name="one")(x), None),
    "other ranks": (lambda x: layers.Add()([x, layers.GlobalAveragePooling1D()(x)]), "different numbers of axes"),
    "a model in time": (nested_in_time, "no rule is known for the layer inside"),
    "cells": (lambda x: layers.RNN([layers.GRUCell(4), layers.LSTMCell(4)])(x), "no rule is known for a RNN"),
    "an ellipsis": (lambda x: layers.EinsumDense("...c,cd->...d", (4,))(x), "an ellipsis in its equation"),
    "directions": (
        lambda x: layers.Add()(layers.Bidirectional(layers.GRU(4), merge_mode=None)(x)),
        "its directions return states, several outputs or different widths",
    ),
    "states, then none": (states_first, "no rule is known for the layers inside, or for their states"),
    "a place": (lambda x: ops.cast(ops.argmax(x, axis=-1), "float32"), "argmax over them"),
    "a sum of all": (lambda x: ops.reshape(ops.cumsum(x), (-1, 6, 8)), "it flattens its input"),
    "several axes": (lambda x: layers.MultiHeadAttention(2, 4, output_shape=(2, 4))(x, x), "its output has several axes"),
    "sorting": (lambda x: ops.sort(x), "sort over them"),
    "a roll": (lambda x: ops.roll(x, 1, axis=-1), "roll over them"),
    "vectors": (lambda x: ops.matmul(x, np.ones((8,), "float32")), "a product with a vector"),
    "an einsum": (lambda x: ops.einsum("abc->ab", x), "summed"),
    "other places": (lambda x: ops.reshape(x, (-1, 4, 12)), None),
}
STEP = PruneChannels(keep_channels=0.9, divisor=1, scope="layer")


@functools.cache
def held(name):
    return dense_model(REASONS[name][0])


@pytest.mark.parametrize("name", REASONS)
def test_the_reason_is_in_the_plan(name):
    said = REASONS[name][1]
    plan, small = STEP.plan(held(name)), STEP.apply(held(name))
    assert small.get_layer("free").units < 8
    if said is not None:
        assert said in plan.row("held").reason
        assert small.get_layer("held").units == 8


def test_a_state_from_batch_to_batch():
    model = dense_model(lambda x: layers.LSTM(4, stateful=True, name="lstm")(x), batch=2)
    assert "it keeps its state from batch to batch" in STEP.plan(model).row("held").reason
    assert STEP.apply(model).get_layer("free").units < 8


def test_quantized_weights_are_left_whole():
    model = dense_model(lambda x: layers.Dense(4, name="last")(x))
    model.get_layer("last").quantize("int8")
    plan = STEP.plan(model)
    assert "its weights are quantized" in plan.row("held").reason
    assert plan.row("free").removed


@keras.saving.register_keras_serializable("channels")
class Forgetful(layers.Layer):
    """A dense layer of the user's own, whose rule forgets the argument of its constructor."""

    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.width = width

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], self.width))

    def call(self, x):
        return ops.matmul(x, self.kernel)

    def get_config(self):
        return {**super().get_config(), "width": self.width}


def forgetful(call):
    width = call.new(call.layer.width)
    call.weight(call.layer.kernel, {0: call.inputs[0][-1], 1: width}, kernel=True)
    return [(*call.inputs[0][:-1], width)]


def test_a_rule_that_forgets_an_argument_is_found_out():
    register_channels(Forgetful, forgetful)
    model = dense_model(lambda x: Forgetful(8, name="own")(x))
    with pytest.raises(ModelError, match=r"'own' \(Forgetful\) made again has a weight of the shape") as caught:
        STEP.apply(model)
    assert caught.value.fix == "exclude it: exclude='own'"
    assert PruneChannels(keep_channels=0.9, divisor=1, exclude="own").apply(model).get_layer("own").width == 8


def test_a_class_without_a_config_is_said():
    class Unmade(layers.Layer):
        def __init__(self, factor):
            super().__init__(name="unmade")
            self.factor = factor

        def call(self, x):
            return x * self.factor

    model = dense_model(lambda x: Unmade(2.0)(x))
    with pytest.raises(ModelError, match=r"'unmade' \(Unmade\) cannot be made again from its config"):
        STEP.apply(model)


def test_half_precision():
    inputs = keras.Input((6, 5))
    x = layers.Dense(16, activation="relu", name="free", dtype="mixed_float16")(inputs)
    x = layers.MultiHeadAttention(2, 8, name="attention", dtype="mixed_bfloat16")(x, x)
    x = layers.GlobalAveragePooling1D(dtype="float32")(layers.LayerNormalization(dtype="mixed_float16")(x))
    model = keras.Model(inputs, layers.Dense(3, name="logits", dtype="float32")(x))
    small = STEP.apply(model)
    assert small.get_layer("attention").dtype_policy.name == "mixed_bfloat16"
    assert small.count_params() < model.count_params()


@pytest.mark.parametrize(
    "name",
    [
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("MobileNetV3Small", "EfficientNetB0", "ConvNeXtTiny")),
        pytest.param("InceptionResNetV2", marks=pytest.mark.release),
    ],
)
def test_known_nets(name):
    size = 96 if name.startswith("Inception") else 64
    model = getattr(keras.applications, name)(weights=None, input_shape=(size, size, 3), classes=10)
    plan = PruneChannels(keep_macs=0.7).plan(model)
    small = PruneChannels(keep_macs=0.7).apply(model)
    assert 0.68 < plan.expected_macs / plan.macs <= 0.7
    assert small.count_params() == plan.expected_parameters
