"""Properties of the losses that the papers state: limits, invariances, hand-computed values; and random shapes."""

import math

import keras
import numpy as np
import numpy_reference as reference
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tfdistill import losses
from tfdistill.losses import logits, relations, spaces
from tfdistill.losses.correlation import pearson_distance

RNG = np.random.default_rng(5)
TEACHER, STUDENT = RNG.normal(size=(6, 5)), RNG.normal(size=(6, 5))
WIDE, NARROW = RNG.normal(size=(6, 8)), RNG.normal(size=(6, 4))


def value(loss, teacher=TEACHER, student=STUDENT, **settings):
    return float(loss.compute_loss(teacher, student, **settings))


def gradient(loss, teacher=TEACHER, student=STUDENT):
    student = tf.convert_to_tensor(student)
    with tf.GradientTape() as tape:
        tape.watch(student)
        result = loss.compute_loss(teacher, student)
    return np.asarray(tape.gradient(result, student))


@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
def test_analytic_gradient_of_kl(temperature):
    expected = reference.soft_targets_gradient(TEACHER, STUDENT, temperature)
    np.testing.assert_allclose(gradient(losses.SoftTargets(temperature)), expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(gradient(losses.SoftTargets(temperature, "cross_entropy")), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("make", "limit"),
    [
        (lambda t: losses.SoftTargets(t), 0.5),
        (lambda t: losses.SoftTargets(t, "reverse_kl"), 0.5),
        (lambda t: losses.SoftTargets(t, "cross_entropy"), 0.5),
        (lambda t: losses.SoftTargets(t, "js"), 0.125),
    ],
    ids=["kl", "reverse-kl", "cross-entropy", "js"],
)
def test_temperature_squared_keeps_the_gradient(make, limit):
    """As the temperature grows, the loss tends to a multiple of the mean squared difference of centered logits."""
    expected = limit * gradient(losses.LogitMatching(centered=True))
    np.testing.assert_allclose(gradient(make(1e4)), expected, rtol=2e-3, atol=1e-5)
    warm, hot = (np.linalg.norm(gradient(make(t))) for t in (10.0, 1000.0))
    assert 0.8 < warm / hot < 1.25


@pytest.mark.parametrize(
    "make", [losses.BinarySoftTargets, losses.DIST, lambda t: losses.DecoupledKD(t, target="teacher")], ids=["binary", "dist", "dkd"]
)
def test_temperature_squared_is_in_the_others_too(make):
    first, second = (np.linalg.norm(gradient(make(t))) for t in (1e3, 2e3))
    # DIST is made of correlations, which do not shrink with the temperature: its factor is there as in the paper's code.
    assert second / first == pytest.approx(4.0 if make is losses.DIST else 1.0, rel=1e-2)


def test_dist_gradient_without_its_factor_is_level():
    gradients = [np.linalg.norm(gradient(losses.DIST(t))) / t**2 for t in (1e3, 2e3)]
    assert gradients[0] == pytest.approx(gradients[1], rel=1e-2)


@pytest.mark.parametrize(
    ("loss", "change"),
    [
        (losses.SoftTargets(4.0), lambda s: s + 3.0),
        (losses.SoftTargets(4.0, "js"), lambda s: s - 7.0),
        (losses.SoftTargets(2.0, standardize=True), lambda s: 5.0 * s + 3.0),
        (losses.SoftTargets(2.0, "reverse_kl", standardize=True), lambda s: 0.2 * s - 9.0),
        (losses.DecoupledKD(target="teacher"), lambda s: s + 3.0),
        (losses.DIST(), lambda s: s + 3.0),
        (losses.LogitMatching(centered=True), lambda s: s + 3.0),
        (losses.Hint(loss="cosine"), lambda s: 4.0 * s),
        (losses.SimilarityPreserving(), lambda s: 4.0 * s),
        (losses.RelationalKD(), lambda s: 4.0 * s + 1.0),
        (losses.ProbabilisticTransfer(), lambda s: 4.0 * s),
        (losses.CorrelationCongruence(), lambda s: 4.0 * s),
        (losses.ContrastiveRepresentation(dimensions=None), lambda s: 4.0 * s),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, losses.KnowledgeLoss) else "",
)
def test_shift_and_scale_do_not_matter_where_the_paper_says_so(loss, change):
    assert value(loss, student=change(STUDENT)) == pytest.approx(value(loss), rel=1e-8)


def test_shift_and_scale_of_predictions_do_not_matter_to_dist():
    rows, columns = (np.random.default_rng(2).uniform(0.5, 2.0, shape) for shape in ((6, 1), (1, 5)))
    for axis, scale in ((1, rows), (0, columns)):
        np.testing.assert_allclose(
            pearson_distance(TEACHER, STUDENT * scale + 0.3 * scale, axis), pearson_distance(TEACHER, STUDENT, axis), rtol=1e-9
        )
    np.testing.assert_allclose(pearson_distance(TEACHER, 3.0 * TEACHER + 1.0), np.zeros(6), atol=1e-12)
    np.testing.assert_allclose(pearson_distance(TEACHER, -TEACHER), np.full(6, 2.0), atol=1e-12)
    np.testing.assert_allclose(pearson_distance(TEACHER, np.full_like(TEACHER, 0.25)), np.ones(6), atol=1e-7)


@pytest.mark.parametrize(
    "loss",
    [losses.SimilarityPreserving(), losses.RelationalKD(), losses.ProbabilisticTransfer(), losses.CorrelationCongruence()],
    ids=lambda loss: type(loss).__name__,
)
def test_relations_survive_rotation_and_other_widths(loss):
    rotation = np.linalg.qr(RNG.normal(size=(4, 4)))[0]
    plain = value(loss, WIDE, NARROW)
    assert value(loss, WIDE, NARROW @ rotation) == pytest.approx(plain, rel=1e-9)
    # The teacher's features in a wider space are the same relations: the loss is 0.
    embedding = np.linalg.qr(RNG.normal(size=(8, 8)))[0][:4]
    assert value(loss, NARROW @ embedding, NARROW) == pytest.approx(0.0, abs=1e-12)
    assert plain > 1e-4


def test_decoupled_parts_add_up_to_kl():
    """KL = target part + (1 - teacher's probability of the target) * non-target part (Zhao et al. 2022)."""
    target = np.argmax(TEACHER, -1)
    t1 = logits.soft_targets(TEACHER, STUDENT, 1.0)
    from tfdistill.losses.decoupled import decoupled_kd

    first, second = (decoupled_kd(TEACHER, STUDENT, target, 1.0, a, b) for a, b in ((1.0, 0.0), (0.0, 1.0)))
    np.testing.assert_allclose(t1, first + (1 - reference.softmax(TEACHER).max(-1)) * second, rtol=1e-9)


@pytest.mark.parametrize(
    ("loss", "teacher", "student", "settings", "expected"),
    [
        # p = (3/4, 1/4), q = (1/2, 1/2): 3/4 ln 3/2 + 1/4 ln 1/2.
        (losses.SoftTargets(1.0), [[math.log(3), 0.0]], [[0.0, 0.0]], {}, 0.75 * math.log(1.5) + 0.25 * math.log(0.5)),
        # The same at T = 2 after logits twice as large, times 4.
        (losses.SoftTargets(2.0), [[2 * math.log(3), 0.0]], [[1.0, 1.0]], {}, 4 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5))),
        # A confident teacher: -ln of the student's 1/2.
        (losses.SoftTargets(1.0, "kl", teacher_outputs="probabilities"), [[1.0, 0.0]], [[0.0, 0.0]], {}, math.log(2)),
        (losses.BinarySoftTargets(), [[math.log(3)]], [[0.0]], {}, 0.75 * math.log(1.5) + 0.25 * math.log(0.5)),
        (losses.TeacherBounded(), [[1.0], [3.0]], [[2.0], [2.0]], {"labels": [[0.0], [0.0]]}, 2.0),
        (losses.TeacherBounded(5.5), [[1.0], [3.0]], [[2.0], [2.0]], {"labels": [[0.0], [0.0]]}, 4.0),
        (losses.OutputMatching("huber", 1.0), [0.0, 0.0], [0.5, 3.0], {}, (0.125 + 2.5) / 2),
        (losses.Hint(), [[[[4.0], [0.0]], [[0.0], [0.0]]]], [[[[3.0]]]], {}, 4.0),
        # Two unit maps at a right angle: a squared distance of 2.
        (losses.AttentionTransfer(), [[[1.0, 1.0], [0.0, 0.0]]], [[[0.0], [5.0]]], {}, 2.0),
        # Orthogonal samples against equal ones: rows (1, 0) against (1, 1) / sqrt 2.
        (losses.SimilarityPreserving(), [[1.0, 0.0], [0.0, 1.0]], [[1.0], [1.0]], {}, 2 * ((1 - 0.5**0.5) ** 2 + 0.5) / 4),
        # Three points on a line, 1 and 2 apart, against 1 and 1: relative distances (1/2, 1, 3/2) against (3/4, 3/4, 3/2).
        (losses.RelationalKD(1.0, 0.0), [[0.0], [1.0], [3.0]], [[0.0], [1.0], [2.0]], {}, (0.03125 + 0.03125) / 3),
        # Two samples are each other's only neighbours, for any features.
        (losses.ProbabilisticTransfer(), [[1.0, 0.0], [0.0, 1.0]], [[1.0], [1.0]], {}, 0.0),
        (losses.CorrelationCongruence("bilinear"), [[1.0, 0.0], [0.0, 1.0]], [[1.0], [1.0]], {}, 0.5),
        # All features are equal: the loss is that of a uniform choice among three.
        (losses.ContrastiveRepresentation(dimensions=None), [[1.0], [1.0], [1.0]], [[2.0], [2.0], [2.0]], {}, math.log(3)),
        (losses.DIST(1.0, 1.0, 0.0), [[2.0, 0.0]], [[0.0, 2.0]], {}, 2.0),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, losses.KnowledgeLoss) else "",
)
def test_values_worked_out_by_hand(loss, teacher, student, settings, expected):
    settings = {name: np.array(v) for name, v in settings.items()}
    assert value(loss, np.array(teacher), np.array(student), **settings) == pytest.approx(expected, rel=1e-7, abs=1e-9)


def test_kl_agrees_with_keras():
    teacher, student = TEACHER.astype("float32"), STUDENT.astype("float32")
    keras_loss = keras.distillation.LogitsDistillation(4.0, loss=keras.losses.KLDivergence())
    assert value(losses.SoftTargets(4.0), teacher, student) == pytest.approx(float(keras_loss.compute_loss(teacher, student)), rel=1e-5)


@pytest.mark.parametrize("divergence", logits.DIVERGENCES)
@pytest.mark.parametrize("size", [1e2, 1e4, 1e30])
def test_huge_logits_stay_finite(divergence, size):
    loss = losses.SoftTargets(1.0, divergence)
    teacher, student = (np.array([[1.0, -1.0, 0.5]], "float32") * size, np.array([[0.3, 1.0, -1.0]], "float32") * size)
    assert np.isfinite(value(loss, teacher, student))
    assert np.isfinite(gradient(loss, teacher, student)).all()


@pytest.mark.parametrize(
    "loss",
    [
        losses.SoftTargets(2.0, standardize=True),
        losses.DecoupledKD(target="teacher"),
        losses.DIST(),
        losses.Hint(loss="cosine"),
        losses.SimilarityPreserving(),
        losses.RelationalKD(),
        losses.ProbabilisticTransfer(),
        losses.CorrelationCongruence(),
        losses.ContrastiveRepresentation(dimensions=None),
    ],
    ids=lambda loss: type(loss).__name__,
)
@pytest.mark.parametrize("student", [np.zeros((6, 5), "float32"), np.ones((6, 5), "float32")], ids=["zeros", "ones"])
def test_degenerate_students_have_finite_gradients(loss, student):
    teacher = TEACHER.astype("float32")
    for t, s in ((teacher, student), (student, teacher)):
        assert np.isfinite(value(loss, t, s))
        assert np.isfinite(gradient(loss, t, s)).all()


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(
    "loss",
    [losses.RelationalKD(), losses.ProbabilisticTransfer(), losses.ContrastiveRepresentation(dimensions=None), losses.DIST()],
    ids=lambda v: type(v).__name__,
)
def test_relations_of_the_smallest_batches(loss, batch):
    assert np.isfinite(value(loss, TEACHER[:batch], STUDENT[:batch]))
    assert np.isfinite(gradient(loss, TEACHER[:batch], STUDENT[:batch])).all()


def test_sure_teacher_still_teaches_the_other_classes():
    """Where 1 - p rounds to 0 in float32, the non-target part is still that of the logits."""
    teacher, student = np.array([[60.0, 1.0, 2.0]], "float32"), np.array([[60.0, 2.0, 1.0]], "float32")
    expected = reference.decoupled_kd(teacher.astype("float64"), student.astype("float64"), np.ones(1), np.zeros(1), 1.0, 0.0, 1.0)
    loss = losses.DecoupledKD(1.0, 0.0, 1.0)
    assert float(loss.compute_loss(teacher, student, labels=np.zeros(1, "int32"))) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("form", [lambda y: y, lambda y: y[:, None], lambda y: np.eye(5)[y]], ids=["numbers", "column", "one-hot"])
@pytest.mark.parametrize(
    "loss",
    [losses.DecoupledKD(), losses.ContrastiveRepresentation(dimensions=None, negatives="other_classes")],
    ids=lambda v: type(v).__name__,
)
def test_forms_of_labels(loss, form):
    y = np.array([0, 1, 2, 0, 4, 1])
    assert value(loss, labels=form(y)) == pytest.approx(value(loss, labels=y), rel=1e-12)


def test_spaces_of_one_teacher_agree():
    log_p = reference.log_softmax(TEACHER)
    for kind in (losses.SoftTargets, losses.DIST, lambda **s: losses.DecoupledKD(target="teacher", **s)):
        values = [
            value(kind(teacher_outputs=space), t)
            for space, t in (("logits", TEACHER), ("log_probabilities", log_p), ("probabilities", np.exp(log_p)))
        ]
        assert values == pytest.approx([values[0]] * 3, rel=1e-9)


shapes = st.tuples(st.integers(1, 5), st.integers(2, 6), st.lists(st.integers(1, 3), max_size=2))


@given(shapes, st.sampled_from(logits.DIVERGENCES), st.floats(0.5, 20.0))
@settings(max_examples=40, deadline=None)
def test_soft_targets_of_any_shape(shape, divergence, temperature):
    batch, classes, positions = shape
    rng = np.random.default_rng(batch)
    t, s = rng.normal(size=(2, batch, *positions, classes))
    actual = value(losses.SoftTargets(temperature, divergence), t, s)
    assert actual == pytest.approx(reference.soft_targets(t, s, np.ones(batch), None, temperature, divergence), rel=1e-7, abs=1e-10)


@given(st.integers(1, 3), st.tuples(*[st.integers(1, 7)] * 4), st.integers(1, 3), st.sampled_from(["mse", "cosine", "smooth_l1"]))
@settings(max_examples=40, deadline=None)
def test_hints_of_any_size(batch, sizes, channels, distance):
    rng = np.random.default_rng(channels)
    t, s = rng.normal(size=(batch, *sizes[:2], channels)), rng.normal(size=(batch, *sizes[2:], channels))
    assert value(losses.Hint(loss=distance), t, s) == pytest.approx(
        reference.hint(t, s, np.ones(batch), None, distance), rel=1e-7, abs=1e-9
    )


@given(st.integers(2, 6), st.integers(1, 4), st.integers(1, 4))
@settings(max_examples=20, deadline=None)
def test_relations_of_any_width(batch, wide, narrow):
    rng = np.random.default_rng(batch)
    t, s, w = rng.normal(size=(batch, wide)), rng.normal(size=(batch, narrow)), rng.uniform(0.1, 2.0, batch)
    for loss, formula in (
        (losses.SimilarityPreserving(), reference.similarity_preserving),
        (losses.ProbabilisticTransfer(), reference.probabilistic_transfer),
        (losses.CorrelationCongruence(), reference.correlation_congruence),
    ):
        # The kernel of opposite one-dimensional features is 0, where NumPy's formula takes a logarithm of it.
        if formula is reference.probabilistic_transfer and 1 in (wide, narrow):
            assert value(loss, t, s, sample_weight=w) >= 0
        else:
            assert value(loss, t, s, sample_weight=w) == pytest.approx(formula(t, s, w), rel=1e-6, abs=1e-9)


def test_flattened_width_is_known_where_it_can_be():
    assert relations.vectors(keras.KerasTensor((None, 2, 3))).shape == (None, 6)
    assert spaces.standardized(np.full((1, 4), 2.0)).numpy().tolist() == [[0.0] * 4]
