"""Chains: which models train which, what is trained and what is frozen, and the records."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from small import CLASSES, Subclassed, data, mlp, weights_of

from tfdistill.distill.chains.average import many_to_one
from tfdistill.distill.chains.blockwise import _trainable_alone, _variables_of_blocks, blockwise
from tfdistill.distill.chains.mutual import Peers, mutual
from tfdistill.distill.chains.record import ChainRecord
from tfdistill.distill.chains.sequential import assistants, born_again
from tfdistill.distill.chains.settings import ChainSettings
from tfdistill.distill.teachers.ensemble import Ensemble
from tfdistill.losses import Hint, SoftTargets

CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def settings(**changes):
    return ChainSettings(
        **{
            "losses": SoftTargets(2.0),
            "optimizer": lambda: keras.optimizers.Adam(0.02),
            "loss": CROSS_ENTROPY,
            "metrics": ["accuracy"],
            "epochs": 3,
            "fit": {"batch_size": 32},
            "compile": {"jit_compile": False},  # compiling with XLA would take longer than the training
            **changes,
        }
    )


def trained(*widths, name="teacher", seed=0, samples=128, epochs=8, model=None):
    x, y = data(samples)
    keras.utils.set_random_seed(seed)
    model = model or mlp(*widths, name=name)
    model.compile(keras.optimizers.Adam(0.02), loss=CROSS_ENTROPY, jit_compile=False)
    model.fit(x, y, epochs=epochs, verbose=0)
    return model


def test_assistants_hand_down_from_large_to_small(tmp_path):
    x, y = data(128)
    teacher = mlp(64, 64, name="teacher")
    models = [mlp(24, name="assistant"), mlp(8, name="student")]
    before = [weights_of(m) for m in (teacher, *models)]
    record = assistants(teacher, models, settings(), x, y, validation_data=(x, y))
    assert [(g.name, g.teachers, g.role) for g in record.generations] == [
        ("assistant", ("teacher",), "assistant"),
        ("student", ("assistant",), "student"),
    ]
    assert all(np.array_equal(a, b) for a, b in zip(before[0], weights_of(teacher), strict=True))
    for old, model, row in zip(before[1:], models, record.generations, strict=True):
        assert any(not np.array_equal(a, b) for a, b in zip(old, weights_of(model), strict=True))
        logits = model.predict(x, verbose=0)
        np.testing.assert_allclose(row.metrics["accuracy"], (logits.argmax(-1) == y).mean(), atol=1e-6)
        assert row.parameters == model.count_params()
        assert row.epochs == 3
        assert model.trainable
    assert record.evaluated_on == "validation data"
    assert ChainRecord.load(record.save(tmp_path / "chain.json")) == record


FEEDS = {
    "arrays": lambda x, y: dict(x=x, y=y),
    "tf.data": lambda x, y: dict(x=tf.data.Dataset.from_tensor_slices((x, y)).batch(32)),
    "validation set": lambda x, y: dict(x=x, y=y, validation_data=tf.data.Dataset.from_tensor_slices((x, y)).batch(32)),
    "weighted validation": lambda x, y: dict(x=x, y=y, validation_data=(x, y, np.ones(len(x), "float32"))),
}


@pytest.mark.parametrize("feed", FEEDS)
def test_every_feed_serves_a_chain(feed):
    x, y = data(64)
    fit = {"batch_size": 32} if feed != "tf.data" else {}
    record = assistants(mlp(16, name="teacher"), [mlp(8, name="student")], settings(epochs=1, fit=fit), **FEEDS[feed](x, y))
    assert np.isfinite(list(record.generations[0].metrics.values())).all()
    assert record.evaluated_on == ("validation data" if "validation" in feed else "training data")


def blocks_student(kind):
    if kind == "subclassed":
        student = Subclassed(name="student")
        student(np.zeros((1, 8), "float32"))
        return student, [("body", "hidden_0"), ("blocks/1", "hidden_1")]
    if kind == "nested":
        inputs = keras.Input((8,))
        body = keras.Sequential([keras.Input((8,)), keras.layers.Dense(12, name="a"), keras.layers.Dense(10, name="b")], name="body")
        return keras.Model(inputs, keras.layers.Dense(CLASSES)(body(inputs)), name="student"), [("body/a", "hidden_0"), ("b", "hidden_1")]
    return mlp(16, 12, name="student"), [("hidden_0", "hidden_0"), ("hidden_1", "hidden_1")]


@pytest.mark.parametrize("kind", ["functional", "nested", "subclassed"])
def test_blockwise_trains_one_block_after_another(kind):
    x, y = data(64)
    teacher = mlp(24, 20, name="teacher")
    student, blocks = blocks_student(kind)
    parts = _variables_of_blocks(student, [b[0] for b in blocks], x, settings())
    sizes = {"functional": [2, 2], "nested": [2, 2], "subclassed": [2, 4]}[kind]
    assert [len(p) for p in parts] == sizes
    flags = [w.trainable for w in student.weights]
    record = blockwise(teacher, student, blocks, settings(), x, y)
    assert [g.role for g in record.generations] == [*(f"block: {b[0]}" for b in blocks), "student"]
    assert "accuracy" in record.generations[-1].metrics
    assert [w.trainable for w in student.weights] == flags


def test_blockwise_holds_the_rest_still_and_lowers_each_hint():
    x, y = data(64)
    teacher, student = mlp(24, 20, name="teacher"), mlp(24, 20, name="student")
    head, first = (student.get_layer(n).kernel.numpy() for n in ("logits", "hidden_0"))
    wide = [("hidden_0", "hidden_0"), ("hidden_1", "hidden_1")]

    def distance(layer):
        outputs = (keras.Model(m.input, m.get_layer(layer).output).predict(x, verbose=0) for m in (teacher, student))
        return np.mean(np.subtract(*outputs) ** 2)

    before = [distance(b[0]) for b in wide]
    record = blockwise(
        teacher, student, wide, settings(epochs=30), x, y, feature_loss=lambda t, s: Hint(t, s, projection=None), finish=False
    )
    np.testing.assert_array_equal(student.get_layer("logits").kernel.numpy(), head)
    assert not np.array_equal(student.get_layer("hidden_0").kernel.numpy(), first)
    after = [distance(b[0]) for b in wide]
    assert after[0] < 0.3 * before[0]
    assert after[1] < 0.3 * before[1]
    np.testing.assert_allclose(record.generations[0].metrics["distillation_loss"], after[0], rtol=0.01)


def test_only_some_variables_are_trainable_and_statistics_stand_still():
    inputs = keras.Input((8,))
    x = keras.layers.BatchNormalization(name="norm")(keras.layers.Dense(6, name="a")(inputs))
    student = keras.Model(inputs, keras.layers.Dense(CLASSES, name="b")(x))
    student.get_layer("a").trainable = False
    flags = [layer.trainable for layer in student.layers]
    with _trainable_alone(student, student.get_layer("b").trainable_variables):
        assert [v.path for v in student.trainable_variables] == ["b/kernel", "b/bias"]
        assert not student.get_layer("norm").trainable
    assert [layer.trainable for layer in student.layers] == flags


@pytest.mark.parametrize("with_teacher", [False, True])
def test_born_again_generations(with_teacher):
    x, y = data(128)
    teacher = mlp(16, name="teacher") if with_teacher else None
    made = iter(range(9))
    result = born_again(lambda: mlp(16, name=f"generation_{next(made)}"), 2, settings(), x, y, teacher=teacher, ensemble=Ensemble)
    first = "teacher" if with_teacher else "generation_0"
    count = 2 if with_teacher else 3
    assert len(result.generations) == count
    rows = result.record.generations
    assert rows[0].teachers == ((first,) if with_teacher else ())
    assert rows[1].teachers == ("generation_0",)
    assert rows[-1].role == "ensemble"
    members = [m.predict(x, verbose=0).astype("float64") for m in result.generations]
    mean = np.mean([np.exp(z) / np.exp(z).sum(-1, keepdims=True) for z in members], axis=0)
    np.testing.assert_allclose(np.exp(result.ensemble.predict(x, verbose=0)), mean, atol=1e-6)
    np.testing.assert_allclose(rows[-1].metrics["accuracy"], (mean.argmax(-1) == y).mean(), atol=1e-6)


def test_peers_step_equals_its_formula():
    """One step of gradient descent on both, from the same outputs: no gradient crosses from one student's loss to the other."""
    x, y = data(32)
    students = [mlp(10, name="one"), mlp(7, name="two", kernel_regularizer=keras.regularizers.L2(0.01))]
    copies = [keras.models.clone_model(s) for s in students]
    for copy, student in zip(copies, students, strict=True):
        copy.set_weights(student.get_weights())
    mutual(
        students,
        settings(optimizer=lambda: keras.optimizers.SGD(0.1), epochs=1, student_loss_weight=0.3, fit={"batch_size": 32, "shuffle": False}),
        x,
        y,
    )
    outputs = [tf.stop_gradient(c(x)) for c in copies]
    for i, copy in enumerate(copies):
        with tf.GradientTape() as tape:
            z = copy(x, training=True)
            p, q = tf.nn.softmax(outputs[1 - i] / 2.0), tf.nn.log_softmax(z / 2.0)
            soft = 4.0 * tf.reduce_mean(tf.reduce_sum(p * (tf.math.log(p) - q), -1))
            hard = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, z))
            loss = 0.3 * hard + 0.7 * soft + sum(copy.losses)
        gradients = tape.gradient(loss, [w.value for w in copy.trainable_weights])
        for own, start, gradient in zip(students[i].trainable_weights, copy.trainable_weights, gradients, strict=True):
            np.testing.assert_allclose(own.numpy(), start.numpy() - 0.1 * gradient.numpy(), atol=2e-6)


@pytest.mark.slow
def test_mutual_learning_of_three_with_features_and_own_optimizers():
    x, y = data(128)
    students = [mlp(10 + i, name=f"peer_{i}") for i in range(3)]
    made = []

    def optimizer():
        made.append(keras.optimizers.Adam(0.02))
        return made[-1]

    record = mutual(
        students,
        settings(losses=[SoftTargets(2.0), Hint("hidden_0", "hidden_0")], weights=[1.0, 0.1], optimizer=optimizer, epochs=10),
        x,
        y,
        validation_data=(x, y),
    )
    assert [g.teachers for g in record.generations] == [("peer_1", "peer_2"), ("peer_0", "peer_2"), ("peer_0", "peer_1")]
    assert len(made) == 3
    for student, row in zip(students, record.generations, strict=True):
        accuracy = (student.predict(x, verbose=0).argmax(-1) == y).mean()
        np.testing.assert_allclose(row.metrics["accuracy"], accuracy, atol=1e-6)
        assert accuracy > 0.5
        assert len(student.weights) == 4, "projections stay outside"
        assert student.trainable


@pytest.mark.parametrize(
    "mode", [dict(jit_compile=True), dict(steps_per_execution=2, jit_compile=False), dict(run_eagerly=True, jit_compile=False)], ids=str
)
def test_peers_train_alike_in_every_mode(mode):
    x, y = data(64)
    results = []
    for compile in ({"jit_compile": False}, mode):
        keras.utils.set_random_seed(1)
        students = [mlp(6, name="one"), mlp(5, name="two")]
        record = mutual(students, settings(compile=compile, epochs=2, fit={"batch_size": 16, "shuffle": False}), x, y)
        results.append((*weights_of(students[0]), *weights_of(students[1])))
        assert "accuracy" in record.generations[0].metrics
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_peers_logs_and_calls():
    x, y = data(32)
    peers = Peers([mlp(6, name="one"), mlp(5, name="two")], settings())
    peers.compile(jit_compile=False)
    peers.check_first_batch((x, y, None))
    logs = peers.fit(x, y, verbose=0).history
    assert set(logs) == {"loss", "one_loss", "one_accuracy", "two_loss", "two_accuracy"}
    assert [tuple(o.shape) for o in peers(x)] == [(32, CLASSES)] * 2


def test_many_are_distilled_into_one():
    x, y = data(128)
    students = [trained(12, name=f"small_{i}", seed=i) for i in range(3)]
    before = [weights_of(s) for s in students]
    one = mlp(14, name="one")
    record = many_to_one(students, one, settings(epochs=20, student_loss_weight=0.0, loss=None), x, y)
    assert record.generations[0].teachers == ("small_0", "small_1", "small_2")
    mean = Ensemble(students).predict(x, verbose=0).argmax(-1)
    assert (one.predict(x, verbose=0).argmax(-1) == mean).mean() > 0.8
    for old, student in zip(before, students, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(old, weights_of(student), strict=True))


def normalized(name, width=6):
    inputs = keras.Input((8,))
    x = keras.layers.BatchNormalization(name="norm")(keras.layers.Dense(width, name="a")(inputs))
    return keras.Model(inputs, keras.layers.Dense(CLASSES, name="b")(x), name=name)


@pytest.mark.parametrize("feed", ["arrays", "tf.data"])
def test_averaging_takes_means_and_recomputes_statistics(feed):
    x, y = data(128)
    start = trained(model=normalized("start"), epochs=2)
    students = []
    for seed in range(2):
        student = normalized(f"part_{seed}")
        student.set_weights(start.get_weights())
        students.append(trained(model=student, seed=seed, epochs=2))
    one = normalized("one")
    momentum = one.get_layer("norm").momentum
    source = dict(x=x, y=y) if feed == "arrays" else dict(x=tf.data.Dataset.from_tensor_slices((x, y)).batch(32))
    record = many_to_one(students, one, settings(fit={"batch_size": 32} if feed == "arrays" else {}), **source, how="average")
    for layer, index in (("a", 0), ("norm", 0), ("b", 1)):
        expected = np.mean([s.get_layer(layer).get_weights()[index] for s in students], axis=0)
        np.testing.assert_allclose(one.get_layer(layer).get_weights()[index], expected, atol=1e-7)
    features = x @ one.get_layer("a").kernel.numpy() + one.get_layer("a").bias.numpy()
    parts = features.reshape(4, 32, -1)
    _, _, mean, variance = one.get_layer("norm").get_weights()
    np.testing.assert_allclose(mean, features.mean(0), atol=1e-5)
    np.testing.assert_allclose(variance, parts.var(1).mean(0), rtol=1e-4)
    assert one.get_layer("norm").momentum == momentum
    assert "1 BatchNormalization layers were computed anew on 4 batches" in record.notes[1]
    assert "accuracy" in record.generations[0].metrics


def test_metric_objects_and_callbacks_are_made_anew_for_each_training():
    x, y = data(64)
    metric, made = keras.metrics.SparseCategoricalAccuracy(name="right"), []

    def callbacks():
        made.append(keras.callbacks.EarlyStopping("loss", patience=50))
        return [made[-1]]

    record = assistants(
        mlp(16, name="teacher"),
        [mlp(8, name="a"), mlp(4, name="b")],
        settings(metrics=[metric], fit={"batch_size": 32, "callbacks": callbacks}),
        x,
        y,
    )
    assert len(made) == 2
    assert all("right" in row.metrics for row in record.generations)
    assert float(metric.result()) == 0.0
