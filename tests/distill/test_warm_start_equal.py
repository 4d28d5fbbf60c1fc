"""Warm starts of models without repeated blocks: what is equal is copied, in whatever form the two models are built."""

import keras
import numpy as np
import pytest
from block_models import flat_transformer, nested_blocks, of_blocks
from small import CLASSES, mlp, weights_of

from tfdistill.distill.initialization.warm_start import warm_start
from tfdistill.errors import ModelError
from tfdistill.graph.names import find_layer


def convolutional(*filters, name=None, classes=CLASSES, sequential=False):
    """Convolution and normalization of each width, then a head."""
    layers = [layer for n in filters for layer in (keras.layers.Conv2D(n, 3), keras.layers.BatchNormalization(), keras.layers.ReLU())]
    layers += [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(classes, name="head")]
    if sequential:
        return keras.Sequential([keras.Input((10, 10, 2)), *layers], name=name)
    x = inputs = keras.Input((10, 10, 2))
    for layer in layers:
        x = layer(x)
    return keras.Model(inputs, x, name=name)


def nested(*widths, name=None, sequential=False):
    """An encoder of its own, and a head behind it."""
    encoder = keras.Sequential([keras.Input((6,)), *(keras.layers.Dense(n, activation="relu") for n in widths)], name="encoder")
    if sequential:
        return keras.Sequential([encoder, keras.layers.Dense(CLASSES, name="head")], name=name)
    inputs = keras.Input((6,))
    return keras.Model(inputs, keras.layers.Dense(CLASSES, name="head")(encoder(inputs)), name=name)


def longer(*widths, name=None):
    """`mlp` with one more layer behind its logits."""
    x = inputs = keras.Input((8,))
    for i, width in enumerate(widths):
        x = keras.layers.Dense(width, activation="relu", name=f"hidden_{i}")(x)
    x = keras.layers.Dense(CLASSES, name="logits")(x)
    return keras.Model(inputs, keras.layers.Dense(2, name="more")(x), name=name)


# Teacher, student, and how each layer of the student starts.
EQUAL = {
    "mlp": (lambda: mlp(16, 12), lambda: mlp(16, 12), ["copied"] * 3),
    "one layer": (mlp, mlp, ["copied"]),
    "convolutional": (lambda: convolutional(4, 6, 8), lambda: convolutional(4, 6, 8), ["copied"] * 7),
    "nested": (lambda: nested(8, 5), lambda: nested(8, 5), ["copied"] * 3),
    "one block": (lambda: nested_blocks(1), lambda: nested_blocks(1), ["copied"] * 4),
    "transformer of one block": (lambda: flat_transformer(1), lambda: flat_transformer(1), ["copied"] * 11),
    "of classes": (lambda: of_blocks(1), lambda: of_blocks(1), ["copied"] * 5),
    "sequential from functional": (lambda: convolutional(4, 6), lambda: convolutional(4, 6, sequential=True), ["copied"] * 5),
    "functional from sequential": (lambda: convolutional(4, 6, sequential=True), lambda: convolutional(4, 6), ["copied"] * 5),
    "nested, sequential from functional": (lambda: nested(8, 5), lambda: nested(8, 5, sequential=True), ["copied"] * 3),
}
PARTLY = {
    "one layer more at the end": (lambda: mlp(16, 12), lambda: longer(16, 12), ["copied"] * 3 + ["left"]),
    "one layer less at the end": (lambda: longer(16, 12), lambda: mlp(16, 12), ["copied"] * 3),
    "one layer more between": (lambda: mlp(16, 12), lambda: mlp(16, 16, 12), ["copied", "left", "copied", "copied"]),
    "one hidden layer more": (lambda: mlp(12, 12), lambda: mlp(12, 12, 12), ["copied", "copied", "left", "copied"]),
    "one convolution more": (
        lambda: convolutional(4, 6),
        lambda: convolutional(4, 6, 9),
        ["copied"] * 4 + ["left"] * 3,
    ),
    "one transformer block more": (
        lambda: flat_transformer(2),
        lambda: flat_transformer(3),
        ["copied"] * 18 + ["left"] * 8 + ["copied"],
    ),
    "other head": (lambda: convolutional(4, 6), lambda: convolutional(4, 6, classes=CLASSES + 1), ["copied"] * 4 + ["left"]),
    "second layer narrower": (lambda: mlp(16, 12), lambda: mlp(16, 5), ["copied", "narrowed", "narrowed"]),
    "first layer narrower": (lambda: mlp(16, 12), lambda: mlp(7, 12), ["narrowed", "narrowed", "copied"]),
    "second layer wider": (lambda: mlp(16, 12), lambda: mlp(16, 20), ["copied", "left", "left"]),
    "nested, narrower inside": (lambda: nested(8, 5), lambda: nested(8, 3), ["copied", "narrowed", "narrowed"]),
    "longer and narrower between": (
        lambda: mlp(16, 12, 10),
        lambda: longer(16, 6, 10),
        ["copied", "narrowed", "narrowed", "copied", "left"],
    ),
}


@pytest.mark.parametrize("case", [*EQUAL.values(), *PARTLY.values()], ids=[*EQUAL, *PARTLY])
def test_what_is_equal_is_copied(case):
    make_teacher, make_student, expected = case
    teacher, student = make_teacher(), make_student()
    kept = weights_of(teacher)
    before = {id(w): np.array(w) for w in student.weights}
    record = warm_start(student, teacher)
    assert [layer.how for layer in record.layers] == expected, str(record)
    for row in record.layers:
        ours = find_layer(student, row.student, "student").weights
        if row.how == "copied":
            theirs = find_layer(teacher, row.teacher, "teacher").weights
            assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True)), row
        elif row.how == "left":
            assert row.reason
            assert all(np.array_equal(w, before[id(w)]) for w in ours), row
    assert all(np.array_equal(a, b) for a, b in zip(kept, weights_of(teacher), strict=True))


@pytest.mark.parametrize("case", EQUAL.values(), ids=EQUAL)
def test_equal_models_compute_the_same(case):
    teacher, student = case[0](), case[1]()
    warm_start(student, teacher)
    shape = tuple(teacher.inputs[0].shape[1:]) if getattr(teacher, "inputs", None) else (4,)
    x = np.random.default_rng(0).normal(size=(3, *shape))
    np.testing.assert_allclose(student(x.astype("float32")), teacher(x.astype("float32")), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("student", "teacher"),
    [
        (lambda: of_blocks(4), lambda: of_blocks(3)),
        (lambda: mlp(12, 12, 12, 12), lambda: mlp(12, 12, 12)),
    ],
    ids=["classes", "mlp"],
)
def test_more_blocks_than_the_teacher_are_refused_and_can_be_named(student, teacher):
    student, teacher = student(), teacher()
    before = weights_of(student)
    with pytest.raises(ModelError, match="at most as many"):
        warm_start(student, teacher)
    assert all(np.array_equal(a, b) for a, b in zip(before, weights_of(student), strict=True))
    last = student.layers[-1].name
    assert [row.how for row in warm_start(student, teacher, {last: teacher.layers[-1].name}).layers][-1] == "copied"
