"""Scripts written for the Distiller class of keras.io's tutorial: the error has the two calls to write, with the script's values."""

import keras
import pytest
from small import data, mlp

import tfdistill
from tfdistill import Distiller
from tfdistill.errors import ConfigurationError
from tfdistill.losses import SoftTargets

X, Y = data(32)
L, M, OPT = keras.losses, keras.metrics, keras.optimizers
MAPPED = (
    "student_loss_fn is compile(loss=",
    "distillation_loss_fn is a loss",
    "temperature is SoftTargets(temperature=",
    "alpha is student_loss_weight=",
)


def softmax_net(width, name):
    return keras.Sequential([mlp(width), keras.layers.Softmax()], name=name)


def lines(error):
    """The code in an error's Fix."""
    return "\n".join(line.strip() for line in error.fix.splitlines() if line.strip().startswith("distiller"))


def train(error, teacher, student, **names):
    """Runs what the error says, as it stands there, and trains."""
    scope = {"teacher": teacher, "student": student, "keras": keras, "tfdistill": tfdistill, **names}
    exec(lines(error), scope)
    scope["distiller"].fit(X, Y, verbose=0)
    return scope["distiller"]


TUTORIAL = dict(
    optimizer=OPT.Adam(),
    metrics=[M.SparseCategoricalAccuracy()],
    student_loss_fn=L.SparseCategoricalCrossentropy(from_logits=True),
    distillation_loss_fn=L.KLDivergence(),
    alpha=0.1,
    temperature=10,
)
# What the script gives to `compile`, and what must stand in the lines.
SCRIPTS = {
    "the tutorial's": (
        TUTORIAL,
        [
            "SoftTargets(temperature=10), student_loss_weight=0.1)",
            "from_logits=True",
            "metrics=[keras.metrics.SparseCategoricalAccuracy()]",
        ],
    ),
    "its older order": (dict(reversed(TUTORIAL.items())), ["SoftTargets(temperature=10)"]),
    "a learning rate": ({**TUTORIAL, "optimizer": OPT.SGD(0.05, momentum=0.9)}, ["keras.optimizers.SGD(learning_rate=0.05, momentum=0.9)"]),
    "names": ({**TUTORIAL, "optimizer": "sgd", "metrics": ["accuracy"]}, ["optimizer='sgd'", "metrics=['accuracy']"]),
    "a function": ({**TUTORIAL, "student_loss_fn": L.mean_squared_error}, ["loss=keras.losses.mean_squared_error"]),
    "another share": ({**TUTORIAL, "alpha": 0.75}, ["student_loss_weight=0.75"]),
    "defaults": ({k: v for k, v in TUTORIAL.items() if k not in ("alpha", "temperature")}, ["temperature=3)", "student_loss_weight=0.1"]),
    "the loss under its new name": (
        {"optimizer": "sgd", "loss": L.SparseCategoricalCrossentropy(from_logits=True), "alpha": 0.3},
        ["loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True)", "student_loss_weight=0.3"],
    ),
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_compile_names_the_lines_to_write(script):
    arguments, words = SCRIPTS[script]
    teacher, student = mlp(8, name="teacher"), mlp(4, name="student")
    with pytest.raises(ConfigurationError, match=r"compile was given .*keras\.io's tutorial") as caught:
        Distiller(teacher, student, SoftTargets(4.0)).compile(**arguments)
    for word in words:
        assert word in lines(caught.value)
    assert all(part in caught.value.fix for part in MAPPED)
    if script in ("the tutorial's", "a learning rate", "the loss under its new name"):
        distiller = train(caught.value, teacher, student)
        assert distiller.student_loss_weight == arguments["alpha"]


@pytest.mark.parametrize("arguments", [{}, {"alpha": 0.2, "temperature": 5}, {"distillation_losses": None}], ids=str)
def test_the_constructor_names_the_lines_to_write(arguments):
    teacher, student = mlp(8, name="teacher"), mlp(4, name="student")
    with pytest.raises(ConfigurationError, match="distillation_losses") as caught:
        Distiller(student=student, teacher=teacher, **arguments)
    distiller = train(caught.value, teacher, student)
    assert distiller.student_loss_weight == arguments.get("alpha", 0.1)
    assert distiller.distillation_losses == [SoftTargets(arguments.get("temperature", 3))]


def test_models_that_end_in_a_softmax_get_losses_of_probabilities():
    teacher, student = softmax_net(8, "teacher"), softmax_net(4, "student")
    with pytest.raises(ConfigurationError) as caught:
        Distiller(student=student, teacher=teacher)
    train(caught.value, teacher, student)
    assert lines(caught.value).count("from_logits=False") == 2


def test_what_has_no_code_is_named_after_its_argument():
    def loss(y, p):
        return L.sparse_categorical_crossentropy(y, p, from_logits=True)

    arguments = {
        **TUTORIAL,
        "student_loss_fn": loss,
        "distillation_loss_fn": L.MeanSquaredError(),
        "optimizer": OPT.SGD(OPT.schedules.CosineDecay(0.1, 5)),
    }
    teacher, student = mlp(8, name="teacher"), mlp(4, name="student")
    with pytest.raises(ConfigurationError) as caught:
        Distiller(teacher, student, SoftTargets(4.0)).compile(**arguments)
    assert "optimizer=optimizer, loss=student_loss_fn" in lines(caught.value)
    assert "in place of keras.losses.MeanSquaredError()" in caught.value.fix
    scope = {"teacher": teacher, "student": student, "keras": keras, "tfdistill": tfdistill}
    exec(lines(caught.value), {**scope, "student_loss_fn": loss, "optimizer": arguments["optimizer"]})
