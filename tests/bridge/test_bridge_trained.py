"""The bridge's check on trained nets: it takes rounding for no fault and a fault for no rounding, whatever training does to the weights."""

import keras
import numpy as np
import pytest
from keras import layers
from planted_faults import FAMILIES, FAULTS, checkpoints, copy_into, digits, places, planted

from tfdistill.bridge import check_parity, to_tf_keras
from tfdistill.errors import BridgeError

CHECKPOINTS = PLANTED = 20
FEW = ("mobilenet_v2", "resnet", "vit")


@pytest.mark.parametrize(
    "family", [pytest.param(name, marks=pytest.mark.slow if name in FEW else pytest.mark.release) for name in FAMILIES]
)
def test_no_checkpoint_is_refused_and_every_fault_is_found(family):
    model = FAMILIES[family]()
    rebuilt = to_tf_keras(model)
    for number, _ in enumerate(checkpoints(model, CHECKPOINTS, 0.5)):
        copy_into(model, rebuilt)
        check_parity(model, rebuilt, inputs=digits()[0][:2] if number % 2 else None, seed=number)
    rng, every = np.random.default_rng(0), places(rebuilt)
    by_fault = {fault: [name for other, name in every if other == fault] for fault in FAULTS}
    missed, count = [], 0
    while count < PLANTED:  # each kind of fault in turn, somewhere in the net
        for fault, names in by_fault.items():
            if names and count < PLANTED:
                name = names[rng.integers(len(names))]
                with planted(rebuilt, fault, name, rng) as wrong:
                    count += wrong
                    if wrong and found(model, rebuilt) != name:
                        missed.append((fault, name))
    assert missed == []
    check_parity(model, rebuilt)


def found(model, rebuilt):
    """Name of the layer that the check reports, None where it passes."""
    try:
        check_parity(model, rebuilt)
    except BridgeError as error:
        return str(error).partition("differs is '")[2].partition("'")[0].rpartition("/")[2]
    return None


def normalized(offset=0.0, spread=1.0, variance=None, mean=None, gamma=1.0, beta=0.0, epsilon=1e-3, kind="batch"):
    """A convolution whose channels have an offset and a spread, and a normalization with the statistics of that, or given ones."""
    inputs = keras.Input((6, 6, 4), name="image")
    x = layers.Conv2D(8, 1, name="conv")(inputs)
    if kind == "batch":
        x = layers.BatchNormalization(epsilon=epsilon, name="norm")(x)
    else:
        x = layers.LayerNormalization(epsilon=epsilon, name="norm")(x)
    x = layers.ReLU(6.0, name="relu")(x)
    model = keras.Model(inputs, layers.Dense(3, activation="softmax", name="classes")(layers.Flatten(name="flat")(x)), name="model")
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(1, 1, 4, 8)) * 0.5 * spread
    model.get_layer("conv").set_weights([kernel.astype("float32"), np.full(8, offset, "float32")])
    full = [np.full(8, gamma, "float32"), np.full(8, beta, "float32")]
    if kind == "batch":
        full += [
            np.full(8, offset if mean is None else mean, "float32"),
            np.full(8, spread**2 if variance is None else variance, "float32"),
        ]
    model.get_layer("norm").set_weights(full)
    return model


EXTREME = {
    "as usual": {},
    "a large offset": {"offset": 1e3},
    "a large offset, hardly any spread": {"offset": 1e2, "spread": 1e-3, "epsilon": 1e-5},
    "a dead channel": {"offset": 0.0, "spread": 0.0, "mean": 30.0, "variance": 1e-12, "beta": 948.0, "epsilon": 1e-3},
    "a dead channel that was alive": {"offset": 0.0, "spread": 0.0, "mean": 3.0, "variance": 4.0, "beta": 1.5},
    "beta against mean": {"offset": 0.0, "spread": 1e-3, "mean": -2.0, "variance": 1e-4, "beta": -60.3},
    "gamma huge": {"gamma": 1e4},
    "gamma tiny": {"gamma": 1e-6, "beta": 1.0},
    "variance huge": {"variance": 1e8},
    "variance zero": {"variance": 0.0, "offset": 5.0},
    "layer norm, a large offset": {"offset": 1e3, "kind": "layer"},
    "layer norm of quiet rows": {"spread": 1e-4, "offset": 1.0, "epsilon": 1e-9, "kind": "layer"},
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", EXTREME)
def test_rounding_of_a_normalization_is_no_fault(name, seed):
    model = normalized(**EXTREME[name])
    check_parity(model, to_tf_keras(model, check=False), seed=seed)


HIDDEN = {
    "behind a softmax that is 1": ({"beta": 40.0}, "classes", "kernel"),
    "of a channel that no input reaches": ({"beta": -40.0}, "classes", "kernel"),
    "in front of dead units": ({"beta": -40.0}, "conv", "kernel"),
    "beside a large offset": ({"offset": 1e3}, "conv", "kernel"),
}


@pytest.mark.parametrize("name", HIDDEN)
def test_a_fault_that_the_outputs_hide_is_found(name):
    settings, layer, weight = HIDDEN[name]
    model = normalized(**settings)
    head = model.get_layer("classes")
    head.kernel.assign(head.kernel * 1e3)
    rebuilt = to_tf_keras(model)
    variable = getattr(rebuilt.get_layer(layer), weight)
    value = variable.numpy()
    value[(0,) * value.ndim] += 0.05 * np.abs(value).max()
    variable.assign(value)
    assert found(model, rebuilt) == layer


def test_a_limit_that_no_value_reaches_is_found():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.ReLU(6.0, name="relu")(inputs), name="model")
    rebuilt = to_tf_keras(model)
    rebuilt.get_layer("relu").max_value = None
    assert found(model, rebuilt) == "relu"


def test_a_fault_in_a_nested_model_that_its_outputs_hide_is_found():
    inputs = keras.Input((6, 6, 4))
    model = keras.Model(inputs, layers.Dense(2)(normalized(beta=-40.0)(inputs)), name="outer")
    rebuilt = to_tf_keras(model)
    kernel = rebuilt.get_layer("model").get_layer("conv").kernel
    kernel.assign(kernel * 1.01)
    assert found(model, rebuilt) == "conv"


def test_weights_are_as_before_when_rounding_was_measured():
    model = normalized(**EXTREME["a dead channel"])
    rebuilt = to_tf_keras(model, check=False)
    before = rebuilt.get_weights()
    check_parity(model, rebuilt)
    for a, b in zip(before, rebuilt.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
