"""Random small graphs of convolutions, sums, concatenations, squeeze-excite and flattening lose channels and compute what they should."""

import keras
import pytest
from channel_models import randomized
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keras import layers

import tfdistill
from tfdistill.compress import PruneChannels

KINDS = ("conv", "depthwise", "norm", "add", "concat", "excite", "multiply", "activation", "split", "shared", "grouped")


def grown(choices):
    """A graph of 4 x 4 images: each choice is a kind, the number of an earlier tensor, that of another one, and a number of channels."""
    inputs = keras.Input((4, 4, 3))
    tensors = [layers.Conv2D(6, 1, name="stem")(inputs)]
    common = layers.Conv2D(6, 1, name="common")
    for kind, one, other, width in choices:
        x, y = tensors[one % len(tensors)], tensors[other % len(tensors)]
        if kind == "conv":
            x = layers.Conv2D(width, 3, padding="same", activation="relu")(x)
        elif kind == "depthwise":
            x = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=1 + width % 2)(x)
        elif kind == "norm":
            x = layers.BatchNormalization()(x)
        elif kind in ("add", "multiply"):
            if x.shape[-1] != y.shape[-1]:
                y = layers.Conv2D(x.shape[-1], 1)(y)
            x = (layers.Add() if kind == "add" else layers.Multiply())([x, y])
        elif kind == "concat":
            x = layers.Concatenate()([x, y])
        elif kind == "excite":
            s = layers.GlobalAveragePooling2D(keepdims=True)(x)
            x = x * layers.Conv2D(x.shape[-1], 1, activation="sigmoid")(layers.Conv2D(width, 1, activation="relu")(s))
        elif kind == "activation":
            x = keras.ops.silu(x)
        elif kind == "split" and x.shape[-1] % 2 == 0:
            x, y = keras.ops.split(x, 2, axis=-1)
            tensors.append(y)
        elif kind == "shared" and x.shape[-1] == 6:
            x = common(x)
        elif kind == "grouped":
            x = layers.Conv2D(2 * width, 1, groups=2)(layers.Conv2D(2 * width, 1)(x))
        tensors.append(x)
    x, y = tensors[-1], tensors[len(tensors) // 2]
    flat = layers.Concatenate()([layers.Flatten()(layers.MaxPooling2D(2)(x)), layers.GlobalAveragePooling2D()(y)])
    return randomized(keras.Model(inputs, layers.Dense(3, name="logits")(flat), name="grown"))


CHOICE = st.tuples(st.sampled_from(KINDS), st.integers(0, 9), st.integers(0, 9), st.integers(2, 8))
STEP = PruneChannels(keep_channels=0.8, divisor=1, criterion="random", scope="layer")


def prune(choices):
    model = grown(choices)
    plan = STEP.plan(model)
    small = STEP.apply(model) if not any("cannot be met" in line for line in plan.findings) else None
    if small is not None:
        record = tfdistill.profile(small)
        assert (record.parameters, record.macs) == (plan.expected_parameters, plan.expected_macs)
    return small


@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.lists(CHOICE, min_size=2, max_size=5))
def test_random_graphs(choices):
    prune(choices)


@pytest.mark.slow
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.lists(CHOICE, min_size=3, max_size=9))
def test_larger_random_graphs(choices):
    prune(choices)
