"""The spaces given for the members of an Ensemble, compared with their outputs for a first batch."""

import ast
import re

import keras
import numpy as np
import pytest
from small import CLASSES, data, mlp

from tfdistill import Distiller, soft_targets
from tfdistill.distill.chains.average import many_to_one
from tfdistill.distill.chains.settings import ChainSettings
from tfdistill.distill.teachers.ensemble import Ensemble
from tfdistill.errors import ConfigurationError
from tfdistill.losses import BinarySoftTargets, OutputMatching, SoftTargets

CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def logits(width=CLASSES, seed=0, rows=32):
    return np.random.default_rng(seed).normal(scale=3.0, size=(rows, width)).astype("float32")


def returns(values):
    return lambda x: values[: len(x)]


X = np.zeros((32, 2), "float32")
Z = logits()
LOG_P = np.log(softmax(Z))

# The members' outputs, arguments of the Ensemble, and a pattern of the error (None: nothing is wrong).
CASES = {
    "softmax as logits": ([softmax(Z)] * 2, dict(), "member 0 .* said to answer logits, .* are probabilities"),
    "the second alone": ([Z, softmax(Z)], dict(), r"member 1 .*outputs=\['logits', 'probabilities'\]"),
    "softmax as logits, averaged as such": ([softmax(Z)], dict(average="logits"), "outputs='probabilities'.*outputs='numbers'"),
    "logits as probabilities": ([Z], dict(outputs="probabilities"), "said to answer probabilities, .* are logits"),
    "log-probabilities as probabilities": ([LOG_P], dict(outputs="probabilities"), "are log-probabilities"),
    "logits as log-probabilities": ([Z], dict(outputs="log_probabilities"), "are logits"),
    "probabilities as log-probabilities": ([softmax(Z)], dict(outputs="log_probabilities"), "are probabilities"),
    "sigmoids as logits of classes": ([sigmoid(Z)], dict(), "yes-no answers.*\n.*\n.*outputs='numbers'"),
    "a dict of outputs": ([{"a": Z, "b": softmax(Z)}], dict(), "are probabilities"),
    "positions": ([softmax(Z.reshape(4, 8, CLASSES))], dict(), "are probabilities"),
    "yes-no logits as probabilities": ([Z[:, :1]], dict(average="logits", outputs="probabilities"), "are logits"),
    "logits": ([Z, Z], dict(), None),
    "log-probabilities as logits": ([LOG_P, Z], dict(), None),
    "each as it is": ([Z, softmax(Z), LOG_P], dict(outputs=["logits", "probabilities", "log_probabilities"]), None),
    "not counted": ([Z, softmax(Z)], dict(weights=[1, 0]), None),
    "sigmoids as numbers": ([sigmoid(Z)], dict(average="logits", outputs="numbers"), None),
    "shares as numbers": ([softmax(Z)], dict(average="logits", outputs="numbers"), None),
    "yes-no logits": ([Z[:, :1]], dict(average="logits"), None),
    "yes-no probabilities": ([sigmoid(Z[:, :1])], dict(average="logits", outputs="probabilities"), None),
    "logits that are all positive": ([np.abs(Z) + 0.5], dict(), None),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_spaces_are_checked_on_the_first_batch(case):
    outputs, kwargs, words = case
    ensemble = Ensemble([returns(a) if not isinstance(a, dict) else (lambda x, a=a: a) for a in outputs], **kwargs)
    x = X[: len(next(iter(outputs[0].values())) if isinstance(outputs[0], dict) else outputs[0])]
    if words is None:
        ensemble.check_members(x)
        return
    with pytest.raises(ConfigurationError) as caught:
        ensemble.check_members(x)
    assert re.search(words, str(caught.value), re.DOTALL), caught.value
    settings = re.search(r"average='(\w+)', outputs=(\[.*?\]|'\w+')", caught.value.fix)
    if not isinstance(outputs[0], dict):
        # The fix of the message passes the check.
        Ensemble([returns(a) for a in outputs], average=settings[1], outputs=ast.literal_eval(settings[2])).check_members(x)


def softmax_net(name, width=8):
    inner = mlp(width)
    return keras.Model(inner.input, keras.layers.Softmax()(inner.output), name=name)


def nets():
    return [softmax_net("one"), softmax_net("two")]


def fit(teacher, losses=None):
    x, y = data(32)
    distiller = Distiller(teacher, mlp(6, name="student"), losses or SoftTargets(2.0))
    distiller.compile("sgd", loss=CROSS_ENTROPY, run_eagerly=True)
    distiller.fit(x, y, verbose=0)


def by_many_to_one(folder):
    x, y = data(32)
    many_to_one(nets(), mlp(6, name="student"), ChainSettings(losses=SoftTargets(2.0), loss=CROSS_ENTROPY), x, y)


WAYS = {
    "fit": lambda folder: fit(Ensemble(nets())),
    "an ensemble of ensembles": lambda folder: fit(Ensemble([Ensemble(nets(), outputs="probabilities"), Ensemble(nets(), name="inner")])),
    "many_to_one": by_many_to_one,
    "soft_targets": lambda folder: soft_targets(Ensemble(nets()), data(32)[0], folder / "cache"),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_in_says_it(way, tmp_path):
    with pytest.raises(ConfigurationError, match=r"are probabilities.*\n.*\n.*outputs='probabilities'"):
        WAYS[way](tmp_path)


def test_the_remedy_trains(tmp_path):
    fit(Ensemble(nets(), outputs="probabilities"))
    soft_targets(Ensemble(nets(), outputs="probabilities"), data(32)[0], tmp_path / "cache")


def test_yes_no_probabilities_are_averaged_as_their_logits():
    z = logits(1, rows=6), logits(1, seed=1, rows=6)
    found = Ensemble([returns(sigmoid(v)) for v in z], average="logits", outputs="probabilities")(X[:6])
    np.testing.assert_allclose(found, (z[0] + z[1]) / 2, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("values", "loss"),
    [(sigmoid(Z), BinarySoftTargets(1.0, "probabilities", "probabilities")), (softmax(Z), OutputMatching("mse"))],
    ids=["yes-no probabilities", "regression of shares"],
)
def test_numbers_are_averaged_as_they_are(values, loss):
    other = values[::-1].copy()
    found = Ensemble([returns(values), returns(other)], [1, 3], average="logits", outputs="numbers")(X)
    np.testing.assert_allclose(found, values * 0.25 + other * 0.75, rtol=1e-6)
    loss.check_first_batch(np.asarray(found), values)


@pytest.mark.parametrize("kwargs", [dict(outputs="numbers"), dict(outputs=["numbers", "logits"], average="logits")], ids=str)
def test_numbers_are_averaged_in_one_way_only(kwargs):
    with pytest.raises(ConfigurationError, match='average="logits", outputs="numbers"'):
        Ensemble([returns(Z), returns(Z)], **kwargs)
