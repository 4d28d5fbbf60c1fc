"""A model with a `train_step` or the like of its own: `apply` warns that it is not carried over, and each remedy that it names works."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers, ops
from small import data, mlp

from tfdistill import Distiller
from tfdistill.bridge.convert import to_keras
from tfdistill.bridge.parity import once
from tfdistill.compress import Cluster, Prune, QuantizeAware
from tfdistill.losses import SoftTargets

STEPS = [Prune(0.5, schedule="constant", frequency=1), Cluster(4), QuantizeAware()]


def functional(kind, **arguments):
    inputs = keras.Input((8,))
    return kind(inputs, layers.Dense(5, name="logits")(layers.Dense(6, activation="relu", name="hidden")(inputs)), name="own", **arguments)


class OwnStep(keras.Model):
    def train_step(self, data):
        return {"loss": self.compute_loss(y=data[1], y_pred=self(data[0], training=True))}


class OwnLoss(keras.Model):
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return ops.mean(ops.square(y_pred))


class OwnMetrics(keras.Model):
    @property
    def metrics(self):
        return []

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        return {}


class OwnTest(keras.Model):
    def test_step(self, data):
        return {}

    def predict_step(self, data):
        return self(data[0])


class Inherits(OwnStep):
    pass


class OwnSequential(keras.Sequential):
    def train_step(self, data):
        return super().train_step(data)


class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.hidden, self.head = layers.Dense(6, name="hidden"), layers.Dense(5, name="logits")

    def call(self, inputs):
        return self.head(self.hidden(inputs))

    def fit(self, *args, **kwargs):
        return super().fit(*args, **kwargs)

    def get_config(self):
        return {"name": self.name}


def subclassed():
    model = Subclassed(name="own")
    model(np.zeros((2, 8), "float32"))
    return model


def on_the_instance():
    model = functional(keras.Model)
    model.train_step = lambda data: {}
    return model


def sequential():
    return OwnSequential([keras.Input((8,)), layers.Dense(6, name="hidden"), layers.Dense(5, name="logits")], name="own")


OWN = {
    "train_step": (lambda: functional(OwnStep), "train_step"),
    "inherited": (lambda: functional(Inherits), "train_step"),
    "on the instance": (on_the_instance, "train_step"),
    "Sequential": (sequential, "train_step"),
    "loss": (lambda: functional(OwnLoss), "compute_loss"),
    "metrics": (lambda: functional(OwnMetrics), "compute_metrics, metrics"),
    "evaluation": (lambda: functional(OwnTest), "test_step, predict_step"),
    "fit": (subclassed, "fit"),
}


@pytest.mark.parametrize("name", OWN)
def test_what_is_not_carried_over_is_named_once(name):
    make, names = OWN[name]
    model = make()
    for step in STEPS:
        with pytest.warns(UserWarning, match=rf"'own' \(\w+\) has its own {names}\. The model that {type(step).__name__}") as caught:
            step.apply(model)
        assert [warning.filename for warning in caught if "has its own" in str(warning.message)] == [__file__]


@pytest.mark.parametrize("step", STEPS, ids=lambda step: type(step).__name__)
def test_other_models_cause_no_warning(step):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        applied = step.apply(mlp(6))
        step.plan(functional(OwnStep))  # a plan trains nothing
    assert applied.get_layer("hidden_0") is not None


def test_strip_returns_the_class_with_its_step():
    with pytest.warns(UserWarning, match="train_step"):
        applied = STEPS[0].apply(functional(OwnStep))
    assert type(STEPS[0].strip(applied)) is OwnStep


@pytest.mark.filterwarnings("ignore:'own':UserWarning")
@pytest.mark.parametrize(
    ("make", "comparisons"), [(lambda: functional(keras.Model), 1), (lambda: functional(OwnStep), 1), (sequential, 1), (subclassed, 2)]
)
def test_apply_compares_each_model_once(make, comparisons, monkeypatch):
    """The second model is the one that a subclass makes of its config, which may compute something else."""
    compared = []
    for module in (to_keras, once):
        check = module.check_parity
        monkeypatch.setattr(module, "check_parity", lambda *args, check=check, **kwargs: compared.append(args) or check(*args, **kwargs))
    STEPS[0].apply(make())
    assert len(compared) == comparisons


class Wrapped(keras.Model):
    """The applied model in a model whose train_step calls it."""

    def __init__(self, inner, **kwargs):
        super().__init__(**kwargs)
        self.inner = inner

    def call(self, inputs, training=None):
        return self.inner(inputs, training=training)

    def train_step(self, data):
        import tensorflow as tf

        x, _ = data
        with tf.GradientTape() as tape:
            loss = ops.mean(ops.square(self(x, training=True)))
        variables = self.trainable_variables
        self.optimizer.apply(tape.gradient(loss, variables), variables)
        return {"loss": loss}


CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
REMEDIES = {
    "compile": lambda applied: applied,
    "Distiller": lambda applied: Distiller(mlp(6), applied, SoftTargets(2.0)),
    "a model around it": Wrapped,
}


@pytest.mark.parametrize("name", REMEDIES)
def test_every_remedy_trains_it(name):
    step = STEPS[0]
    with pytest.warns(UserWarning, match="train_step"):
        applied = step.apply(functional(OwnStep))
    before = [np.array(v) for v in applied.trainable_variables]
    trainer = REMEDIES[name](applied)
    trainer.compile("sgd", CROSS_ENTROPY)
    trainer.fit(*data(32), epochs=1, verbose=0, callbacks=step.callbacks())
    assert any((a != np.array(b)).any() for a, b in zip(before, applied.trainable_variables, strict=True))
    step.check(step.strip(applied))
