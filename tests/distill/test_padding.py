"""Padded sequences: whatever stands at padded positions changes no loss and no gradient, and the rest counts as if there were nothing else."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops
from small import CLASSES

from tfdistill import Distiller, losses
from tfdistill.distill.chains.mutual import mutual
from tfdistill.distill.chains.settings import ChainSettings
from tfdistill.distill.objective.taps import ATTENTION_SCORES, Tap, Taps
from tfdistill.distill.teachers.ensemble import Ensemble
from tfdistill.errors import ModelError
from tfdistill.losses import Hint, SoftTargets, masking

ROWS, LENGTH, WIDTH = 6, 5, 4
# Each row has another number of positions that count; the first has all.
COUNTS = np.array([5, 3, 1, 4, 2, 3])
MASK = np.arange(LENGTH)[None] < COUNTS[:, None]
CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def numbers(seed, width=WIDTH, length=LENGTH):
    return np.random.default_rng(seed).normal(size=(ROWS, length, width)).astype("float32")


def masked(values, mask=MASK):
    return masking.with_mask(tf.convert_to_tensor(values), None if mask is None else tf.convert_to_tensor(mask))


def rows_of(x):
    """All positions that count, as samples (or sequences of one position) of their own."""
    return x[MASK][:, None]


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


LABELS = np.random.default_rng(8).integers(0, WIDTH, (ROWS, LENGTH))
TRUTH = numbers(9)

# Losses with a value at each position: their value is that of the positions that count, as samples of their own.
BY_POSITION = {
    "SoftTargets": (losses.SoftTargets(2.0), None),
    "SoftTargets, reverse_kl": (losses.SoftTargets(2.0, divergence="reverse_kl"), None),
    "SoftTargets, standardized": (losses.SoftTargets(2.0, standardize=True), None),
    "LogitMatching": (losses.LogitMatching(), None),
    "BinarySoftTargets": (losses.BinarySoftTargets(2.0), None),
    "DecoupledKD": (losses.DecoupledKD(), LABELS),
    "DecoupledKD, of the teacher": (losses.DecoupledKD(target="teacher"), None),
    "DIST": (losses.DIST(), None),
    "OutputMatching": (losses.OutputMatching("huber"), None),
    "TeacherBounded": (losses.TeacherBounded(), TRUTH),
    "Hint": (losses.Hint("a", "a"), None),
    "Hint, cosine": (losses.Hint("a", "a", loss="cosine"), None),
    "HiddenStates": (losses.HiddenStates("a", "a"), None),
}
# Losses of whole samples: padded positions are as if they were zero.
BY_SAMPLE = {
    "AttentionTransfer": losses.AttentionTransfer("a", "a"),
    "AttentionTransfer, power 1": losses.AttentionTransfer("a", "a", power=1.0),
    "SimilarityPreserving": losses.SimilarityPreserving("a", "a"),
    "RelationalKD": losses.RelationalKD(teacher_layer_name="a", student_layer_name="a"),
    "ProbabilisticTransfer": losses.ProbabilisticTransfer("a", "a"),
    "CorrelationCongruence": losses.CorrelationCongruence(teacher_layer_name="a", student_layer_name="a"),
    "ContrastiveRepresentation": losses.ContrastiveRepresentation("a", "a", dimensions=None),
}
OTHERS = {"AttentionMaps"}


def test_every_loss_is_in_a_table():
    known = {type(loss).__name__ for loss, _ in BY_POSITION.values()} | {type(loss).__name__ for loss in BY_SAMPLE.values()} | OTHERS
    public = {n for n in losses.__all__ if isinstance(getattr(losses, n), type) and issubclass(getattr(losses, n), losses.KnowledgeLoss)}
    assert public - {"KnowledgeLoss"} == known


@pytest.mark.parametrize("sides", ["both", "teacher", "student", "each its own"])
@pytest.mark.parametrize("name", BY_POSITION)
def test_positions_that_count_are_all_there_is(name, sides):
    loss, labels = BY_POSITION[name]
    teacher, student = numbers(1), numbers(2)
    one, other = np.ones_like(MASK), np.ones_like(MASK)
    one[1:3], other[3:] = MASK[1:3], MASK[3:]
    masks = {"both": (MASK, MASK), "teacher": (MASK, None), "student": (None, MASK), "each its own": (one, other)}[sides]
    extra = {} if labels is None else {"labels": labels}
    found = loss.compute_loss(masked(teacher, masks[0]), masked(student, masks[1]), **extra)
    expected = loss.compute_loss(rows_of(teacher), rows_of(student), **({} if labels is None else {"labels": rows_of(labels)}))
    np.testing.assert_allclose(float(found), float(expected), rtol=2e-5)


@pytest.mark.parametrize("name", BY_POSITION)
def test_weights_of_samples_and_positions_go_with_the_mask(name, rng):
    loss, labels = BY_POSITION[name]
    teacher, student = numbers(1), numbers(2)
    weight = rng.uniform(0.2, 2, (ROWS, LENGTH)).astype("float32")
    for given, each in (
        (weight, weight),
        (weight[:, 0], np.repeat(weight[:, :1], LENGTH, 1)),
        (weight[:, :1], np.repeat(weight[:, :1], LENGTH, 1)),
    ):
        extra = {} if labels is None else {"labels": labels}
        found = loss.compute_loss(masked(teacher), masked(student), sample_weight=given, **extra)
        extra = {} if labels is None else {"labels": rows_of(labels)}
        expected = loss.compute_loss(rows_of(teacher), rows_of(student), sample_weight=each[MASK], **extra)
        np.testing.assert_allclose(float(found), float(expected), rtol=2e-5)


@pytest.mark.parametrize("name", BY_SAMPLE)
def test_padded_positions_of_a_sample_are_as_if_absent(name):
    loss = BY_SAMPLE[name]
    teacher, student = numbers(1), numbers(2)
    found = loss.compute_loss(masked(teacher), masked(student))
    zeroed = [np.where(MASK[..., None], x, 0) for x in (teacher, student)]
    np.testing.assert_allclose(float(found), float(loss.compute_loss(*zeroed)), rtol=2e-5)
    # Longer padding is no other sequence.
    longer = [np.concatenate([x, np.full((ROWS, 2, WIDTH), 7, "float32")], 1) for x in (teacher, student)]
    mask = np.concatenate([MASK, np.zeros((ROWS, 2), bool)], 1)
    np.testing.assert_allclose(float(loss.compute_loss(*(masked(x, mask) for x in longer))), float(found), rtol=2e-5)


def _value_and_gradient(loss, teacher, student, mask, labels):
    variable = tf.Variable(student)
    with tf.GradientTape() as tape:
        extra = {} if labels is None else {"labels": labels}
        value = loss.compute_loss(masked(teacher, mask), masked(variable * 1.0, mask), **extra)
    return float(value), tape.gradient(value, variable).numpy()


ALL = {**BY_POSITION, **{name: (loss, None) for name, loss in BY_SAMPLE.items()}}


@pytest.mark.parametrize("name", ALL)
def test_no_gradient_and_no_value_comes_from_what_is_padded(name):
    loss, labels = ALL[name]
    teacher, student = numbers(1), numbers(2)
    value, gradient = _value_and_gradient(loss, teacher, student, MASK, labels)
    assert np.abs(gradient[~MASK]).max() == 0
    assert np.abs(gradient[MASK]).max() > 0
    changed = [np.where(MASK[..., None], x, scale).astype("float32") for x, scale in ((teacher, 1e4), (student, -1e4))]
    again, gradient_again = _value_and_gradient(loss, *changed, MASK, labels)
    np.testing.assert_allclose(again, value, rtol=1e-5)
    np.testing.assert_allclose(gradient_again, gradient, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", ALL)
def test_a_mask_of_nothing_but_true_changes_nothing(name):
    loss, labels = ALL[name]
    teacher, student = numbers(1), numbers(2)
    whole, plain = (_value_and_gradient(loss, teacher, student, mask, labels) for mask in (np.ones_like(MASK), None))
    np.testing.assert_allclose(whole[0], plain[0], rtol=1e-5)
    np.testing.assert_allclose(whole[1], plain[1], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", ALL)
def test_a_sample_of_padding_alone_gives_finite_numbers(name):
    loss, labels = ALL[name]
    mask = MASK.copy()
    mask[2] = False
    for each in (mask, np.zeros_like(mask)):
        value, gradient = _value_and_gradient(loss, numbers(1), numbers(2), each, labels)
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()
        assert np.abs(gradient[2]).max() == 0
    assert value == 0 or name in BY_SAMPLE


def test_hints_of_other_lengths_average_what_counts():
    teacher, student = numbers(1, length=6), numbers(2, length=3)
    mask = np.arange(6)[None] < np.array([6, 3, 1, 4, 2, 5])[:, None]
    found = Hint("a", "a", projection=None).compute_loss(masked(teacher, mask), student)
    pairs = teacher.reshape(ROWS, 3, 2, WIDTH), mask.reshape(ROWS, 3, 2, 1)
    count = pairs[1].sum(2)
    mean = (pairs[0] * pairs[1]).sum(2) / np.maximum(count, 1)
    expected = ((mean - student) ** 2).mean(-1)[count[..., 0] > 0].mean()
    np.testing.assert_allclose(float(found), expected, rtol=1e-5)


REFUSED = {
    "a mask of other positions": (SoftTargets(2.0), numbers(1), MASK[:, :3], r"\(6, 5, 4\), and its padding mask \(6, 3\)"),
    "no axis behind the positions": (losses.OutputMatching(), numbers(1)[..., 0], MASK, r"\(batch, positions, 1\)"),
    "maps of other lengths": (losses.AttentionTransfer("a", "a"), numbers(1, length=10), None, "padding"),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_what_a_mask_cannot_belong_to_is_refused(case):
    loss, values, mask, words = case
    other = masked(numbers(2) if mask is None else values, MASK if mask is None else mask)
    with pytest.raises(ModelError, match=words):
        loss.compute_loss(masked(values, mask), other)


def test_the_remedy_of_a_missing_axis():
    values = [masked(numbers(seed)[..., :1]) for seed in (1, 2)]
    expected = ((numbers(1)[..., 0] - numbers(2)[..., 0])[MASK] ** 2).mean()
    np.testing.assert_allclose(float(losses.OutputMatching().compute_loss(*values)), expected, rtol=1e-5)


# Whole models


def tokens():
    rng = np.random.default_rng(4)
    return np.where(MASK, rng.integers(1, 9, MASK.shape), 0).astype("int32")


def recurrent(width, name):
    inputs = keras.Input((None,), dtype="int32")
    x = keras.layers.Embedding(9, width, mask_zero=True, name="embedding")(inputs)
    x = keras.layers.GRU(width, return_sequences=True, name="hidden")(x)
    return keras.Model(inputs, keras.layers.Dense(CLASSES, name="logits")(x), name=name)


def attentive(width, name):
    inputs = keras.Input((LENGTH,), dtype="int32")
    x = keras.layers.Embedding(9, width, mask_zero=True, name="embedding")(inputs)
    x = keras.layers.MultiHeadAttention(2, width, name="attention")(x, x)
    return keras.Model(inputs, keras.layers.Dense(CLASSES, name="logits")(x), name=name)


def distil(teacher, student, *terms, **kwargs):
    made = Distiller(teacher, student, list(terms), student_loss_weight=0.25, **kwargs)
    made.compile(keras.optimizers.SGD(0.1), loss=CROSS_ENTROPY, jit_compile=False)
    return made


def kl(teacher, student, temperature):
    p, q = softmax(teacher.astype("float64") / temperature), softmax(student.astype("float64") / temperature)
    return temperature**2 * (p * np.log(p / q)).sum(-1)


@pytest.mark.parametrize("feed", ["arrays", "tf.data"])
def test_a_distillers_loss_is_the_mean_over_what_counts(feed):
    x, y = tokens(), np.random.default_rng(5).integers(0, CLASSES, MASK.shape)
    teacher, student = recurrent(8, "teacher"), recurrent(5, "student")
    teacher_outputs, student_outputs = teacher.predict(x, verbose=0), student.predict(x, verbose=0)
    model = distil(teacher, student, SoftTargets(2.0))
    data = dict(x=x, y=y, batch_size=ROWS) if feed == "arrays" else dict(x=tf.data.Dataset.from_tensor_slices((x, y)).batch(ROWS))
    logs = model.evaluate(**data, verbose=0, return_dict=True)
    np.testing.assert_allclose(logs["distillation_loss"], kl(teacher_outputs, student_outputs, 2.0)[MASK].mean(), rtol=1e-3)
    labelled = -np.log(softmax(student_outputs.astype("float64")))[np.arange(ROWS)[:, None], np.arange(LENGTH)[None], y][MASK].mean()
    np.testing.assert_allclose(logs["student_loss"], labelled, rtol=1e-4)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", ["recurrent", "attentive"])
def test_more_padding_is_no_other_training(name, weighted):
    x, y = tokens(), np.random.default_rng(5).integers(0, CLASSES, MASK.shape)
    ends = []
    for longer in (0, 3) if name == "recurrent" else (0,):
        keras.utils.set_random_seed(3)
        build = recurrent if name == "recurrent" else attentive
        feature = "hidden" if name == "recurrent" else "attention"
        terms = [SoftTargets(2.0), Hint(feature, feature, projection="dense")]
        terms += [] if weighted else [losses.SimilarityPreserving(feature, feature)]
        terms += [losses.AttentionMaps("attention", "attention")] if name == "attentive" else []
        model = distil(build(8, "teacher"), build(5, "student"), *terms)
        padded = [np.pad(a, ((0, 0), (0, longer))) for a in (x, y)]
        weight = np.pad(np.random.default_rng(1).uniform(0, 2, MASK.shape).astype("float32"), ((0, 0), (0, longer))) if weighted else None
        logs = model.fit(*padded, sample_weight=weight, batch_size=3, epochs=2, shuffle=False, verbose=0).history
        assert np.isfinite(logs["loss"]).all()
        ends.append([np.asarray(w) for w in model.student.weights])
    for a, b in zip(ends[0], ends[-1], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_scores_of_attention_are_compared_at_the_queries_that_count():
    teacher, student = attentive(8, "teacher"), attentive(5, "student")
    model = distil(teacher, student, losses.AttentionMaps("attention", "attention"))
    logs = model.evaluate(tokens(), np.zeros(MASK.shape, "int32"), batch_size=ROWS, verbose=0, return_dict=True)
    tap = Tap("attention", ATTENTION_SCORES)
    scores = [Taps(m, [tap])(tokens())[1][tap].numpy().astype("float64") for m in (teacher, student)]
    expected = ((scores[0] - scores[1]) ** 2).mean((1, 3))[MASK].mean()
    np.testing.assert_allclose(logs["distillation_loss"], expected, rtol=1e-3)


def test_an_ensembles_answer_is_masked_where_a_members_is():
    members = [recurrent(8, "one"), recurrent(6, "two")]
    answer = Ensemble(members)(tokens())
    np.testing.assert_array_equal(masking.mask_of(answer), MASK)
    inputs = keras.Input((None,), dtype="int32")
    x = keras.layers.Embedding(9, 5)(inputs)  # knows no padding
    student = keras.Model(inputs, keras.layers.Dense(CLASSES)(x), name="student")
    model = distil(Ensemble(members), student, SoftTargets(2.0))
    logs = model.evaluate(tokens(), np.zeros(MASK.shape, "int32"), batch_size=ROWS, verbose=0, return_dict=True)
    expected = kl(np.asarray(answer), student.predict(tokens(), verbose=0), 2.0)[MASK].mean()
    np.testing.assert_allclose(logs["distillation_loss"], expected, rtol=1e-3)


def test_peers_leave_padding_out_too():
    x, y = tokens(), np.zeros(MASK.shape, "int32")
    peers = [recurrent(4, "a"), recurrent(5, "b")]
    student_outputs = [p.predict(x, verbose=0) for p in peers]
    settings = ChainSettings(
        losses=SoftTargets(2.0),
        student_loss_weight=0.0,
        loss=CROSS_ENTROPY,
        optimizer=lambda: keras.optimizers.SGD(0.0),
        fit=dict(batch_size=ROWS),
    )
    metrics = mutual(peers, settings, x, y).generations[0].metrics
    np.testing.assert_allclose(metrics["loss"], kl(student_outputs[1], student_outputs[0], 2.0)[MASK].mean(), rtol=1e-3)


def test_keras_own_distiller_leaves_padding_out_with_our_losses():
    teacher, student = recurrent(8, "teacher"), recurrent(5, "student")
    teacher_outputs, student_outputs = teacher(tokens()), student(tokens())
    found = SoftTargets(2.0).compute_loss(teacher_outputs, student_outputs)
    np.testing.assert_allclose(
        float(found), kl(ops.convert_to_numpy(teacher_outputs), ops.convert_to_numpy(student_outputs), 2.0)[MASK].mean(), rtol=1e-3
    )


def test_a_keras_loss_that_cannot_leave_padding_out_is_said_once():
    loss = keras.distillation.LogitsDistillation(3.0, loss=keras.losses.KLDivergence())
    model = distil(recurrent(8, "teacher"), recurrent(5, "student"), loss)
    with pytest.warns(UserWarning, match="LogitsDistillation gives one figure.*padding mask") as caught:
        model.evaluate(tokens(), np.zeros(MASK.shape, "int32"), batch_size=3, verbose=0)
    assert len([warning for warning in caught if "padding mask" in str(warning.message)]) == 1
