"""Layers that do not train: a plan says that they are frozen, and a step that changes their weights warns."""

import keras
import numpy as np
import pytest
from keras import layers

from tfdistill.compress import Cluster, Prune, QuantizeAware


def whole():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(8, name="frozen"), layers.Dense(2, name="head")])
    model.trainable = False
    return model, {"frozen", "head"}


def one():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(8, name="frozen"), layers.Dense(2, name="head")])
    model.get_layer("frozen").trainable = False
    return model, {"frozen"}


def backbone():
    inputs = keras.Input((4,))
    inner = keras.Model(inputs, layers.Dense(8, name="frozen")(inputs), name="backbone")
    inner.trainable = False
    inputs = keras.Input((4,))
    return keras.Model(inputs, layers.Dense(2, name="head")(inner(inputs))), {"backbone/frozen"}


def shared():
    inputs = keras.Input((4,))
    frozen = layers.Dense(4, name="frozen", trainable=False)
    inner = keras.Model(inputs, layers.Dense(4, name="own")(frozen(inputs)), name="inner")
    inputs = keras.Input((4,))
    return keras.Model(inputs, layers.Dense(2, name="head")(frozen(inner(inputs)))), {"frozen"}


def normalized():
    """A frozen convolution with its frozen normalization, folded in quantization-aware training."""
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, use_bias=False, trainable=False, name="frozen")(inputs)
    x = layers.BatchNormalization(trainable=False)(x)
    return keras.Model(inputs, layers.Dense(2, name="head")(layers.GlobalAveragePooling2D()(layers.ReLU()(x)))), {"frozen"}


MODELS = [whole, one, backbone, shared, normalized]
STEPS = {"prune": Prune(0.5, schedule="constant"), "cluster": Cluster(2)}


def excluding(step, names):
    return type(step)(**{"schedule": "constant"} if isinstance(step, Prune) else {"number_of_clusters": 2}, exclude=names)


def selecting(step, names):
    return type(step)(**{"schedule": "constant"} if isinstance(step, Prune) else {"number_of_clusters": 2}, layers=names)


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
@pytest.mark.parametrize("build", MODELS, ids=lambda build: build.__name__)
def test_the_plan_says_it_and_apply_warns(build, step):
    model, frozen = build()
    plan = step.plan(model)
    assert {row.name for row in plan.rows if "frozen, so that no training makes up for" in row.reason} == frozen
    with pytest.warns(UserWarning, match="in frozen layers of .* which no training makes up for") as caught:
        step.apply(model)
    assert all(f"'{name}'" in str(caught[0].message) for name in frozen)


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
@pytest.mark.parametrize("build", [one, backbone, shared, normalized], ids=lambda build: build.__name__)
def test_the_remedies_of_the_warning(build, step, rng):
    """An excluded frozen layer keeps its weights; for one that is named outright, the step does not warn."""
    model, frozen = build()
    kept = excluding(step, sorted(frozen)).apply(model)
    for name in frozen:
        np.testing.assert_array_equal(kept.get_layer(name).get_weights()[0], model_layer(model, name).get_weights()[0])
    selecting(step, sorted(frozen)).apply(model)


def model_layer(model, path):
    for name in path.split("/"):
        model = model.get_layer(name)
    return model


@pytest.mark.parametrize("build", [one, backbone, shared, normalized], ids=lambda build: build.__name__)
def test_quantization_says_that_frozen_weights_are_rounded(build, rng):
    model, frozen = build()
    step = QuantizeAware()
    assert {row.name for row in step.plan(model).rows if "frozen, its weights are rounded but do not move" in row.reason} == frozen
    adopted = step.apply(model)  # no warning: rounding is what the step does, and the ranges are trained
    before = [np.array(w) for name in frozen for w in adopted.get_layer(name).layer.get_weights()]
    x = rng.normal(size=(32, *model.input_shape[1:])).astype("float32")
    adopted.compile("sgd", "mse")
    adopted.fit(x, np.zeros((32, 2), "float32"), verbose=0)
    step.check(adopted)
    for kept, weight in zip(before, (w for name in frozen for w in adopted.get_layer(name).layer.get_weights()), strict=True):
        np.testing.assert_array_equal(kept, weight)
