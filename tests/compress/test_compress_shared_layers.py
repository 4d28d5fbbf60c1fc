"""Layers that a nested model shares with the model around it, or with another nested one: one layer before a step, in it, and after it."""

import keras
import numpy as np
import pytest
from keras import layers
from opened_models import opened

from tfdistill import export_tflite, load_model
from tfdistill.compress import Cluster, Prune, Quantize, QuantizeAware
from tfdistill.compress.selection import Layers
from tfdistill.errors import ModelError

STEPS = {"prune": Prune(sparsity=0.5, schedule="constant"), "cluster": Cluster(4), "quantize": QuantizeAware()}


def inside_and_outside():
    """A Dense of a nested model that the outer model calls once more."""
    inputs = keras.Input((4,))
    shared = layers.Dense(4, name="shared")
    inner = keras.Model(inputs, layers.Dense(4, name="own")(shared(inputs)), name="inner")
    inputs = keras.Input((4,))
    return keras.Model(inputs, layers.Dense(2, name="head")(shared(inner(inputs))))


def two_nested():
    """An Embedding that two nested models look up in."""
    shared = layers.Embedding(16, 4, name="shared")

    def tower(name):
        inputs = keras.Input((3,), dtype="int32")
        return keras.Model(inputs, layers.Dense(4, name=f"of_{name}")(layers.Flatten()(shared(inputs))), name=name)

    inputs = keras.Input((3,), dtype="int32")
    return keras.Model(inputs, layers.Dense(2, name="head")(layers.Add()([tower("left")(inputs), tower("right")(inputs)])))


def siamese():
    """A nested model that is called twice."""
    inputs = keras.Input((2,))
    tower = keras.Model(inputs, layers.Dense(4, activation="relu", name="shared")(inputs), name="tower")
    inputs = keras.Input((4,))
    sides = tower(inputs[:, :2]), tower(inputs[:, 2:])
    return keras.Model(inputs, layers.Dense(2, name="head")(layers.Subtract()(sides)))


def nested_in_two():
    """A nested model inside another one and beside it."""
    inputs = keras.Input((4,))
    tower = keras.Model(inputs, layers.Dense(4, name="shared")(inputs), name="tower")
    inputs = keras.Input((4,))
    block = keras.Model(inputs, layers.Dense(4, name="own")(tower(inputs)), name="block")
    inputs = keras.Input((4,))
    return keras.Model(inputs, layers.Dense(2, name="head")(tower(block(inputs))))


def over_time():
    """A Dense called by itself on what a nested model made with it."""
    shared = layers.Dense(4, name="shared")
    inputs = keras.Input((3, 4))
    inner = keras.Model(inputs, shared(inputs), name="inner")
    inputs = keras.Input((3, 4))
    return keras.Model(inputs, layers.Dense(2, name="head")(layers.GlobalAveragePooling1D()(shared(inner(inputs)))))


MODELS = [inside_and_outside, two_nested, siamese, nested_in_two, over_time]


def data_for(model, rng):
    shape = (64, *model.inputs[0].shape[1:])
    x = rng.integers(0, 16, shape).astype("int32") if model.inputs[0].dtype == "int32" else rng.normal(size=shape).astype("float32")
    return x, rng.normal(size=(64, 2)).astype("float32")


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
@pytest.mark.parametrize("build", MODELS, ids=lambda build: build.__name__)
def test_shared_stays_shared(build, step, rng):
    model = build()
    x, y = data_for(model, rng)
    plan = step.plan(model)
    assert [row.name.rpartition("/")[2] for row in plan.rows].count("shared") == 1
    assert sum(row.parameters for row in plan.rows) == model.count_params()
    adopted = step.apply(model)
    assert adopted.count_params() == model.count_params()
    adopted.compile(keras.optimizers.SGD(0.05), "mse")
    adopted.fit(x, y, batch_size=16, epochs=2, verbose=0, callbacks=step.callbacks())
    stripped = step.strip(adopted)
    np.testing.assert_allclose(stripped.predict(x, verbose=0), adopted.predict(x, verbose=0), atol=1e-6)
    assert stripped.count_params() == model.count_params()
    step.check(stripped)


def test_each_path_of_a_shared_layer_names_it():
    model = opened(inside_and_outside)
    assert Prune(0.5, schedule="constant", layers="inner/shared").plan(model).names("done") == ["shared"]
    assert Prune(0.5, schedule="constant", layers="shared").plan(model).names("done") == ["shared"]
    assert Prune(0.5, schedule="constant", layers="inner").plan(model).names("done") == ["shared", "inner/own"]
    assert Prune(0.5, schedule="constant", exclude="inner").plan(model).names("done") == ["head"]
    assert QuantizeAware(weight_bits={"inner/shared": 4, "*": 8}).plan(model).row("shared").reason.endswith("4 bits")
    with pytest.raises(ModelError, match="'inner/shared'"):
        Prune(0.5, schedule="constant", layers="inner/shraed").plan(model)


def test_layers_hold_each_once():
    one, two = object(), object()
    found = Layers({"b/x": one, "a/x": one, "y": two, "a/y": two})
    assert found == {"a/x": one, "y": two}
    assert found.aliases == {"b/x": "a/x", "a/y": "y"}


# Layers that see small numbers in one call and large ones in the next, as the second block of a transformer does that has the weights of the first.
AGAIN = {
    "dense": lambda: layers.Dense(4, activation="tanh", name="again"),
    "normalization": lambda: layers.LayerNormalization(epsilon=1e-12, name="again"),
    "attention": lambda: layers.MultiHeadAttention(1, 4, name="again"),
    "activation": lambda: layers.Activation("gelu", name="again"),
    "merging": lambda: layers.Add(name="again"),
}
SEQUENCES = np.random.default_rng(0).normal(size=(64, 5, 4)).astype("float32")


def called_again(kind):
    """A layer on small numbers, on large ones, and on the same small ones once more."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((5, 4))
    layer, small = AGAIN[kind](), layers.Rescaling(0.003)(inputs)
    several = {"attention": lambda x: layer(x, x), "merging": lambda x: layer([x, x])}.get(kind, layer)
    return keras.Model(inputs, {"small": several(small), "large": several(inputs), "same": several(small)})


def far(outputs, model):
    """Mean difference of each output from a model's, as a share of its own range."""
    references = {name: np.asarray(x) for name, x in model(SEQUENCES, training=False).items()}
    return {name: float(np.abs(np.asarray(outputs[name]) - x).mean() / np.ptp(x)) for name, x in references.items()}


@pytest.mark.parametrize("kind", AGAIN)
def test_each_call_has_ranges_of_its_own(kind):
    model = called_again(kind)
    made = Quantize().apply(model, SEQUENCES)
    assert max(far(made(SEQUENCES, training=False), model).values()) < 0.02
    known = set(made.get_layer("again").ranges)
    first = {what for what in known if "@" not in what}
    assert known == first | {f"{what}@1" for what in first}
    assert any("@" in what for what in known)


def test_the_ranges_of_each_call_are_saved_and_exported(tmp_path):
    model = called_again("normalization")
    made = Quantize().apply(model, SEQUENCES)
    made.save(tmp_path / "made.keras")
    loaded = load_model(tmp_path / "made.keras")
    for name, outputs in made(SEQUENCES, training=False).items():
        np.testing.assert_array_equal(loaded(SEQUENCES, training=False)[name], outputs)
    record = export_tflite(loaded, tmp_path / "made.tflite", "int8", verify_on=SEQUENCES)
    assert max(output.mean_abs_error / output.scale for output in record.verification.outputs.values()) < 0.02
