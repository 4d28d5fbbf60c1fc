"""`strip` returns a model like the one that `apply` got, whatever its class, names and order. Otherwise `apply` refuses it, or the weights are saved."""

import pathlib
import re

import keras
import numpy as np
import pytest
from keras import layers, ops
from kernel_models import Moody

from tfdistill.bridge import AdoptedModel, host, register_bridge, to_tf_keras
from tfdistill.bridge.convert import layers as convert_layers
from tfdistill.compress import Cluster, Prune
from tfdistill.errors import BridgeError

PRUNE = Prune(0.5, schedule="constant", frequency=1)


@keras.saving.register_keras_serializable("tests")
class AttributeFirst(keras.Model):
    """A functional model of a user's class. What it sets before `super().__init__` is first among its weights."""

    def __init__(self, width=5, **kwargs):
        inputs = keras.Input((4,))
        first, second = layers.Dense(width, name="first"), layers.Dense(width, name="second")
        self.head = layers.Dense(3, name="head")
        super().__init__(inputs, self.head(first(inputs) + second(inputs)), **kwargs)
        self.width = width

    def get_config(self):
        return {"name": self.name, "width": self.width}


class WithoutConfig(AttributeFirst):
    def get_config(self):
        raise NotImplementedError


class ForgetsItsWidth(AttributeFirst):
    def get_config(self):
        return {"name": self.name}


class ForgetsItsActivation(keras.Model):
    """A model made from its config has weights of the same shapes, but computes something else."""

    def __init__(self, activation="relu", **kwargs):
        super().__init__(**kwargs)
        self.hidden = layers.Dense(6, activation=activation, name="hidden")
        self.head = layers.Dense(3, name="head")

    def call(self, inputs):
        return self.head(self.hidden(inputs))

    def get_config(self):
        return {"name": self.name}


@keras.saving.register_keras_serializable("tests")
class LastFirst(keras.Model):
    """Its attributes are in another order than its calls; one of them is never called."""

    def __init__(self, width=6, **kwargs):
        super().__init__(**kwargs)
        self.width = width
        self.head = layers.Dense(3, name="head")
        self.unused = layers.Dense(2, name="unused")
        self.hidden = layers.Dense(width, name="hidden")

    def build(self, input_shape):
        self.unused.build((None, 7))

    def call(self, inputs):
        return self.head(self.hidden(inputs))

    def get_config(self):
        return {**super().get_config(), "width": self.width}


class NeedsItsWidth(keras.Model):
    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.hidden, self.head = layers.Dense(width, name="hidden"), layers.Dense(3, name="head")

    def call(self, inputs):
        return self.head(self.hidden(inputs))

    def get_config(self):
        raise NotImplementedError


def called(model):
    model(np.zeros((1, 4), "float32"))
    return model


def mlp():
    inputs = keras.Input((4,))
    return keras.Model(inputs, layers.Dense(3, name="head")(layers.Dense(6, name="hidden")(inputs)), name="mlp")


def nested(kind, **arguments):
    inputs = keras.Input((4,))
    return keras.Model(inputs, layers.Dense(3, name="last")(kind(name="inner", **arguments)(inputs)), name="nested")


def shared():
    """A layer and a nested model that are called twice each."""
    inputs, inner = keras.Input((4,)), keras.Input((4,))
    core = keras.Model(inner, layers.Dense(4, name="inside")(inner), name="core")
    square = layers.Dense(4, name="square")
    return keras.Model(inputs, layers.Dense(3, name="head")(core(square(core(square(inputs))))), name="shared")


def as_it_is(original, adopted):
    pass


def renamed(original, adopted):
    original.name = "another"


def renamed_layer(original, adopted):
    original.get_layer("hidden").name = "another"


def renamed_layers(original, adopted):
    for name in ("hidden", "head"):
        original.get_layer(name).name = f"new_{name}"


def weight_in_the_original(original, adopted):
    original.average = original.add_weight(name="average", shape=(2,))


def weight_of_a_callback(original, adopted):
    adopted.average = keras.Variable(np.zeros(3, "float32"), name="average")


FUNCTIONAL = type(mlp())
MODELS = {
    "attribute before super().__init__": (lambda: AttributeFirst(7, name="own"), AttributeFirst, as_it_is),
    "the same without get_config": (lambda: WithoutConfig(7, name="own"), FUNCTIONAL, as_it_is),
    "the same with a get_config that forgets": (lambda: ForgetsItsWidth(7, name="own"), FUNCTIONAL, as_it_is),
    "the same, nested": (lambda: nested(AttributeFirst, width=7), FUNCTIONAL, as_it_is),
    "the same, nested, without get_config": (lambda: nested(WithoutConfig, width=7), FUNCTIONAL, as_it_is),
    "subclass, attributes in another order": (lambda: called(LastFirst(name="own")), LastFirst, as_it_is),
    "subclass, nested": (lambda: nested(LastFirst), FUNCTIONAL, as_it_is),
    "subclass that cannot be made again": (lambda: called(NeedsItsWidth(6, name="own")), FUNCTIONAL, as_it_is),
    "subclass that is made otherwise": (lambda: called(ForgetsItsActivation("tanh", name="own")), FUNCTIONAL, as_it_is),
    "shared layers": (shared, FUNCTIONAL, as_it_is),
    "model renamed since": (mlp, FUNCTIONAL, renamed),
    "layer renamed since": (mlp, FUNCTIONAL, renamed_layer),
    "layers renamed since": (mlp, FUNCTIONAL, renamed_layers),
    "weight added to the original": (mlp, FUNCTIONAL, weight_in_the_original),
    "weight added by a callback": (mlp, FUNCTIONAL, weight_of_a_callback),
}


def trained(adopted, seed=0):
    """Gives every trainable weight another value, as training would."""
    rng = np.random.default_rng(seed)
    for variable in adopted.trainable_variables:
        variable.assign(variable + rng.normal(size=variable.shape).astype("float32"))


def values(model):
    return [np.array(w) for w in model.weights]


@pytest.mark.parametrize("step", [PRUNE, Cluster(4)], ids=["prune", "cluster"])
@pytest.mark.parametrize("name", MODELS)
def test_strip_returns_every_model(name, step, rng):
    make, kind, change = MODELS[name]
    original = make()
    adopted = step.apply(original)
    trained(adopted)
    change(original, adopted)
    before = values(original)
    stripped = step.strip(adopted)
    x = rng.normal(size=(8, 4)).astype("float32")
    np.testing.assert_allclose(stripped(x), adopted(x), rtol=1e-5, atol=1e-5)
    assert type(stripped) is kind
    assert stripped.name == original.name
    for a, b in zip(before, values(original), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not {id(w) for w in stripped.weights} & {id(w) for w in original.weights}


def test_a_weight_that_no_call_uses_keeps_its_value():
    original = called(LastFirst(name="own"))
    adopted = PRUNE.apply(original)
    trained(adopted)
    np.testing.assert_array_equal(PRUNE.strip(adopted).unused.kernel, original.unused.kernel)


def test_strip_works_on_a_loaded_model(tmp_path, rng):
    adopted = PRUNE.apply(AttributeFirst(7, name="own"))
    trained(adopted)
    adopted.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    x = rng.normal(size=(8, 4)).astype("float32")
    np.testing.assert_allclose(PRUNE.strip(loaded)(x), adopted(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("step", [PRUNE, Cluster(4)], ids=["prune", "cluster"])
def test_of_a_tf_keras_model_strip_returns_an_adopted_one(step, rng):
    adopted = step.apply(to_tf_keras(mlp()))
    trained(adopted)
    stripped = step.strip(adopted)
    x = rng.normal(size=(8, 4)).astype("float32")
    np.testing.assert_allclose(stripped(x), adopted(x), rtol=1e-5, atol=1e-5)
    assert isinstance(stripped, AdoptedModel)
    assert PRUNE.apply(stripped).get_layer("hidden") is not None


def test_strip_works_on_nan_weights():
    adopted = PRUNE.apply(mlp())
    adopted.trainable_variables[0].assign(np.full((4, 6), np.nan, "float32"))
    assert np.isnan(PRUNE.strip(adopted)(np.ones((1, 4), "float32"))).all()


class Twice(layers.Dense):
    """Its config lacks the number of units."""

    def call(self, inputs):
        return 2.0 * super().call(inputs)

    def get_config(self):
        return {"name": self.name}


def own_function(x):
    return x * 0.5


def with_own_function():
    inputs = keras.Input((4,))
    return keras.Model(inputs, layers.Dense(3, activation=own_function, name="head")(layers.Dense(6)(inputs)), name="functions")


def with_variable():
    inputs = keras.Input((4,))
    return keras.Model(inputs, ops.add(layers.Dense(6)(inputs), keras.Variable(np.ones(6, "float32"), name="offset")), name="variable")


def with_layer_without_config():
    inputs = keras.Input((4,))
    return keras.Model(inputs, Twice(6, name="twice")(inputs), name="layers")


def build_twice(layer, base):
    from tfdistill.bridge.imports import tf_keras

    class Doubled(tf_keras().layers.Dense):
        def call(self, inputs):
            return 2.0 * super().call(inputs)

    return Doubled(layer.units, **base)


NOT_STRIPPABLE = {
    "a function that Keras cannot find": (with_own_function, r"'head' \(Dense\)"),
    "a variable that no layer owns": (with_variable, "offset"),
    "a layer that cannot be made again": (with_layer_without_config, r"'twice' \(Twice\)"),
}


@pytest.mark.parametrize("step", [PRUNE, Cluster(4)], ids=["prune", "cluster"])
@pytest.mark.parametrize("name", NOT_STRIPPABLE)
def test_a_model_that_cannot_be_stripped_is_refused_before_training(name, step):
    make, words = NOT_STRIPPABLE[name]
    register_bridge(Twice, build_twice)
    try:
        with pytest.raises(BridgeError, match=words):
            step.apply(make())
    finally:
        convert_layers._REGISTERED.pop(Twice)


def test_the_remedy_for_a_function(rng):
    keras.saving.register_keras_serializable("tests")(own_function)
    adopted = PRUNE.apply(with_own_function())
    trained(adopted)
    x = rng.normal(size=(8, 4)).astype("float32")
    np.testing.assert_allclose(PRUNE.strip(adopted)(x), adopted(x), rtol=1e-5, atol=1e-5)


def test_an_original_that_has_other_weights_since(tmp_path, monkeypatch, rng):
    monkeypatch.chdir(tmp_path)
    original = mlp()
    adopted = PRUNE.apply(original)
    trained(adopted)
    original.get_layer("hidden").enable_lora(1)
    with pytest.raises(BridgeError, match=r"'mlp/hidden' do not match") as caught:
        PRUNE.strip(adopted)
    again = PRUNE.apply(mlp())
    again.load_weights(saved_in(caught.value))
    x = rng.normal(size=(8, 4)).astype("float32")
    np.testing.assert_allclose(PRUNE.strip(again)(x), adopted(x), rtol=1e-5, atol=1e-5)


def saved_in(error):
    return re.search(r"saved in (.*)\.\n", str(error))[1]


@pytest.mark.parametrize("writable", [True, False], ids=["working directory", "temporary directory"])
def test_weights_that_strip_cannot_return_are_saved_first(writable, tmp_path, monkeypatch, rng):
    monkeypatch.chdir(tmp_path)
    if not writable:
        import tempfile

        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "system"))
        (tmp_path / "system").mkdir()
        monkeypatch.setattr(pathlib.Path, "cwd", lambda: tmp_path / "missing")
    register_bridge(Moody, host)
    try:
        inputs = keras.Input((4,))
        original = keras.Model(inputs, layers.Dense(3, name="head")(Moody(6, name="moody")(inputs)), name="a model of ours")
        adopted = PRUNE.apply(original)
        trained(adopted)
        monkeypatch.setattr(Moody, "willing", False)
        with pytest.raises(BridgeError, match=r"not today[\s\S]*saved in") as caught:
            PRUNE.strip(adopted)
        monkeypatch.setattr(Moody, "willing", True)
        again = PRUNE.apply(original)
        again.load_weights(saved_in(caught.value))
        x = rng.normal(size=(8, 4)).astype("float32")
        np.testing.assert_allclose(PRUNE.strip(again)(x), adopted(x), rtol=1e-5, atol=1e-5)
        assert len(list((tmp_path if writable else tmp_path / "system").glob("a_model_of_ours-trained-*/model.weights.h5"))) == 1
    finally:
        convert_layers._REGISTERED.pop(Moody)
