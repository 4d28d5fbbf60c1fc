"""Losses on labels whose `from_logits` does not fit the student's outputs: a warning at the first batch, with the line to write."""

import ast
import functools
import re
import warnings

import keras
import numpy as np
import pytest
from small import CLASSES, data, mlp

from tfdistill import Distiller
from tfdistill.distill.objective.label_loss import warn_of_wrong_space
from tfdistill.losses import SoftTargets

RNG = np.random.default_rng(3)
Z = RNG.normal(size=(8, CLASSES)) * 3
P = np.exp(Z) / np.exp(Z).sum(-1, keepdims=True)
S = 1 / (1 + np.exp(-Z))
K = keras.losses
STUDENT = mlp(4, name="student")

# What is compiled, the student's outputs, and the class that the message says to write; None where nothing is wrong or nothing can be told.
CASES = {
    "name on logits": ("sparse_categorical_crossentropy", Z, "SparseCategoricalCrossentropy(from_logits=True)"),
    "name of one-hot": ("categorical_crossentropy", Z, "CategoricalCrossentropy(from_logits=True)"),
    "class by its name": ("SparseCategoricalCrossentropy", Z, "SparseCategoricalCrossentropy(from_logits=True)"),
    "object": (K.SparseCategoricalCrossentropy(), Z, "SparseCategoricalCrossentropy(from_logits=True)"),
    "function": (K.sparse_categorical_crossentropy, Z, "SparseCategoricalCrossentropy(from_logits=True)"),
    "focal": (K.CategoricalFocalCrossentropy(), Z, "CategoricalFocalCrossentropy(from_logits=True)"),
    "binary": ("binary_crossentropy", Z, "BinaryCrossentropy(from_logits=True)"),
    "binary, one output": ("bce", Z[:, :1], "BinaryCrossentropy(from_logits=True)"),
    "binary focal": (K.BinaryFocalCrossentropy(), Z, "BinaryFocalCrossentropy(from_logits=True)"),
    "positions": ("sparse_categorical_crossentropy", Z.reshape(2, 4, CLASSES), "SparseCategoricalCrossentropy(from_logits=True)"),
    "a head of zeros": ("sparse_categorical_crossentropy", Z * 0, "SparseCategoricalCrossentropy(from_logits=True)"),
    "softmax as logits": (K.SparseCategoricalCrossentropy(from_logits=True), P, "SparseCategoricalCrossentropy(from_logits=False)"),
    "softmax as logits, partial": (
        functools.partial(K.categorical_crossentropy, from_logits=True),
        P,
        "CategoricalCrossentropy(from_logits=False)",
    ),
    "sigmoid as logits": (K.BinaryCrossentropy(from_logits=True), S, "BinaryCrossentropy(from_logits=False)"),
    "one of several, in a dict": (
        {"a": "sparse_categorical_crossentropy", "b": "mse"},
        {"a": Z, "b": Z},
        "SparseCategoricalCrossentropy(from_logits=True)",
    ),
    "one of several, in a list": (["mse", "bce"], [Z, Z], "BinaryCrossentropy(from_logits=True)"),
    "one loss for all outputs": ("bce", {"a": S, "b": Z}, "BinaryCrossentropy(from_logits=True)"),
    "right: logits": (K.SparseCategoricalCrossentropy(from_logits=True), Z, None),
    "right: softmax": ("sparse_categorical_crossentropy", P, None),
    "right: one is certain": ("categorical_crossentropy", np.eye(CLASSES)[[0, 1, 2]], None),
    "right: sigmoid": ("binary_crossentropy", S, None),
    "right: binary logits": (K.BinaryCrossentropy(from_logits=True), Z, None),
    "right: softmax in half precision": ("sparse_categorical_crossentropy", P.astype("float16"), None),
    "too few to tell": (K.BinaryCrossentropy(from_logits=True), S[:1, :1], None),
    "zeros as binary logits": (K.BinaryCrossentropy(from_logits=True), Z * 0, None),
    "sigmoids of classes": ("categorical_crossentropy", S, None),
    "regression": ("mse", Z, None),
    "a function of one's own": (lambda y, p: 0.0, Z, None),
    "a function of the same name": (type("m", (), {"__name__": "binary_crossentropy", "__module__": "mine"})(), Z, None),
    "no loss for an output": ({"a": None}, {"a": Z, "b": Z}, None),
    "unknown name": ("my_loss", Z, None),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_line_to_write(case):
    loss, outputs, line = case
    if line is None:
        warn_of_wrong_space(loss, outputs, STUDENT)
        return
    with pytest.warns(UserWarning, match="The student's loss") as caught:
        warn_of_wrong_space(loss, outputs, STUDENT)
    assert len(caught) == 1
    text = str(caught[0].message)
    assert f"Write loss=keras.losses.{line}, or" in text
    # The remedy is right: what it makes says nothing of the output that was meant.
    name, from_logits = re.search(r"keras\.losses\.(\w+)\(from_logits=(\w+)\)", text).groups()
    remedy = getattr(K, name)(from_logits=ast.literal_eval(from_logits))
    if isinstance(outputs, dict):
        key = re.search(r"output '(\w+)'", text)[1]
        warn_of_wrong_space({key: remedy}, outputs, STUDENT)
    elif not isinstance(outputs, list):
        warn_of_wrong_space(remedy, outputs, STUDENT)


def student(softmax):
    inner = mlp(6, name="student")
    return keras.Model(inner.input, keras.layers.Softmax()(inner.output), name="student") if softmax else inner


def fit(loss, softmax=False, share=0.5, labels=True):
    x, y = data(32)
    space = "probabilities" if softmax else "logits"
    model = Distiller(mlp(8, name="teacher"), student(softmax), SoftTargets(2.0, student_outputs=space), student_loss_weight=share)
    model.compile("sgd", loss=loss, run_eagerly=True)
    model.fit(x, y if labels else None, verbose=0)
    return model


@pytest.mark.parametrize(
    ("loss", "softmax", "words"),
    [
        ("sparse_categorical_crossentropy", False, "answers logits"),
        (K.SparseCategoricalCrossentropy(from_logits=True), True, "answers probabilities"),
    ],
    ids=["logits", "probabilities"],
)
def test_fit_says_it_once(loss, softmax, words):
    with warnings.catch_warnings(record=True) as caught:
        # Keras has a word of its own on a softmax that it can see.
        warnings.simplefilter("always")
        model = fit(loss, softmax)
        model.fit(*data(32), verbose=0)
    messages = [str(w.message) for w in caught if "The student's loss" in str(w.message)]
    assert len(messages) == 1
    assert words in messages[0]


@pytest.mark.parametrize(
    ("softmax", "loss"), [(False, K.SparseCategoricalCrossentropy(from_logits=True)), (True, "sparse_categorical_crossentropy")]
)
def test_a_right_loss_is_not_spoken_of(softmax, loss):
    fit(loss, softmax)


@pytest.mark.parametrize("case", [dict(share=0.0), dict(labels=False, share=0.0)], ids=str)
def test_a_loss_without_weight_or_labels_is_not_spoken_of(case):
    fit("sparse_categorical_crossentropy" if case.get("labels", True) else None, **case)
