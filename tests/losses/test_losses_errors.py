"""Bad settings, shapes and values of losses: an error that names them, before any training."""

import keras
import numpy as np
import pytest

from tfdistill import losses
from tfdistill.errors import ConfigurationError, DataError, ModelError
from tfdistill.losses import CosineSchedule, LinearSchedule, PiecewiseSchedule, spaces

MAP, OTHER = (None, 8, 8, 4), (None, 4, 4, 6)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: losses.SoftTargets(0), r"SoftTargets: temperature=0 .*\n.*greater than 0"),
        (lambda: losses.SoftTargets(-2.0), "temperature=-2.0"),
        (lambda: losses.SoftTargets(float("nan")), "temperature=nan"),
        (lambda: losses.SoftTargets(float("inf")), "temperature=inf"),
        (lambda: losses.SoftTargets("4"), "temperature='4' is a str"),
        (lambda: losses.SoftTargets(True), "temperature=True is a bool"),
        (lambda: losses.SoftTargets(np.ones(2)), "is a ndarray"),
        (lambda: losses.SoftTargets(divergence="revers_kl"), r"divergence='revers_kl'(.|\n)*Nearest: 'reverse_kl'"),
        (lambda: losses.SoftTargets(divergence=None), "divergence=None"),
        (lambda: losses.SoftTargets(standardize="yes"), "standardize='yes'"),
        (lambda: losses.SoftTargets(teacher_outputs="probs"), "teacher_outputs='probs'"),
        (lambda: losses.SoftTargets(student_outputs="probs"), "student_outputs='probs'"),
        (lambda: losses.SoftTargets(LinearSchedule(4.0, 0.0, 10)), r"LinearSchedule\(initial_value=4.0, final_value=0.0.*goes as far as 0"),
        (lambda: losses.SoftTargets(CosineSchedule(4.0, -1.0, 10)), "goes as far as -1"),
        (lambda: losses.SoftTargets(PiecewiseSchedule([5], [4.0, 0.0])), "PiecewiseSchedule"),
        (lambda: losses.SoftTargets(keras.optimizers.schedules.PolynomialDecay(4.0, 100, 0.0)), "PolynomialDecay.*goes as far as 0"),
        (lambda: losses.SoftTargets(keras.optimizers.schedules.PiecewiseConstantDecay([777], [4.0, -2.0])), "as far as -2"),
        (lambda: losses.DecoupledKD(beta=-1), "beta=-1"),
        (lambda: losses.DecoupledKD(target="student"), "target='student'"),
        (lambda: losses.DIST(gamma=LinearSchedule(1.0, -1.0, 5)), "gamma goes as far as -1"),
        (lambda: losses.LogitMatching(centered=1), "centered=1"),
        (lambda: losses.BinarySoftTargets(teacher_outputs="log_probabilities"), "log_probabilities"),
        (lambda: losses.OutputMatching("mes"), "Nearest: 'mse'"),
        (lambda: losses.OutputMatching(delta=0.0), "delta=0.0"),
        (lambda: losses.TeacherBounded(-0.1), "margin=-0.1"),
        (lambda: losses.Hint(projection="conv"), "Nearest: 'conv1x1'"),
        (lambda: losses.Hint(loss=None), "loss=None"),
        (lambda: losses.Hint(3), "teacher_layer_name=3 is not a layer's name"),
        (lambda: losses.Hint("a", ""), "student_layer_name='' is not"),
        (lambda: losses.AttentionTransfer(power=0), "power=0"),
        (lambda: losses.AttentionMaps(heads="max"), "heads='max'"),
        (lambda: losses.RelationalKD(0.0, 0.0), "always 0"),
        (lambda: losses.CorrelationCongruence(gamma=0.0), "gamma=0.0"),
        (lambda: losses.CorrelationCongruence(order=0), "order=0"),
        (lambda: losses.CorrelationCongruence(kernel="rbf"), "kernel='rbf'"),
        (lambda: losses.ContrastiveRepresentation(dimensions=0), "dimensions=0"),
        (lambda: losses.ContrastiveRepresentation(temperature=0.0), "temperature=0.0"),
        (lambda: LinearSchedule(1.0, float("nan"), 3), "final_value=nan"),
        (lambda: LinearSchedule(1.0, 2.0, 0), "steps=0"),
        (lambda: LinearSchedule(1.0, 2.0, 2.5), "steps=2.5"),
        (lambda: CosineSchedule(1.0, 2.0, 3, start=-1), "start=-1"),
        (lambda: PiecewiseSchedule([5, 5], [1.0, 2.0, 3.0]), "do not increase"),
        (lambda: PiecewiseSchedule([], [1.0]), "do not increase"),
        (lambda: PiecewiseSchedule([5], [1.0]), "1 values for 1 boundaries"),
    ],
)
def test_settings_are_refused_when_made(make, words):
    with pytest.raises(ConfigurationError, match=words):
        make()


def test_unknown_settings_in_a_configuration_are_refused():
    with pytest.raises(ModelError, match="temprature"):
        losses.SoftTargets.from_config({"temprature": 4.0})


@pytest.mark.parametrize(
    ("loss", "teacher", "student", "words"),
    [
        (
            losses.SoftTargets(),
            (None, 10),
            (None, 9),
            r"SoftTargets: the teacher's final output has the shape \(None, 10\), the student's final output \(None, 9\)",
        ),
        (losses.SoftTargets(teacher_layer_name="head"), (None, 10), (None, 5, 10), "teacher's layer 'head'"),
        (losses.SoftTargets(), (None, 1), (None, 1), "BinarySoftTargets"),
        (losses.SoftTargets(), (None,), (None,), r"\(batch, classes\)"),
        (losses.DecoupledKD(), (None, 3), (None, 4), "DecoupledKD"),
        (losses.DIST(), (None, 1), (None, 1), "at least two classes"),
        (losses.LogitMatching(), (None,), (None,), "classes"),
        (losses.BinarySoftTargets(), (None,), (None,), "labels"),
        (losses.OutputMatching(), (None, 2), (None, 1), "equal shapes"),
        (losses.TeacherBounded(), (None, 2), (None, 1), "equal shapes"),
        (
            losses.Hint("t", "s"),
            MAP,
            OTHER,
            r"'t' has the shape \(None, 8, 8, 4\), the student's layer 's' \(None, 4, 4, 6\)(.|\n)*tfdistill.Distiller",
        ),
        (losses.Hint("t", "s"), MAP, (None, 4), "as many dimensions"),
        (losses.Hint("t", "s"), (None, None, None, 4), (None, 3, None, 4, 1), "as many dimensions"),
        (losses.Hint("t", "s"), (None, None, 8, 4), (None, 8, 4, 4), "known sizes"),
        (losses.HiddenStates("t", "s"), (None, 5, 4), (None, 4, 4), "equal positions"),
        (losses.HiddenStates("t", "s"), MAP, MAP, "positions, width"),
        (losses.HiddenStates("t", "s"), (None, 5, 4), (None, 5, 3), "equal widths"),
        (losses.AttentionTransfer("t", "s"), (None, 5), (None, 5), "positions"),
        (losses.AttentionMaps("t", "s"), (None, 4, 5, 5), (None, 2, 5, 5), "heads='mean'"),
        (losses.AttentionMaps("t", "s", heads="mean"), (None, 4, 5, 5), (None, 2, 6, 6), "same positions"),
        (losses.AttentionMaps("t", "s"), (None, 5, 5), (None, 5, 5), "MultiHeadAttention"),
        (losses.SimilarityPreserving("t", "s"), (4, 5), (3, 5), "same batch"),
        (losses.RelationalKD(), (None,), (None,), r"\(batch, ...\)"),
        (losses.ContrastiveRepresentation("t", "s"), (None, 5), (None, 4), "learned projections"),
    ],
)
def test_shapes_that_cannot_be_compared(loss, teacher, student, words):
    with pytest.raises(ModelError, match=words):
        loss.validate_outputs(keras.KerasTensor(teacher), keras.KerasTensor(student))
    concrete = [np.zeros([3 if d is None else d for d in shape], "float32") for shape in (teacher, student)]
    if (None, None, 8, 4) not in (teacher, student):
        with pytest.raises(ModelError, match=type(loss).__name__):
            loss.compute_loss(*concrete, labels=np.zeros(3, "int32"))


def test_several_outputs_need_a_loss_each():
    with pytest.raises(ModelError, match=r"several tensors \(\['a', 'b'\]\)"):
        losses.SoftTargets().compute_loss({"a": np.zeros((2, 3)), "b": np.zeros((2, 3))}, np.zeros((2, 3)))
    with pytest.raises(ModelError, match="student's final output has several tensors"):
        losses.SoftTargets().validate_outputs(np.zeros((2, 3)), [np.zeros((2, 3))] * 2)


@pytest.mark.parametrize(
    ("loss", "teacher", "student", "words"),
    [
        (losses.Hint("t", "s", projection=None), MAP, OTHER, "projection='auto'"),
        (losses.Hint("t", "s", projection="conv1x1"), (None, 4), (None, 5), "projection='dense'"),
        (losses.Hint("t", "s"), MAP, (None, 5), "as many dimensions"),
        (losses.Hint("t", "s"), (None, None), (None, 5), "known widths"),
        (losses.HiddenStates("t", "s"), (None, 4, 8), (None, 5, 6), "equal positions"),
        (losses.ContrastiveRepresentation("t", "s", dimensions=None), (None, 4), (None, 5), "give `dimensions`"),
        (losses.ContrastiveRepresentation("t", "s"), (None, None), (None, 5), "known widths"),
    ],
)
def test_projections_that_cannot_be_made(loss, teacher, student, words):
    with pytest.raises(ConfigurationError, match=words):
        loss.projections(teacher, student)


@pytest.mark.parametrize(
    ("loss", "teacher", "student", "made"),
    [
        (losses.Hint("t", "s"), (None, 4), (None, 4), {}),
        (losses.Hint("t", "s"), (None, 8), (None, 4), {"student": "Dense"}),
        (losses.Hint("t", "s"), (None, 5, 8), (None, 5, 4), {"student": "Dense"}),
        (losses.Hint("t", "s"), MAP, OTHER, {"student": "Conv2D"}),
        (losses.Hint("t", "s", "dense"), MAP, OTHER, {"student": "Dense"}),
        (losses.Hint("t", "s", "dense"), (None, 4), (None, 4), {"student": "Dense"}),
        (losses.Hint("t", "s", "conv1x1"), (None, 5, 8), (None, 5, 4), {"student": "Conv1D"}),
        (losses.Hint("t", "s", None), MAP, MAP, {}),
        (losses.HiddenStates("t", "s"), (None, None, 8), (None, None, 4), {"student": "Dense"}),
        (losses.ContrastiveRepresentation("t", "s", 16), MAP, (None, 5), {"teacher": "Dense", "student": "Dense"}),
        (losses.ContrastiveRepresentation("t", "s", None), (None, 5), (None, 5), {}),
        (losses.RelationalKD(), (None, 5), (None, 7), {}),
    ],
)
def test_projections_that_are_made(loss, teacher, student, made):
    layers = loss.projections(teacher, student)
    assert {side: type(layer).__name__ for side, layer in layers.items()} == made
    assert not any(layer.built for layer in layers.values())
    again = loss.projections(teacher, student)
    assert [layer.name for layer in layers.values()] == [layer.name for layer in again.values()]
    shapes = {"teacher": teacher, "student": student}
    for side, layer in layers.items():
        shapes[side] = layer.compute_output_shape(shapes[side])
    loss.validate_outputs(keras.KerasTensor(shapes["teacher"]), keras.KerasTensor(shapes["student"]))


LOGITS = np.random.default_rng(0).normal(size=(8, 5))
PROBABILITIES = np.exp(LOGITS) / np.exp(LOGITS).sum(-1, keepdims=True)
SIGMOIDS = 1 / (1 + np.exp(-LOGITS))


def with_value(value):
    broken = LOGITS.copy()
    broken[2, 3] = value
    return broken


@pytest.mark.parametrize(
    ("loss", "teacher", "student", "error", "words"),
    [
        (
            losses.SoftTargets(),
            PROBABILITIES,
            LOGITS,
            ConfigurationError,
            r"the teacher's outputs were said to be logits(.|\n)*teacher_outputs='probabilities'",
        ),
        (losses.SoftTargets(), LOGITS, PROBABILITIES, ConfigurationError, r"the student's outputs(.|\n)*student_outputs='probabilities'"),
        (
            losses.SoftTargets(teacher_outputs="probabilities"),
            LOGITS,
            LOGITS,
            ConfigurationError,
            r"said to be probabilities, but they range(.|\n)*teacher_outputs='logits'",
        ),
        (losses.SoftTargets(teacher_outputs="log_probabilities"), LOGITS, LOGITS, ConfigurationError, "exponentials"),
        (
            losses.SoftTargets(teacher_outputs="log_probabilities"),
            PROBABILITIES,
            LOGITS,
            ConfigurationError,
            "every row is one of probabilities",
        ),
        (losses.SoftTargets(teacher_outputs="probabilities"), np.log(PROBABILITIES), LOGITS, ConfigurationError, "log-probabilities"),
        (losses.SoftTargets(), PROBABILITIES.astype("float16"), LOGITS, ConfigurationError, "teacher"),
        (losses.DecoupledKD(), PROBABILITIES, LOGITS, ConfigurationError, "DecoupledKD: the teacher"),
        (losses.DIST(), LOGITS, PROBABILITIES, ConfigurationError, "DIST: the student"),
        (losses.LogitMatching(), PROBABILITIES, LOGITS, ConfigurationError, "LogitMatching: the teacher"),
        (losses.BinarySoftTargets(), SIGMOIDS, LOGITS, ConfigurationError, "all 40 of them lie between 0 and 1"),
        (losses.BinarySoftTargets(), LOGITS, SIGMOIDS, ConfigurationError, "student_outputs='probabilities'"),
        (losses.BinarySoftTargets(teacher_outputs="probabilities"), LOGITS, LOGITS, ConfigurationError, "said to be probabilities"),
        (losses.AttentionMaps(loss="kl"), LOGITS, PROBABILITIES, ConfigurationError, "scores down to"),
        (losses.SoftTargets(), with_value(np.nan), LOGITS, DataError, r"teacher's final output holds 1 values(.|\n)*nan at \(2, 3\)"),
        (losses.Hint("t", "s"), LOGITS, with_value(-np.inf), DataError, "student's layer 's' holds 1"),
    ],
)
def test_values_of_the_first_batch(loss, teacher, student, error, words):
    with pytest.raises(error, match=words):
        loss.check_first_batch(teacher, student)


@pytest.mark.parametrize(
    ("loss", "teacher", "student"),
    [
        (losses.SoftTargets(), LOGITS, np.zeros_like(LOGITS)),
        (losses.SoftTargets(), np.log(PROBABILITIES), LOGITS * 1e5),
        (losses.SoftTargets(teacher_outputs="probabilities"), np.eye(5), LOGITS[:5]),
        (losses.SoftTargets(teacher_outputs="probabilities"), PROBABILITIES.astype("float16"), LOGITS),
        (losses.BinarySoftTargets(), LOGITS, np.zeros_like(LOGITS)),
        (losses.BinarySoftTargets(teacher_outputs="probabilities"), SIGMOIDS, LOGITS),
        (losses.LogitMatching(), np.ones((4, 1)), np.ones((4, 1))),
    ],
)
def test_right_values_of_the_first_batch_pass(loss, teacher, student):
    loss.check_first_batch(teacher, student)


@pytest.mark.parametrize(
    ("loss", "settings", "error", "words"),
    [
        (losses.DecoupledKD(), {}, ConfigurationError, "needs the labels"),
        (losses.TeacherBounded(), {}, ConfigurationError, "needs the labels"),
        (losses.ContrastiveRepresentation(dimensions=None, negatives="other_classes"), {}, ConfigurationError, "needs the labels"),
        (losses.SoftTargets(LinearSchedule(4.0, 1.0, 10)), {}, ConfigurationError, "without a training step"),
        (losses.SoftTargets(keras.optimizers.schedules.ExponentialDecay(4.0, 100000, 0.9)), {}, ConfigurationError, "ExponentialDecay"),
        (losses.DecoupledKD(), {"labels": np.zeros((8, 2, 2))}, DataError, r"\(8, 2, 2\)"),
        (losses.TeacherBounded(), {"labels": np.zeros((8, 4))}, DataError, "equal shapes"),
        (
            losses.ContrastiveRepresentation(dimensions=None, negatives="other_classes"),
            {"labels": np.zeros((8, 2, 2))},
            DataError,
            "one-hot",
        ),
        (losses.SoftTargets(), {"sample_weight": np.ones((8, 3))}, DataError, r"sample_weight has the shape \(8, 3\)"),
        (losses.RelationalKD(), {"sample_weight": np.ones((8, 3))}, DataError, "sample_weight"),
        (losses.DIST(), {"sample_weight": np.ones((8, 3))}, DataError, "sample_weight"),
    ],
)
def test_what_a_step_lacks(loss, settings, error, words):
    with pytest.raises(error, match=words):
        loss.compute_loss(LOGITS, LOGITS, **settings)


def test_a_column_of_labels_does_not_broadcast():
    outputs = np.arange(4.0)[:, None]
    values = [
        float(losses.TeacherBounded(9.0).compute_loss(outputs, outputs, labels=labels)) for labels in (outputs + 1, outputs[:, 0] + 1)
    ]
    assert values == [1.0, 1.0]
    assert float(losses.TeacherBounded(9.0).compute_loss(outputs[:, 0], outputs[:, 0], labels=outputs + 1)) == 1.0


def test_a_class_without_a_loss_is_refused():
    class Nothing(losses.KnowledgeLoss):
        pass

    with pytest.raises(TypeError, match="Nothing defines neither"):
        Nothing().compute_loss(np.zeros((2, 3)), np.zeros((2, 3)))


def test_probability_of_zero_is_the_smallest_number():
    assert np.isfinite(spaces.as_logits(np.zeros((1, 2), "float32"), "probabilities")).all()
    assert np.isfinite(spaces.as_binary_logits(np.array([[0.0, 1.0]], "float32"), "probabilities")).all()
