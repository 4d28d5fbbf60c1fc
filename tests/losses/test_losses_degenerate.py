"""Inputs that leave a loss nothing to compare, or next to nothing: refused before training, or trained on with bounded gradients."""

import keras
import numpy as np
import numpy_reference as reference
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from small import mlp

from tfdistill import losses
from tfdistill.distill.distiller import Distiller
from tfdistill.errors import ConfigurationError, ModelError
from tfdistill.losses import logits, spaces

CLASSES = 6


def computed(loss, teacher, student, **extra):
    student = tf.convert_to_tensor(student)
    with tf.GradientTape() as tape:
        tape.watch(student)
        value = loss.compute_loss(teacher, student, **extra)
    return float(value), tf.cast(tape.gradient(value, student), "float64").numpy()


# A student that starts flat: its last layer is zero.

STANDARDIZING = {
    "standardized": losses.SoftTargets(2.0, standardize=True),
    "standardized reverse": losses.SoftTargets(2.0, "reverse_kl", standardize=True),
    "standardized js": losses.SoftTargets(2.0, "js", standardize=True),
    "dist": losses.DIST(),
    "dist, warm": losses.DIST(4.0),
    "dist within classes": losses.DIST(beta=0.0),
    "dist between classes": losses.DIST(gamma=0.0),
}


def blobs(count=256):
    """Returns features of six well separated groups, the logits of a teacher that classifies them, and the labels."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(CLASSES, 12))
    y = rng.integers(0, CLASSES, count)
    x = centres[y] + 0.3 * rng.normal(size=(count, 12))
    teacher = 6.0 * np.eye(CLASSES)[y] + rng.normal(size=(count, CLASSES))
    return x.astype("float32"), teacher.astype("float32"), y


@pytest.mark.parametrize("rate", [0.1, 0.5])
@pytest.mark.parametrize("loss", STANDARDIZING.values(), ids=STANDARDIZING)
def test_plain_sgd_learns_from_a_head_of_zeros(loss, rate):
    x, teacher, y = blobs()
    head = tf.Variable(tf.zeros((12, CLASSES)))

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            value = loss.compute_loss(teacher, x @ head)
        gradient = tape.gradient(value, head)
        head.assign_sub(rate * gradient)
        return tf.reduce_max(tf.abs(gradient))

    first = float(step())
    # Of the order of cross-entropy's, times the temperature squared of DIST.
    assert 1e-3 < first < 5.0 * max(1.0, getattr(loss, "temperature", 1.0)) ** 2
    for _ in range(150):
        step()
    assert (np.argmax(x @ head.numpy(), -1) == y).mean() > 0.95
    assert np.abs(head.numpy()).max() < 20.0


@pytest.mark.slow
def test_a_distiller_learns_from_a_head_of_zeros():
    x, targets, y = blobs(512)
    teacher = mlp(24, features=12, classes=CLASSES, name="teacher")
    teacher.compile(keras.optimizers.Adam(0.01), loss="mse")
    teacher.fit(x, targets, epochs=20, verbose=0)
    for loss in (losses.SoftTargets(2.0, standardize=True), losses.DIST()):
        student = mlp(16, features=12, classes=CLASSES, name="student", kernel_initializer="glorot_uniform")
        for weight in student.get_layer("logits").weights:
            weight.assign(np.zeros(weight.shape))
        distiller = Distiller(teacher, student, loss, student_loss_weight=0.0)
        distiller.compile(keras.optimizers.SGD(0.1), loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        distiller.fit(x, y, epochs=10, batch_size=32, verbose=0)
        assert (student.predict(x, verbose=0).argmax(-1) == y).mean() > 0.9, loss


@pytest.mark.parametrize("spread", [0.0, 1e-30, 1e-12, 1e-6, 1e-3, 1e-2])
@pytest.mark.parametrize("loss", STANDARDIZING.values(), ids=STANDARDIZING)
def test_gradients_of_flat_students_are_bounded(loss, spread):
    rng = np.random.default_rng(1)
    teacher = rng.normal(size=(16, CLASSES)).astype("float32") * 3
    for offset in (0.0, 5.0):
        student = (spread * rng.normal(size=(16, CLASSES)) + offset).astype("float32")
        value, gradient = computed(loss, teacher, student)
        assert np.isfinite(value)
        # Ten is one over the floor; the rest is the temperature's.
        assert np.abs(gradient).max() * len(student) < 10 * max(1.0, loss.temperature) ** 2


@pytest.mark.parametrize("loss", STANDARDIZING.values(), ids=STANDARDIZING)
def test_students_that_are_not_flat_are_as_in_the_papers(loss):
    """The floor is a tenth: from there on the formula without a floor."""
    rng = np.random.default_rng(1)
    teacher, student = rng.normal(size=(16, CLASSES)) * 3, rng.normal(size=(16, CLASSES)) * 0.5
    if isinstance(loss, losses.DIST):
        expected = reference.dist(teacher, student, np.ones(16), None, loss.temperature, loss.beta, loss.gamma)
    else:
        expected = reference.soft_targets(teacher, student, np.ones(16), None, 2.0, loss.divergence, standardize=True)
    assert computed(loss, teacher, student)[0] == pytest.approx(expected, rel=1e-9 if loss.temperature < 4 else 0.05)


@pytest.mark.parametrize("loss", STANDARDIZING.values(), ids=STANDARDIZING)
def test_a_teacher_without_preferences_teaches_without_harm(loss):
    student = np.random.default_rng(1).normal(size=(16, CLASSES)).astype("float32")
    for teacher in (np.zeros_like(student), np.full_like(student, 7.3), np.full_like(student, -1e4)):
        for scale in (1.0, 1e-3, 0.0):
            _, gradient = computed(loss, teacher, student * np.float32(scale))
            assert np.abs(gradient).max() < 10.0 * loss.temperature


def test_the_floor_follows_the_teacher():
    teacher = np.array([[1.0, 2.0, 3.0], [0.1, 0.2, 0.3], [4.0, 4.0, 4.0]], "float32")
    deviation = np.array([np.sqrt(2 / 3), np.sqrt(2 / 3) / 10, 1.0])
    np.testing.assert_allclose(spaces.least_deviation(teacher)[:, 0], 0.1 * deviation, rtol=1e-5)
    assert np.asarray(spaces.least_deviation(1e3 * teacher))[0, 0] == pytest.approx(0.1)


# Sizes that leave nothing, refused when outputs are compared for the first time. Each with what its message advises.

TWO, ONE = (None, 2), (None, 1)
UNINFORMATIVE = {
    "standardized, two classes": (losses.SoftTargets(2.0, standardize=True), TWO, "standardize=False", losses.SoftTargets(2.0), TWO),
    "standardized js, two classes": (
        losses.SoftTargets(2.0, "js", True),
        (None, 5, 2),
        "standardize=False",
        losses.SoftTargets(),
        (None, 5, 2),
    ),
    "dist, two classes": (losses.DIST(), TWO, "beta=0.0", losses.DIST(beta=0.0), TWO),
    "dist, two classes, other advice": (losses.DIST(), TWO, "SoftTargets", losses.SoftTargets(), TWO),
    "one class": (losses.SoftTargets(), ONE, "BinarySoftTargets", losses.BinarySoftTargets(), ONE),
    "dist, one class": (losses.DIST(beta=0.0), ONE, "BinarySoftTargets", losses.BinarySoftTargets(), ONE),
    "standardized, one class": (losses.SoftTargets(standardize=True), ONE, "OutputMatching", losses.OutputMatching(), ONE),
    "decoupled, two classes, no target part": (losses.DecoupledKD(alpha=0.0), TWO, "`alpha`", losses.DecoupledKD(), TWO),
    "centered, one logit": (losses.LogitMatching(centered=True), ONE, "centered=False", losses.LogitMatching(), ONE),
    "cosine of one channel": (losses.Hint(loss="cosine"), (None, 4, 4, 1), "loss='mse'", losses.Hint(), (None, 4, 4, 1)),
    "cosine of one state": (losses.HiddenStates(loss="cosine"), (None, 4, 1), "loss='mse'", losses.HiddenStates(), (None, 4, 1)),
    "map of one position": (losses.AttentionTransfer(), (None, 1, 1, 8), "earlier layers", losses.AttentionTransfer(), (None, 4, 4, 8)),
    "attention to one key": (losses.AttentionMaps(), (None, 2, 1, 1), "two positions", losses.AttentionMaps(), (None, 2, 2, 2)),
    "contrast of one channel": (
        losses.ContrastiveRepresentation(dimensions=1),
        ONE,
        "`dimensions` of at least 2",
        losses.ContrastiveRepresentation(dimensions=2),
        TWO,
    ),
    "cosines of one number": (losses.ProbabilisticTransfer(), ONE, "RelationalKD", losses.RelationalKD(), ONE),
    "kernel of one number": (losses.CorrelationCongruence(), (None, 1, 1), "wider layer", losses.CorrelationCongruence(), (None, 1, 2)),
    "angles on a line": (losses.RelationalKD(0.0, 1.0), ONE, "`distance_weight`", losses.RelationalKD(1.0, 1.0), ONE),
}


@pytest.mark.parametrize("case", UNINFORMATIVE.values(), ids=UNINFORMATIVE)
def test_sizes_that_leave_nothing_to_compare_are_refused(case):
    loss, shape, advice, remedy, its_shape = case
    with pytest.raises(ModelError, match=advice) as caught:
        loss.validate_outputs(keras.KerasTensor(shape), keras.KerasTensor(shape))
    assert str(shape) in str(caught.value)
    assert "at least two" in str(caught.value) or "at least three" in str(caught.value)
    remedy.validate_outputs(keras.KerasTensor(its_shape), keras.KerasTensor(its_shape))
    rng = np.random.default_rng(0)
    sides = [rng.normal(size=[5 if d is None else d for d in its_shape]).astype("float32") for _ in range(2)]
    if isinstance(remedy, losses.AttentionMaps):
        sides = [reference.softmax(side) for side in sides]
    labels = {"labels": np.array([0, 1, 0, 1, 0])} if remedy.needs_labels else {}
    assert np.abs(computed(remedy, *sides, **labels)[1]).max() > 0


@pytest.mark.parametrize("kind", [Distiller, keras.distillation.Distiller])
@pytest.mark.parametrize("loss", [losses.SoftTargets(2.0, standardize=True), losses.DIST()], ids=["standardized", "dist"])
def test_distillers_refuse_two_classes_before_training(kind, loss):
    x, y = np.random.default_rng(0).normal(size=(16, 8)).astype("float32"), np.arange(16) % 2
    teacher, student = mlp(6, classes=2, name="teacher"), mlp(4, classes=2, name="student")
    before = student.get_weights()

    def fit(loss):
        distiller = kind(teacher, student, loss, student_loss_weight=0.5)
        distiller.compile(keras.optimizers.SGD(0.1), loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), run_eagerly=True)
        distiller.fit(x, y, batch_size=8, verbose=0)

    with pytest.raises(ModelError, match="at least three classes"):
        fit(loss)
    assert all(np.array_equal(a, b) for a, b in zip(before, student.get_weights(), strict=True))
    fit(losses.DIST(beta=0.0) if isinstance(loss, losses.DIST) else losses.SoftTargets(2.0))
    assert not all(np.array_equal(a, b) for a, b in zip(before, student.get_weights(), strict=True))


@pytest.mark.parametrize("gap", [0.0, 1e-7, 1e-3])
@pytest.mark.parametrize("loss", STANDARDIZING.values(), ids=STANDARDIZING)
def test_two_classes_near_a_tie_have_bounded_gradients(loss, gap):
    """`compute_loss` of itself takes two classes: the formula is defined."""
    teacher = np.random.default_rng(0).normal(size=(8, 2)).astype("float32")
    student = np.array([[gap, 0.0]] * 8, "float32")
    assert np.abs(computed(loss, teacher, student)[1]).max() < 30 * loss.temperature**2


# Batches that leave nothing.

SMALL_BATCHES = {
    "dist": (losses.DIST(), 3),
    "relational": (losses.RelationalKD(), 3),
    "relational distances": (losses.RelationalKD(1.0, 0.0), 3),
    "probabilistic": (losses.ProbabilisticTransfer(), 3),
    "similarity": (losses.SimilarityPreserving(), 2),
    "congruence": (losses.CorrelationCongruence(), 2),
    "contrastive": (losses.ContrastiveRepresentation(dimensions=None), 2),
}


@pytest.mark.parametrize("case", SMALL_BATCHES.values(), ids=SMALL_BATCHES)
def test_batches_too_small_to_relate_samples_are_refused(case):
    loss, fewest = case
    rng = np.random.default_rng(0)
    teacher, student = rng.normal(size=(2, 4, CLASSES)).astype("float32")
    for size in range(1, fewest):
        with pytest.raises(ConfigurationError, match=f"has {size} sample(.|\n)*batch_size of at least {fewest}"):
            loss.check_first_batch(teacher[:size], student[:size])
        # A last, smaller batch of an epoch is computed, and does no harm.
        value, gradient = computed(loss, teacher[:size], student[:size])
        assert np.isfinite(value)
        assert np.abs(gradient).max() < 10.0
    loss.check_first_batch(teacher[:fewest], student[:fewest])
    assert np.abs(computed(loss, teacher[:fewest], student[:fewest])[1]).max() > 1e-6


def test_positions_count_as_samples_and_the_other_part_needs_none():
    sequence = np.random.default_rng(0).normal(size=(1, 4, CLASSES)).astype("float32")
    losses.DIST().check_first_batch(sequence, sequence)
    losses.DIST(gamma=0.0).check_first_batch(sequence[:, :1], sequence[:, :1])
    with pytest.raises(ConfigurationError, match=r"gamma=0\.0"):
        losses.DIST().check_first_batch(sequence[:, :2], sequence[:, :2])


def test_fit_says_that_the_batch_is_too_small():
    x, y = np.random.default_rng(0).normal(size=(12, 8)).astype("float32"), np.arange(12) % 3
    distiller = Distiller(mlp(6, name="teacher"), mlp(4, name="student"), losses.RelationalKD(), student_loss_weight=0.5)
    distiller.compile(keras.optimizers.SGD(0.1), loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    with pytest.raises(ConfigurationError, match="batch_size of at least 3"):
        distiller.fit(x, y, batch_size=2, verbose=0)
    distiller.fit(x, y, batch_size=3, verbose=0)


# Masked classes.


@pytest.mark.parametrize("mask", [-1e9, -65504.0, -3e38])
@pytest.mark.parametrize("side", ["teacher", "student"])
def test_masked_logits_are_not_standardized(side, mask):
    rng = np.random.default_rng(0)
    sides = dict(zip(("teacher", "student"), rng.normal(size=(2, 5, CLASSES)).astype("float32"), strict=True))
    sides[side][:, 2] = mask
    with pytest.raises(ConfigurationError, match=f"5 of the {side}'s 30 logits(.|\n)*standardize=False"):
        losses.SoftTargets(2.0, standardize=True).check_first_batch(**sides)
    losses.SoftTargets(2.0).check_first_batch(**sides)
    kept = {name: np.delete(x, 2, axis=-1) for name, x in sides.items()}
    losses.SoftTargets(2.0, standardize=True).check_first_batch(**kept)


@pytest.mark.parametrize("mask", [-1e9, -1e4])
@pytest.mark.parametrize(
    "loss",
    [
        losses.SoftTargets(2.0),
        losses.SoftTargets(2.0, "js"),
        losses.SoftTargets(2.0, "reverse_kl"),
        losses.DecoupledKD(target="teacher"),
        losses.DIST(),
    ],
    ids=["kl", "js", "reverse_kl", "decoupled", "dist"],
)
def test_a_class_that_is_masked_on_both_sides_is_as_if_absent(loss, mask):
    rng = np.random.default_rng(0)
    teacher, student = rng.normal(size=(2, 6, CLASSES)).astype("float32")
    value, gradient = computed(loss, teacher, student)
    masked = [np.insert(x, 2, mask, axis=-1).astype("float32") for x in (teacher, student)]
    also, its_gradient = computed(loss, *masked)
    assert np.abs(its_gradient[:, 2]).max() == 0.0
    if isinstance(loss, losses.DIST):
        # A probability of zero is an entry of the rows, and a class whose correlation counts as 0.
        assert np.isfinite(also)
        return
    assert also == pytest.approx(value, rel=1e-5)
    np.testing.assert_allclose(np.delete(its_gradient, 2, -1), gradient, rtol=1e-4, atol=1e-6)


# All kinds of logits: values and gradients are finite.


def outputs(kind, rng, shape):
    """Logits as real models output them."""
    x = rng.normal(size=shape)
    return {
        "usual": lambda: x,
        "one-hot": lambda: 1e4 * np.eye(shape[-1])[rng.integers(0, shape[-1], shape[:-1])],
        "equal": lambda: np.full(shape, 3.7),
        "zeros": lambda: np.zeros(shape),
        "masked": lambda: np.where(rng.uniform(size=shape) < 0.4, -1e9, x),
        "tiny": lambda: 1e-7 * x,
        "huge": lambda: 1e4 * x,
        "repeated": lambda: np.broadcast_to(x[:1], shape).copy(),
    }[kind]()


KINDS = st.sampled_from(["usual", "one-hot", "equal", "zeros", "masked", "tiny", "huge", "repeated"])
TEMPERATURES = st.sampled_from([0.1, 0.5, 1.0, 4.0, 20.0, 100.0])
TYPES = st.sampled_from(["float32", "float16", "bfloat16"])
BATCHES = st.sampled_from([1, 2, 3, 6])


def assert_finite(loss, teacher, student, dtype, **extra):
    # float16 ends at 65504.
    if dtype == "float16":
        teacher, student = (np.clip(x, -6e4, 6e4) for x in (teacher, student))
    value, gradient = computed(loss, *(tf.cast(x, dtype) for x in (teacher, student)), **extra)
    assert np.isfinite(value), (loss, value)
    assert np.isfinite(gradient).all(), loss


@given(KINDS, KINDS, TEMPERATURES, TYPES, BATCHES, st.integers(0, 3))
@settings(max_examples=15, deadline=None)
def test_losses_of_logits_are_finite(kind, other, temperature, dtype, batch, seed):
    rng = np.random.default_rng(seed)
    teacher, student = outputs(kind, rng, (batch, 5)), outputs(other, rng, (batch, 5))
    for loss in (
        *(losses.SoftTargets(temperature, d, standardize=s) for d in logits.DIVERGENCES for s in (False, True)),
        losses.DIST(temperature),
        losses.DecoupledKD(temperature, target="teacher"),
        losses.BinarySoftTargets(temperature),
    ):
        # Float16 has neither -1e9 nor gradients of one over the deviation of the smallest teachers. A high temperature makes a teacher small: DIST's
        # gradient for a constant student is about 10 T / (the deviation of the teacher's logits / T), 1e5 at T = 100.
        beyond = {"masked", "tiny"} & {kind, other} or (isinstance(loss, losses.DIST) and temperature == 100.0)
        assert_finite(loss, teacher, student, "float32" if beyond else dtype)


@given(KINDS, KINDS, TEMPERATURES, st.sampled_from(["float32", "bfloat16"]), BATCHES, st.integers(0, 3))
@settings(max_examples=12, deadline=None)
def test_losses_of_probabilities_are_finite(kind, other, temperature, dtype, batch, seed):
    rng = np.random.default_rng(seed)
    teacher, student = (reference.softmax(outputs(k, rng, (batch, 5))) for k in (kind, other))
    said = {"teacher_outputs": "probabilities", "student_outputs": "probabilities"}
    for loss in (
        *(losses.SoftTargets(temperature, divergence, **said) for divergence in logits.DIVERGENCES),
        losses.DIST(temperature, **said),
        losses.DecoupledKD(temperature, target="teacher", **said),
        losses.BinarySoftTargets(temperature, **said),
    ):
        assert_finite(loss, teacher, student, dtype)
    maps = [x.reshape(batch, 1, 1, 5) for x in (teacher, student)]
    assert_finite(losses.AttentionMaps(loss="kl"), *maps, dtype)


@given(KINDS, KINDS, TYPES, BATCHES, st.integers(0, 3))
@settings(max_examples=12, deadline=None)
def test_losses_of_features_are_finite(kind, other, dtype, batch, seed):
    rng = np.random.default_rng(seed)
    teacher, student = outputs(kind, rng, (batch, 3, 4)), outputs(other, rng, (batch, 3, 4))
    for loss in (
        losses.Hint(loss="cosine"),
        losses.HiddenStates(loss="cosine"),
        losses.AttentionTransfer(),
        losses.AttentionTransfer(power=0.5),
        losses.AttentionTransfer(power=4.0),
        losses.SimilarityPreserving(),
        losses.RelationalKD(),
        losses.ProbabilisticTransfer(),
        losses.CorrelationCongruence(),
        losses.CorrelationCongruence(order=None),
        losses.ContrastiveRepresentation(dimensions=None),
    ):
        # Gradients are one over the size of the features, which float16 cannot hold for the smallest.
        assert_finite(loss, teacher, student, "float32" if "tiny" in (kind, other) else dtype)
