"""Losses at every scale: values and gradients in float32 against float64, up to the limits of float32; zeros; float16."""

import functools

import keras
import numpy as np
import numpy_reference as reference
import pytest
import tensorflow as tf
from test_losses_table import TABLE

from tfdistill import losses
from tfdistill.losses import scaling, spaces

# If teacher, student and labels are multiplied by c, the loss is multiplied by c to this power. None: it is not a power of c.
DEGREES = {
    **dict.fromkeys(("standardized", "hint-cosine", "hidden-states-cosine", "attention-transfer", "attention-transfer-pooled"), 0),
    **dict.fromkeys(("similarity", "relational", "relational-distance", "probabilistic", "contrastive", "contrastive-classes"), 0),
    **dict.fromkeys(("congruence", "congruence-exact", "congruence-bilinear"), 0),
    "outputs-mae": 1,
    **dict.fromkeys(("logit-matching", "logit-matching-centered", "outputs-mse", "teacher-bounded"), 2),
    **dict.fromkeys(("hint", "hint-pooled", "hint-pooled-uneven", "hidden-states"), 2),
    **dict.fromkeys(("kl", "kl-T1", "kl-steps", "kl-scheduled", "reverse-kl", "js", "cross-entropy"), None),
    **dict.fromkeys(("probabilities", "both-probabilities", "log-probabilities", "decoupled", "decoupled-teacher"), None),
    **dict.fromkeys(("dist", "dist-steps", "binary", "binary-one", "binary-probabilities"), None),
    **dict.fromkeys(("outputs-huber", "teacher-bounded-margin", "hint-smooth-l1", "attention-maps", "attention-maps-mean-kl"), None),
}
CASES = {param.id: param.values[0] for param in TABLE}
# Powers of two multiply float32 numbers exactly: 2**20 is about 1e6.
POWERS = (-20, -13, -7, 7, 13, 20)
UNMOVED = [name for name, degree in DEGREES.items() if degree == 0]
# The scale of either side alone does not matter to these.
EITHER = [name for name in UNMOVED if name != "standardized"]


def scaled(name, teacher_scale, student_scale):
    """Float32 data of a row of the table; logits are scaled before the activation of the row."""
    case = CASES[name]
    rng = np.random.default_rng(3)
    sides = []
    for side, shape, scale in (("teacher", case.teacher, teacher_scale), ("student", case.student, student_scale)):
        x = (rng.normal(size=shape) * 1.5).astype("float32").astype("float64") * scale
        sides.append(case.in_space(x, side).astype("float32"))
    labels = case.data()[2]
    if case.labels == "numbers":
        labels = (labels.astype("float32") * np.float32(student_scale)).astype("float32")
    return *sides, labels


def computed(case, teacher, student, labels=None):
    student = tf.convert_to_tensor(student)
    with tf.GradientTape() as tape:
        tape.watch(student)
        value = case.compute(tf.convert_to_tensor(teacher), student, labels)
    return float(value), tape.gradient(value, student).numpy()


@functools.cache
def at_scale_one(name):
    """Value and gradient of the reference, of the same float32 numbers before they were scaled."""
    case = CASES[name]
    teacher, student, labels = (None if x is None else x.astype("float64") if x.dtype.kind == "f" else x for x in scaled(name, 1.0, 1.0))
    value = case.expected(teacher, student, labels)
    return value, reference.numeric_gradient(lambda s: case.expected(teacher, s, labels), student)


def test_every_loss_of_the_table_is_here():
    assert set(DEGREES) == set(CASES)


@pytest.mark.parametrize("power", [-80, -20, -10, 10, 20, 60])
@pytest.mark.parametrize("name", UNMOVED)
def test_scale_does_not_matter(name, power):
    value, gradient = computed(CASES[name], *scaled(name, 2.0**power, 2.0**power))
    expected, slope = at_scale_one(name)
    assert value == pytest.approx(expected, rel=2e-5)
    np.testing.assert_allclose(gradient.astype("float64") * 2.0**power, slope, rtol=2e-3, atol=2e-5 * np.abs(slope).max())


@pytest.mark.parametrize("power", [-20, 20])
@pytest.mark.parametrize("side", ["teacher", "student"])
@pytest.mark.parametrize("name", EITHER)
def test_the_scale_of_one_side_does_not_matter(name, side, power):
    scales = {"teacher": (2.0**power, 1.0), "student": (1.0, 2.0**power)}[side]
    value, gradient = computed(CASES[name], *scaled(name, *scales))
    expected, slope = at_scale_one(name)
    assert value == pytest.approx(expected, rel=2e-5)
    np.testing.assert_allclose(gradient.astype("float64") * scales[1], slope, rtol=2e-3, atol=2e-5 * np.abs(slope).max())


@pytest.mark.parametrize("power", POWERS)
@pytest.mark.parametrize("name", [name for name, degree in DEGREES.items() if degree])
def test_powers_of_differences(name, power):
    degree, scale = DEGREES[name], 2.0**power
    value, gradient = computed(CASES[name], *scaled(name, scale, scale))
    expected, slope = at_scale_one(name)
    assert value / scale**degree == pytest.approx(expected, rel=2e-5)
    np.testing.assert_allclose(gradient / scale ** (degree - 1), slope, rtol=2e-3, atol=2e-5 * np.abs(slope).max())


def powers_of(name):
    case = CASES[name]
    if case.activation("teacher") or case.activation("student"):
        return (-20, -13, -7, 1)  # beyond, probabilities vanish and have no logarithm in the reference
    return (-7, 7, 13, 20) if name.startswith("dist") else POWERS


@pytest.mark.parametrize(("name", "power"), [(name, p) for name, degree in DEGREES.items() if degree is None for p in powers_of(name)])
def test_losses_without_a_law_of_scale(name, power):
    case, scale = CASES[name], 2.0**power
    teacher, student, labels = scaled(name, scale, scale)
    value, gradient = computed(case, teacher, student, labels)
    wide = [x.astype("float64") for x in (teacher, student)]
    if labels is not None and labels.dtype.kind == "f":
        labels = labels.astype("float64")
    expected = case.expected(*wide, labels)
    step = 1e-5 * max(1.0, scale**0.5) if case.activation("student") is None else 1e-7
    slope = reference.numeric_gradient(lambda s: case.expected(wide[0], s, labels), wide[1], step)
    # The rounding of probabilities, times what multiplies them: the temperature once in a gradient, twice in a value.
    temperature = getattr(case.loss, "temperature", 1.0)
    temperature = temperature if isinstance(temperature, float) else 3.0
    loosest = 2e-7 * (1.0 if case.activation("student") is None else 10.0)
    assert value == pytest.approx(expected, rel=1e-4, abs=20 * loosest * temperature**2)
    np.testing.assert_allclose(gradient, slope, rtol=5e-3, atol=loosest * 20 * temperature + 2e-5 * np.abs(slope).max())


@pytest.mark.parametrize("power", [-13, -20, -40])
@pytest.mark.parametrize("name", ["dist", "dist-steps"])
def test_dist_of_nearly_uniform_predictions(name, power):
    """A correlation has no scale, so the reference is the limit: the correlation of the logits themselves, each row less its mean."""
    case, scale = CASES[name], 2.0**power
    teacher, student, _ = scaled(name, scale, scale)
    value, gradient = computed(case, teacher, student)
    centred = [(x.astype("float64") - x.astype("float64").mean(-1, keepdims=True)) / scale for x in (teacher, student)]

    def limit(s):
        t, s = (x - x.mean(-1, keepdims=True) for x in (centred[0], s))
        inter = np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(t.reshape(-1, t.shape[-1]), s.reshape(-1, s.shape[-1]), strict=True)])
        intra = np.mean(
            [1 - np.corrcoef(a, b)[0, 1] for a, b in zip(t.reshape(-1, t.shape[-1]).T, s.reshape(-1, s.shape[-1]).T, strict=True)]
        )
        return case.loss.temperature**2 * (case.loss.beta * inter + case.loss.gamma * intra)

    assert value == pytest.approx(limit(centred[1]), rel=1e-3)
    slope = reference.numeric_gradient(limit, centred[1])
    np.testing.assert_allclose(gradient.astype("float64") * scale, slope, rtol=1e-2, atol=2e-3 * np.abs(slope).max())


@pytest.mark.parametrize("power", [-6, -3, 3, 6])
@pytest.mark.parametrize("name", [n for n in UNMOVED if CASES[n].activation("student") is None])
def test_float16_inputs(name, power):
    case = CASES[name]
    teacher, student, labels = scaled(name, 2.0**power, 2.0**power)
    halves = [x.astype("float16") for x in (teacher, student)]
    value, gradient = computed(case, *halves, labels)
    assert gradient.dtype == np.float16
    assert value == pytest.approx(case.expected(*(x.astype("float64") for x in halves), labels), rel=1e-4)
    assert np.isfinite(gradient).all()
    assert np.abs(gradient).max() > 0


@pytest.mark.parametrize("scale", [1e-6, 1e6])
@pytest.mark.parametrize("zeros", ["one sample", "all samples"])
@pytest.mark.parametrize("side", ["teacher", "student"])
@pytest.mark.parametrize("name", UNMOVED)
def test_zeros_have_bounded_gradients(name, side, zeros, scale):
    teacher, student, labels = scaled(name, scale, scale)
    zeroed = {"teacher": teacher, "student": student}[side]
    zeroed[{"one sample": 0, "all samples": slice(None)}[zeros]] = 0.0
    value, gradient = computed(CASES[name], teacher, student, labels)
    assert np.isfinite(value)
    size = np.abs(student).max() or 1.0
    if name == "standardized":  # flat logits are measured by the teacher's, and by one
        size = min(size, np.abs(teacher).max() or 1.0, 1.0)
    assert np.abs(gradient).max() * size < 1e3


def can_be_equal(case):
    return case.zero_if_equal and case.teacher == case.student and case.labels is None and case.loss != losses.OutputMatching("mae")


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if can_be_equal(case)])
def test_equal_sides_have_no_gradient(name):
    teacher, student, _ = scaled(name, 1.0, 1.0)
    usual = np.abs(computed(CASES[name], teacher, student)[1]).max()
    assert np.abs(computed(CASES[name], teacher, teacher.copy())[1]).max() < 1e-5 * usual


def test_zero_vectors_stay_zero():
    x = tf.Variable([[0.0, 0.0], [3.0, 4.0], [1e-38, 0.0], [3e-25, 4e-25]])
    with tf.GradientTape() as tape:
        unit = scaling.unit_vectors(x)
        total = tf.reduce_sum(unit)
    np.testing.assert_allclose(unit, [[0, 0], [0.6, 0.8], [0, 0], [0.6, 0.8]], atol=1e-6)
    # The largest entry, 4, divides what has no length of its own.
    np.testing.assert_allclose(tape.gradient(total, x)[0], [0.25, 0.25], rtol=1e-6)
    assert scaling.unit_vectors(np.zeros((2, 3), "float32")).numpy().tolist() == np.zeros((2, 3)).tolist()


# Logarithms of small probabilities: no gradient is cut off where the student is most wrong.


def through(activation, loss, teacher, logits, dtype="float32", **settings):
    """Returns the gradient of a loss in the logits whose activation is the student's output."""
    logits = tf.convert_to_tensor(np.asarray(logits, dtype))
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = loss.compute_loss(tf.convert_to_tensor(np.asarray(teacher, "float32")), activation(logits), **settings)
    return float(value), tape.gradient(value, logits).numpy().astype("float64")


CONFIDENT = np.array([[0.0, -20.0, -40.0, -60.0]])
OTHER = reference.softmax(np.array([[-1.0, 0.5, 1.0, 0.2]]))


@pytest.mark.parametrize(
    ("loss", "shape"),
    [
        (losses.AttentionMaps(loss="kl"), (1, 1, 1, 4)),
        (losses.AttentionMaps(loss="kl", heads="mean"), (1, 1, 1, 4)),
        (losses.SoftTargets(1.0, teacher_outputs="probabilities", student_outputs="probabilities"), (1, 4)),
        (losses.SoftTargets(1.0, "cross_entropy", teacher_outputs="probabilities", student_outputs="probabilities"), (1, 4)),
    ],
    ids=["attention", "attention-mean", "kl", "cross-entropy"],
)
@pytest.mark.parametrize("form", ["float32", "float16"])
def test_a_sure_and_wrong_student_learns(loss, shape, form):
    """Behind a softmax the gradient of KL is student - teacher, however small the student's probabilities."""
    logits = CONFIDENT if form == "float32" else CONFIDENT / 5  # float16 has no numbers below 6e-8
    value, gradient = through(tf.nn.softmax, loss, OTHER.reshape(shape), logits.reshape(shape), form)
    q = reference.softmax(logits)
    if "cross" not in str(loss):
        assert value == pytest.approx(float(reference.kl(OTHER, q)[0]), rel=1e-4 if form == "float32" else 1e-2)
    tolerance = 1e-5 if form == "float32" else 0.5  # its slope is bounded by 2**14, so that it stays within float16
    np.testing.assert_allclose(gradient.reshape(1, 4), q - OTHER, atol=tolerance)
    assert (np.sign(gradient.reshape(1, 4)[0]) == [1, -1, -1, -1]).all()


def test_log_probabilities_are_not_cut_off():
    loss = losses.SoftTargets(1.0, teacher_outputs="probabilities", student_outputs="log_probabilities")
    logits = np.array([[0.0, -300.0, -200.0, -100.0]])
    _, gradient = through(tf.nn.log_softmax, loss, OTHER, logits)
    np.testing.assert_allclose(gradient, reference.softmax(logits) - OTHER, atol=1e-6)


@pytest.mark.parametrize(("logit", "teacher"), [(-12.0, 1.0), (-40.0, 1.0), (-60.0, 0.7), (14.0, 0.0)])
def test_a_sure_and_wrong_yes_or_no_learns(logit, teacher):
    loss = losses.BinarySoftTargets(teacher_outputs="probabilities", student_outputs="probabilities")
    _, gradient = through(tf.sigmoid, loss, [[teacher]], [[logit]])
    assert gradient[0, 0] == pytest.approx(reference.sigmoid(logit) - teacher, abs=1e-2)


def test_probabilities_of_zero_in_float16_give_no_nan():
    teacher = np.tile(OTHER, (4, 1)).astype("float32")
    for activation, loss, shape in (
        (tf.nn.softmax, losses.SoftTargets(4.0, teacher_outputs="probabilities", student_outputs="probabilities"), (4, 4)),
        (tf.nn.softmax, losses.AttentionMaps(loss="kl"), (2, 2, 1, 4)),
        (tf.sigmoid, losses.BinarySoftTargets(teacher_outputs="probabilities", student_outputs="probabilities"), (4, 4)),
    ):
        for dtype in ("float16", "float32", "bfloat16"):
            logits = tf.cast(100.0 * np.tile(CONFIDENT, (4, 1)).reshape(shape), dtype)
            with tf.GradientTape() as tape:
                tape.watch(logits)
                value = loss.compute_loss(teacher.reshape(shape), activation(logits))
            assert np.isfinite(float(value)), (loss, dtype)
            assert np.isfinite(tf.cast(tape.gradient(value, logits), "float32")).all(), (loss, dtype)


def test_the_logarithm_is_exact_and_its_slope_bounded():
    p = tf.Variable([1.0, 0.5, 1e-12, 1e-29, 1e-35, 0.0])
    with tf.GradientTape() as tape:
        logs = spaces.log_of_probabilities(p)
    np.testing.assert_allclose(logs[:5], np.log(p.numpy()[:5].astype("float64")), rtol=1e-6)
    assert float(logs[5]) == pytest.approx(np.log(1e-37), rel=1e-6)
    slope = tape.gradient(logs, p).numpy()
    np.testing.assert_allclose(slope[:4], 1 / p.numpy()[:4], rtol=1e-5)
    np.testing.assert_allclose(slope[4:], 1e30, rtol=1e-5)


@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_samples_that_are_equal_to_rounding_have_no_distance(offset):
    """Squares of distances are differences; their rounding is no distance, and its direction no gradient."""
    rng = np.random.default_rng(0)
    teacher, student = rng.normal(size=(5, 6)).astype("float32"), rng.normal(size=(5, 4)).astype("float32") + np.float32(offset)
    student[1] = student[0]
    _, gradient = computed(CASES["relational"], teacher, student)
    assert np.abs(gradient).max() < 10


def test_a_huge_sample_of_weight_zero_is_absent():
    rng = np.random.default_rng(0)
    teacher, student = rng.normal(size=(6, 5)).astype("float32"), rng.normal(size=(6, 5)).astype("float32")
    weights = np.array([1, 1, 1, 1, 1, 0], "float32")
    for name in ("similarity", "relational", "probabilistic", "congruence", "contrastive", "dist"):
        loss = CASES[name].loss
        expected = float(loss.compute_loss(teacher, student, sample_weight=weights))
        other = student.copy()
        other[-1] *= 1e15 if name != "dist" else 1e3
        assert float(loss.compute_loss(teacher, other, sample_weight=weights)) == pytest.approx(expected, rel=1e-4), name


@pytest.mark.parametrize("scale", [1e-20, 1e-6, 1e6])
def test_the_scale_of_sample_weights_does_not_matter_within_relations(scale):
    rng = np.random.default_rng(0)
    teacher, student, weights = rng.normal(size=(6, 5)), rng.normal(size=(6, 5)), rng.uniform(0.5, 2.0, 6)
    sides = [x.astype("float32") for x in (teacher, student)]
    for name in ("probabilistic", "dist"):
        value = float(CASES[name].loss.compute_loss(*sides, sample_weight=(weights * scale).astype("float32")))
        assert value / scale == pytest.approx(CASES[name].expected(teacher, student, None, weights), rel=1e-4), name


def test_losses_are_computed_in_float32_at_least():
    assert all(keras.backend.standardize_dtype(scaling.unit_vectors(np.ones((2, 2), d)).dtype) == d for d in ("float32", "float64"))
