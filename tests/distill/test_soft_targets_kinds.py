"""Other kinds of caches: largest logits only, augmented views, remote teachers."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.special import log_softmax, logsumexp
from small import data, mlp, weights_of

from tfdistill.distill import Distiller, RemoteTeacher, RetryPolicy
from tfdistill.distill.cache.build import soft_targets
from tfdistill.distill.cache.options import CacheOptions
from tfdistill.distill.cache.reader import SoftTargetCache
from tfdistill.errors import BudgetExceededError, ConfigurationError, DataError, ModelError
from tfdistill.losses import DIST, LinearSchedule, LogitMatching, SoftTargets
from tfdistill.losses.top_k import TopK

CLASSES, K = 9, 3
TEMPERATURES = (1.0, 2.5)


def largest_logits(logits):
    """The k largest of NumPy logits, and the log-sums of the rest."""
    order = np.argsort(-logits, axis=-1, kind="stable")
    ordered = np.take_along_axis(logits, order, -1)
    rest = np.stack([logsumexp(ordered[..., K:] / t, axis=-1) for t in TEMPERATURES], axis=-1)
    return TopK(ordered[..., :K], order[..., :K], rest, TEMPERATURES)


def reference(teacher, student, temperature, divergence):
    """T^2 times the divergence of softened distributions whose classes outside the teacher's k largest are added up; mean over all rows."""
    order = np.argsort(-teacher, axis=-1, kind="stable")
    p, q = (np.exp(log_softmax(side / temperature, axis=-1)) for side in (teacher, student))
    p, q = (np.take_along_axis(side, order, -1) for side in (p, q))
    p, q = (np.concatenate([side[..., :K], side[..., K:].sum(-1, keepdims=True)], -1) for side in (p, q))
    m = (p + q) / 2
    values = {
        "kl": (p * np.log(p / q)).sum(-1),
        "reverse_kl": (q * np.log(q / p)).sum(-1),
        "js": ((p * np.log(p / m)).sum(-1) + (q * np.log(q / m)).sum(-1)) / 2,
        "cross_entropy": -(p * np.log(q)).sum(-1),
    }
    return (values[divergence] * temperature**2).mean()


@pytest.mark.parametrize("shape", [(6, CLASSES), (4, 3, CLASSES)])
@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("divergence", ["kl", "reverse_kl", "js", "cross_entropy"])
def test_the_largest_logits_teach_exactly(rng, divergence, temperature, shape):
    teacher, student = (3 * rng.normal(size=shape) for _ in range(2))
    loss = SoftTargets(temperature, divergence)
    value = loss.compute_loss(_tensors(largest_logits(teacher)), tf.constant(student, tf.float32))
    np.testing.assert_allclose(value, reference(teacher, student, temperature, divergence), rtol=2e-5)
    with tf.GradientTape() as tape:
        variable = tf.Variable(student, dtype=tf.float32)
        value = loss.compute_loss(_tensors(largest_logits(teacher)), variable)
    gradient = tape.gradient(value, variable).numpy()
    direction = rng.normal(size=shape)
    ahead, behind = (reference(teacher, student + s * 1e-5 * direction, temperature, divergence) for s in (1, -1))
    np.testing.assert_allclose((gradient * direction).sum(), (ahead - behind) / 2e-5, rtol=1e-3, atol=1e-5)


def _tensors(top):
    return TopK(
        tf.constant(top.values, tf.float32), tf.constant(top.indices, tf.int32), tf.constant(top.rest, tf.float32), top.temperatures
    )


def test_all_but_one_kept_is_the_whole_divergence(rng):
    """With a single class outside, nothing is added up."""
    teacher, student = (rng.normal(size=(5, K + 1)) for _ in range(2))
    whole = SoftTargets(2.5).compute_loss(tf.constant(teacher, tf.float32), tf.constant(student, tf.float32))
    part = SoftTargets(2.5).compute_loss(_tensors(largest_logits(teacher)), tf.constant(student, tf.float32))
    np.testing.assert_allclose(part, whole, rtol=1e-5)


def nets():
    return mlp(16, classes=CLASSES, name="teacher"), mlp(8, classes=CLASSES, name="student")


def train(teacher, dataset, loss, student):
    distiller = Distiller(teacher, student, loss)
    distiller.compile("adam", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    distiller.fit(dataset, verbose=0, shuffle=False)


@pytest.fixture
def largest(tmp_path):
    x, y = data(70)
    teacher, student = nets()
    cache = soft_targets(teacher, x, tmp_path / "k", options=CacheOptions(dtype="float32", top_k=K, temperatures=TEMPERATURES))
    return teacher, student, x, y, cache


def test_the_largest_logits_are_kept(largest):
    teacher, student, x, y, cache = largest
    expected = largest_logits(teacher.predict(x, verbose=0).astype("float64"))
    batch = next(cache.join(x, batch_size=70, shuffle=False).as_numpy_iterator())[0]
    outputs = cache(tf.nest.map_structure(tf.constant, batch))
    np.testing.assert_allclose(outputs.values, expected.values, atol=1e-5)
    np.testing.assert_array_equal(outputs.indices, expected.indices)
    np.testing.assert_allclose(outputs.rest, expected.rest, atol=1e-5)
    train(cache, cache.join((x, y)), SoftTargets(2.5), student)


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (SoftTargets(4.0), r"kept for \[1.0, 2.5\] only"),
        (SoftTargets(LinearSchedule(1.0, 2.5, 10)), "kept for"),
        (SoftTargets(1.0, standardize=True), "standardize=False"),
        (SoftTargets(1.0, teacher_outputs="probabilities"), "teacher_outputs='logits'"),
        (DIST(), "whole outputs"),
        (LogitMatching(), "whole outputs"),
    ],
)
def test_losses_that_need_all_logits_are_refused(largest, loss, words):
    _, student, x, y, cache = largest
    with pytest.raises(ConfigurationError, match=words):
        train(cache, cache.join((x, y)), loss, student)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (dict(top_k=CLASSES), "more classes"),
        (dict(top_k=0), "at least 1"),
        (dict(top_k=2, temperatures=()), "temperatures"),
        (dict(top_k=2, temperatures=(0.0,)), "temperatures"),
    ],
)
def test_impossible_numbers_of_logits_are_refused(tmp_path, settings, words):
    with pytest.raises(ConfigurationError, match=words):
        soft_targets(nets()[0], data(20)[0], tmp_path, options=CacheOptions(**settings))


def test_probabilities_have_no_log_sum(tmp_path):
    teacher = nets()[0]
    soft = keras.Model(teacher.input, keras.layers.Softmax()(teacher.output))
    with pytest.raises(ConfigurationError, match="look like probabilities"):
        soft_targets(soft, data(20)[0], tmp_path, options=CacheOptions(top_k=2))


def noisy(x, seed):
    return x + tf.random.stateless_normal(tf.shape(x), seed)


def louder(x, seed):
    return x + 2 * tf.random.stateless_normal(tf.shape(x), seed)


@pytest.mark.parametrize("kind", ["arrays", "stream", "PyDataset"])
def test_training_draws_the_views_that_the_teacher_saw(tmp_path, kind):
    from test_soft_targets import Batches

    x, y = data(50)
    teacher = nets()[0]
    dataset = {"arrays": (x, y), "stream": tf.data.Dataset.from_tensor_slices((x, y)).batch(8), "PyDataset": Batches(x, y, 8)}[kind]
    cache = soft_targets(
        teacher, dataset, tmp_path, options=CacheOptions(dtype="float32", views=3, augment=noisy, batch_size=16, shard_elements=32)
    )
    joined = cache.join(dataset)
    batches = [joined[i] for i in range(7)] if kind == "PyDataset" else list(joined.as_numpy_iterator())
    inputs, outputs = (np.concatenate([get(b[0]) for b in batches]) for get in (lambda j: j.inputs, lambda j: j.teacher_outputs[0]))
    np.testing.assert_allclose(outputs, teacher.predict(inputs, verbose=0), atol=1e-5)
    views = {noisy(x[i], [i, v]).numpy().tobytes(): (i, v) for i in range(50) for v in range(3)}
    drawn = [views[row.tobytes()] for row in inputs]
    assert sorted(i for i, _ in drawn) == list(range(50))
    assert {v for _, v in drawn} == {0, 1, 2}


def test_views_need_their_own_augmentation(tmp_path):
    x, _ = data(20)
    teacher = nets()[0]
    soft_targets(teacher, x, tmp_path / "c", options=CacheOptions(augment=noisy))
    with pytest.raises(ConfigurationError, match="augment=the_function"):
        SoftTargetCache(tmp_path / "c").join(x)
    with pytest.raises(DataError, match="not the one"):
        SoftTargetCache(tmp_path / "c", augment=louder).join(x)
    with pytest.raises(DataError, match="another augmentation"):
        soft_targets(teacher, x, tmp_path / "c", options=CacheOptions(augment=louder))
    with pytest.raises(DataError, match="stateless"):
        soft_targets(teacher, x, tmp_path / "d", options=CacheOptions(augment=lambda a, seed: a + tf.random.normal(tf.shape(a))))


class Wire:
    """A function that fails as often as given, a clock that only sleeping moves, and a diary of both."""

    def __init__(self, failures=(), function=None):
        self.failures, self.now, self.calls, self.slept = list(failures), 0.0, [], []
        self.function = function or (lambda x: x[:, :4] * 2)

    def __call__(self, x):
        self.calls.append(self.now)
        if self.failures and self.failures.pop(0):
            raise ConnectionError("gone")
        return self.function(x)

    def teacher(self, identity="wire-1", **policy):
        return RemoteTeacher(self, identity, RetryPolicy(**policy), clock=lambda: self.now, sleep=self.sleep)

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds


def test_a_remote_teacher_is_called_again_after_errors(tmp_path):
    x, _ = data(20)
    wire = Wire(failures=[True, True, True, False])
    cache = soft_targets(wire.teacher(longest_wait_seconds=3.0), x, tmp_path, options=CacheOptions(dtype="float32", batch_size=10))
    assert wire.slept == [1.0, 2.0, 3.0]
    assert len(wire.calls) == 5
    batch = next(cache.join(x, batch_size=20, shuffle=False).as_numpy_iterator())[0]
    np.testing.assert_array_equal(batch.teacher_outputs[0], x[:, :4] * 2)


def test_the_rate_limit_of_a_remote_teacher_is_kept(tmp_path):
    wire = Wire()
    soft_targets(wire.teacher(calls_per_second=4.0), data(50)[0], tmp_path, options=CacheOptions(batch_size=10))
    np.testing.assert_allclose(np.diff(wire.calls), 0.25)


def test_a_used_up_budget_loses_no_outputs(tmp_path):
    x, _ = data(100)
    wire = Wire()
    with pytest.raises(BudgetExceededError, match="whole budget"):
        soft_targets(wire.teacher(budget=4), x, tmp_path, options=CacheOptions(batch_size=10))
    for left in (4, 2):
        try:
            soft_targets(wire.teacher(budget=4), x, tmp_path)
        except BudgetExceededError:
            assert left == 4
    assert len(wire.calls) == 10  # one for each batch, none twice
    with pytest.raises(DataError, match="another teacher"):
        soft_targets(wire.teacher(identity="wire-2"), x, tmp_path)
    assert len(wire.calls) == 10


BAD_OUTPUTS = {
    "too few rows": (lambda x: x[1:], DataError, "a batch of 20 with the shape"),
    "words": (lambda x: ["yes"] * len(x), DataError, "numbers"),
    "NaN": (lambda x: x * np.nan, DataError, "nan at"),
}


@pytest.mark.parametrize("case", BAD_OUTPUTS)
def test_a_bad_answer_is_said(tmp_path, case):
    function, kind, words = BAD_OUTPUTS[case]
    with pytest.raises(kind, match=words):
        soft_targets(Wire(function=function).teacher(), data(20)[0], tmp_path)


def test_a_black_box_that_keeps_failing_is_given_up(tmp_path):
    wire = Wire(failures=[True] * 9)
    with pytest.raises(DataError, match="3 times in a row") as error:
        soft_targets(wire.teacher(retries=2), data(20)[0], tmp_path)
    assert isinstance(error.value.__cause__, ConnectionError)


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: RetryPolicy(retries=-1), ConfigurationError),
        (lambda: RetryPolicy(budget=0), ConfigurationError),
        (lambda: RetryPolicy(calls_per_second=0), ConfigurationError),
        (lambda: RetryPolicy(wait_seconds=-1), ConfigurationError),
        (lambda: RetryPolicy(retry_on=("Error",)), ConfigurationError),
        (lambda: RemoteTeacher(3, "x"), ConfigurationError),
        (lambda: RemoteTeacher(np.tanh, " "), ConfigurationError),
    ],
)
def test_impossible_policies_are_refused(make, kind):
    with pytest.raises(kind):
        make()


def test_layers_of_a_black_box_are_refused(tmp_path):
    with pytest.raises(ModelError, match="black box"):
        soft_targets(Wire().teacher(), data(20)[0], tmp_path, options=CacheOptions(layers=["hidden_0"]))


def test_a_black_box_teaches(tmp_path):
    x, y = data(40)
    teacher, student = nets()
    remote = RemoteTeacher(lambda a: teacher.predict(a, verbose=0), "net-1")
    cache = soft_targets(remote, x, tmp_path, options=CacheOptions(top_k=K))
    before = weights_of(student)
    train(cache, cache.join((x, y)), SoftTargets(4.0), student)
    assert any((a != b).any() for a, b in zip(before, weights_of(student), strict=True))
