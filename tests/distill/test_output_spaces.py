"""Models that end in a softmax or sigmoid, and losses that take logits: one error for both sides, whose line trains them."""

import re

import keras
import numpy as np
import pytest
from small import CLASSES, data, mlp

import tfdistill
from tfdistill import Distiller
from tfdistill.errors import ConfigurationError
from tfdistill.graph.functional import final_activations
from tfdistill.losses import DIST, BinarySoftTargets, DecoupledKD, LogitMatching, SoftTargets

X, Y = data(32)


class Hidden(keras.Model):
    """A subclassed model, whose last activation no graph shows."""

    def __init__(self, inner):
        super().__init__(name=inner.name)
        self.inner = inner

    def call(self, inputs, training=None):
        return self.inner(inputs, training=training)


def ending(name, how, activation="softmax"):
    """A net that ends in an activation, made in one of the ways that users make it."""
    net = mlp(6, name=name)
    layers = keras.layers
    if how == "logits":
        return net
    if how == "dense":
        return keras.Model(net.input, layers.Dense(CLASSES, activation)(net.layers[-2].output), name=name)
    if how == "in float32":
        z = layers.Dense(CLASSES, activation, dtype="mixed_float16")(net.layers[-2].output)
        return keras.Model(net.input, layers.Activation("linear", dtype="float32")(z), name=name)
    if how == "operation":
        return keras.Model(net.input, getattr(keras.ops, activation)(net.output), name=name)
    if how == "nested":
        return keras.Sequential([keras.Input((8,)), net, layers.Activation(activation)], name=name)
    if how == "subclassed":
        hidden = Hidden(ending(name, "dense", activation))
        hidden(X)
        return hidden
    return keras.Model(net.input, layers.Activation(activation)(net.output), name=name)


def fit(teacher, student, loss):
    distiller = Distiller(teacher, student, loss, student_loss_weight=0.0)
    distiller.compile("sgd", run_eagerly=True)
    return distiller.fit(X, Y, verbose=0).history


LOSSES = {
    "SoftTargets": (SoftTargets(2.0), "tfdistill.losses.SoftTargets(temperature=2.0, from_logits=False)", "softmax"),
    "another divergence": (SoftTargets(divergence="js"), "tfdistill.losses.SoftTargets(divergence='js', from_logits=False)", "softmax"),
    "DIST": (DIST(gamma=0.5), "tfdistill.losses.DIST(gamma=0.5, from_logits=False)", "softmax"),
    "DecoupledKD": (
        DecoupledKD(target="teacher"),
        "tfdistill.losses.DecoupledKD(target='teacher', from_logits=False)",
        "softmax",
    ),
    "BinarySoftTargets": (BinarySoftTargets(2.0), "tfdistill.losses.BinarySoftTargets(temperature=2.0, from_logits=False)", "sigmoid"),
}


HOW = ["dense", "in float32", "operation", "nested", "subclassed", "layer"]


@pytest.mark.parametrize(
    ("name", "how"),
    [*(("SoftTargets", how) for how in HOW), *((name, how) for name in LOSSES for how in ("layer", "subclassed") if name != "SoftTargets")],
)
def test_one_error_for_both_sides_has_the_line_to_write(name, how):
    loss, line, activation = LOSSES[name]
    teacher, student = ending("teacher", how, activation), ending("student", how, activation)
    with pytest.raises(ConfigurationError, match=r"the teacher's outputs(.|\n)*the student's outputs") as caught:
        fit(teacher, student, loss)
    assert "set from_logits=False: write" in caught.value.fix
    written = re.search(r"write (tfdistill\.[^;]*)", caught.value.fix)[1]
    assert written == line
    history = fit(teacher, student, eval(written, {"tfdistill": tfdistill}))
    assert np.isfinite(history["loss"]).all()


SIDES = {
    "teacher alone": ("dense", "logits", "tfdistill.losses.SoftTargets(temperature=2.0, teacher_outputs='probabilities')"),
    "student alone": ("logits", "dense", "tfdistill.losses.SoftTargets(temperature=2.0, student_outputs='probabilities')"),
}


@pytest.mark.parametrize("side", SIDES)
def test_one_side(side):
    *ends, line = SIDES[side]
    models = [ending(name, how) for name, how in zip(("teacher", "student"), ends, strict=True)]
    with pytest.raises(ConfigurationError, match="the last activation is softmax") as caught:
        fit(*models, SoftTargets(2.0))
    assert line in caught.value.fix
    fit(*models, eval(line, {"tfdistill": tfdistill}))


@pytest.mark.parametrize("loss", [SoftTargets(2.0), SoftTargets(2.0, from_logits=False), LogitMatching()], ids=str)
def test_sigmoids_are_no_classes_that_exclude_one_another(loss):
    models = ending("teacher", "dense", "sigmoid"), ending("student", "dense", "sigmoid")
    with pytest.raises(ConfigurationError, match="the last activation is sigmoid") as caught:
        fit(*models, loss)
    line = re.search(r"use (tfdistill\.losses\.\w+\([^)]*\))", caught.value.fix)[1]
    fit(*models, eval(line, {"tfdistill": tfdistill}))


def test_logit_matching_names_the_loss_that_takes_probabilities():
    models = ending("teacher", "dense"), ending("student", "dense")
    with pytest.raises(ConfigurationError, match="the teacher's outputs must be logits") as caught:
        fit(*models, LogitMatching())
    line = re.search(r"use (tfdistill\.losses\.\w+\([^)]*\))", caught.value.fix)[1]
    fit(*models, eval(line, {"tfdistill": tfdistill}))


def constant(name, value, classes=CLASSES):
    """A linear net whose outputs are all one value, such as a logit between 0 and 1."""
    bias = keras.initializers.Constant(value)
    return keras.Sequential([keras.Input((8,)), keras.layers.Dense(classes, kernel_initializer="zeros", bias_initializer=bias)], name=name)


def between(name):
    """A linear net with different outputs between 0 and 1."""
    net = mlp(6, name=name)
    net.layers[-1].kernel.assign(keras.ops.abs(net.layers[-1].kernel) * 1e-3)
    net.layers[-1].bias.assign(np.linspace(0.1, 0.8, CLASSES))
    return net


LINEAR = {
    "binary, between 0 and 1": (BinarySoftTargets(), mlp(6, name="teacher"), between),
    "rows that sum to one": (SoftTargets(), mlp(6, name="teacher"), lambda name: constant(name, 1.0 / CLASSES)),
    "logit matching": (LogitMatching(), mlp(6, name="teacher"), lambda name: constant(name, 1.0 / CLASSES)),
    "DIST": (DIST(), mlp(6, name="teacher"), lambda name: constant(name, 1.0 / CLASSES)),
}


@pytest.mark.parametrize("name", LINEAR)
def test_outputs_of_a_linear_layer_are_logits_whatever_they_look_like(name):
    loss, teacher, make = LINEAR[name]
    assert np.isfinite(fit(teacher, make("student"), loss)["loss"]).all()
    # The same values of a model that no graph shows could be either.
    with pytest.raises(ConfigurationError):
        fit(teacher, Hidden(make("student")), loss)


@pytest.mark.parametrize("softmax", [False, True])
def test_the_loss_on_the_labels_and_the_report_go_by_the_last_activation(softmax):
    student, teacher = (ending(name, "dense") if softmax else constant(name, 1.0 / CLASSES) for name in ("student", "teacher"))
    distiller = Distiller(teacher, student, SoftTargets(from_logits=not softmax))
    space = "probabilities" if softmax else "logits"
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=not softmax)
    distiller.compile("sgd", loss=loss, metrics=[tfdistill.TeacherReport(outputs=space)], run_eagerly=True)
    distiller.fit(X, Y, verbose=0)


def test_a_member_of_an_ensemble_goes_by_its_last_activation():
    ensemble = tfdistill.Ensemble([constant("even", 1.0 / CLASSES), mlp(6, name="other")])
    fit(ensemble, mlp(6, name="student"), SoftTargets())
    with pytest.raises(ConfigurationError, match="Ensemble"):
        fit(tfdistill.Ensemble([ending("softmax", "dense"), mlp(6, name="other")]), mlp(6, name="student"), SoftTargets())


CONTRADICTIONS = [
    dict(from_logits=False, teacher_outputs="logits"),
    dict(from_logits=False, student_outputs="log_probabilities"),
    dict(from_logits=True, student_outputs="probabilities"),
    dict(from_logits="no"),
    dict(from_logits=1),
]


@pytest.mark.parametrize("settings", CONTRADICTIONS, ids=str)
@pytest.mark.parametrize("kind", [SoftTargets, DIST, DecoupledKD])
def test_contradictions_are_refused(kind, settings):
    with pytest.raises(ConfigurationError, match="from_logits"):
        kind(**settings)


SHORT = [
    ({}, ("logits", "logits"), True),
    (dict(from_logits=True), ("logits", "logits"), True),
    (dict(from_logits=False), ("probabilities", "probabilities"), False),
    (dict(from_logits=False, teacher_outputs="probabilities"), ("probabilities", "probabilities"), False),
    (dict(teacher_outputs="probabilities"), ("probabilities", "logits"), None),
]


@pytest.mark.parametrize(("settings", "spaces", "from_logits"), SHORT)
@pytest.mark.parametrize("kind", [SoftTargets, DIST, DecoupledKD, BinarySoftTargets])
def test_from_logits_is_short_for_both_sides(kind, settings, spaces, from_logits):
    loss = kind(**settings)
    assert (loss.teacher_outputs, loss.student_outputs) == spaces
    assert loss.from_logits is from_logits
    assert "from_logits" not in loss.get_config()
    assert kind.from_config(loss.get_config()) == loss == kind(teacher_outputs=spaces[0], student_outputs=spaces[1])


@pytest.mark.parametrize("how", ["dense", "in float32", "operation", "nested", "layer"])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid", "log_softmax"])
def test_the_last_activation_is_found(how, activation):
    assert final_activations(ending("net", how, activation)) == {None: activation}


def test_the_last_activation_of_an_adopted_model_is_found():
    assert final_activations(tfdistill.adopt(tfdistill.to_tf_keras(ending("net", "dense")))) == {None: "softmax"}
    assert final_activations(mlp(4)) == {None: "linear"}
    assert final_activations(Hidden(mlp(4))) == {}


def test_the_largest_logits_of_a_linear_teacher_are_stored_whatever_they_look_like(tmp_path):
    even, options = constant("even", 1.0 / CLASSES), tfdistill.CacheOptions(top_k=2)
    assert tfdistill.soft_targets(even, X, tmp_path / "linear", options=options).manifest.settings.top_k == 2
    with pytest.raises(ConfigurationError, match="look like probabilities"):
        tfdistill.soft_targets(ending("softmax", "dense"), X, tmp_path / "softmax", options=options)
