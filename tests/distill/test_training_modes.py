"""Every way in which Keras can train a model, with a Distiller: the same weights where they must be, and a student that can be kept and trained on."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from small import CLASSES, Subclassed, data, mlp, weights_of

from tfdistill import Distiller
from tfdistill.losses import BinarySoftTargets, Hint, OutputMatching, SoftTargets, TeacherBounded
from tfdistill.utils.optional import require

CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


class Batches(keras.utils.PyDataset):
    def __init__(self, x, y):
        super().__init__()
        self.x, self.y = x, y

    def __len__(self):
        return len(self.y) // 16

    def __getitem__(self, index):
        rows = slice(16 * index, 16 * index + 16)
        return keras.tree.map_structure(lambda a: a[rows], self.x), self.y[rows]


def two_inputs(width, name):
    """The plain net on an input that comes in two parts of a dict."""
    inputs = {"left": keras.Input((4,), name="left"), "right": keras.Input((4,), name="right")}
    x = keras.layers.Concatenate()([inputs["left"], inputs["right"]])
    x = keras.layers.Dense(width, activation="relu", name="hidden_0")(x)
    return keras.Model(inputs, keras.layers.Dense(CLASSES, name="logits")(x), name=name)


def in_precision(policy, student, build):
    """The same student, with the same weights, under a dtype policy."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        other = build(12, name="student")
    finally:
        keras.config.set_dtype_policy(before)
    for own, weight in zip(other.weights, student.weights, strict=True):
        own.assign(keras.ops.cast(weight, own.dtype))
    return other


def train(compile=None, optimizer=None, feed=None, build=mlp, policy=None, epochs=2, **fit):
    """Trains for a few steps and returns the Distiller, its history and the student's weights."""
    keras.utils.set_random_seed(11)
    x, y = data(64)
    teacher, student = build(24, name="teacher"), build(12, name="student")
    if policy:
        student = in_precision(policy, student, build)
    distiller = Distiller(teacher, student, [SoftTargets(2.0), Hint("hidden_0", "hidden_0")], [1.0, 0.1], student_loss_weight=0.4)
    optimizer = optimizer() if optimizer else keras.optimizers.SGD(0.1)
    distiller.compile(optimizer, loss=CROSS_ENTROPY, metrics=["accuracy"], **{"jit_compile": False, **(compile or {})})
    if build is two_inputs:
        x = {"left": x[:, :4], "right": x[:, 4:]}
    source = feed(x, y) if feed else dict(x=x, y=y, batch_size=16)
    history = distiller.fit(**source, epochs=epochs, shuffle=False, verbose=0, **fit).history
    return distiller, history, weights_of(student)


def float_weights(student):
    return [np.asarray(w, "float32") for w in student]


# Mode: (how it is trained, how that is done plainly, largest difference of weights; None where they are to differ).
MODES = {
    "jit_compile": (dict(compile=dict(jit_compile=True)), {}, 1e-5),
    "steps_per_execution": (dict(compile=dict(steps_per_execution=4)), {}, 1e-6),
    "steps_per_execution, a rest": (dict(compile=dict(steps_per_execution=3)), {}, 1e-6),
    "run_eagerly": (dict(compile=dict(run_eagerly=True)), {}, 1e-5),
    "tf.data": (dict(feed=lambda x, y: dict(x=tf.data.Dataset.from_tensor_slices((x, y)).batch(16))), {}, 1e-6),
    "PyDataset": (dict(feed=lambda x, y: dict(x=Batches(x, y))), {}, 1e-6),
    "dict inputs": (dict(build=two_inputs), dict(build=two_inputs, feed=lambda x, y: dict(x=Batches(x, y))), 1e-6),
    "dict inputs equal one input": (dict(build=two_inputs), {}, 1e-6),
    "class_weight of ones": (dict(class_weight=dict.fromkeys(range(CLASSES), 1.0)), {}, 1e-6),
    "class_weight": (dict(class_weight={i: 0.2 + i for i in range(CLASSES)}), {}, None),
    # The mean of the gradients of four batches of 16 is the gradient of one of 64.
    "gradient accumulation": (
        dict(optimizer=lambda: keras.optimizers.SGD(0.1, gradient_accumulation_steps=4)),
        dict(feed=lambda x, y: dict(x=x, y=y, batch_size=64)),
        1e-5,
    ),
    "loss scaling": (dict(optimizer=lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1), initial_scale=64.0)), {}, 1e-5),
    "moving averages": (dict(optimizer=lambda: keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5)), {}, None),
    "mixed_bfloat16": (dict(policy="mixed_bfloat16"), {}, None),
    "bfloat16": (dict(policy="bfloat16"), {}, None),
}


@pytest.mark.parametrize("mode", MODES)
def test_mode(mode):
    how, plain, tolerance = MODES[mode]
    _, history, weights = train(**how)
    _, expected_history, expected = train(**plain)
    assert all(np.isfinite(values).all() for values in history.values())
    assert list(history) == list(expected_history)
    pairs = list(zip(float_weights(weights), float_weights(expected), strict=True))
    assert all(np.isfinite(a).all() for a, _ in pairs)
    difference = max(np.abs(a - b).max() for a, b in pairs)
    if tolerance is None:
        assert difference > 1e-4, "the mode made no difference"
        # The same training in the main: the way that the weights went, not another.
        assert difference < 0.3
    else:
        assert difference <= tolerance
    if tolerance is not None and "accumulation" not in mode:
        for key in history:
            np.testing.assert_allclose(history[key], expected_history[key], rtol=1e-4, err_msg=key)


def test_a_mode_that_trains_otherwise_is_seen():
    (_, _, weights), (_, _, others) = train(), train(optimizer=lambda: keras.optimizers.SGD(0.11))
    assert max(np.abs(a - b).max() for a, b in zip(weights, others, strict=True)) > 1e-4


def test_moving_averages_are_what_the_student_ends_with():
    class Watch(keras.callbacks.Callback):
        seen = ()

        def on_train_batch_end(self, batch, logs=None):
            self.seen = [*self.seen, self.model.student.get_layer("hidden_0").kernel.numpy()]

    watch = Watch()
    distiller, _, _ = train(optimizer=lambda: keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5), epochs=1, callbacks=[watch])
    average = watch.seen[0]
    for kernel in watch.seen[1:]:
        average = 0.5 * average + 0.5 * kernel
    found = distiller.student.get_layer("hidden_0").kernel.numpy()
    assert np.abs(found - watch.seen[-1]).max() > 1e-5
    np.testing.assert_allclose(found, average, atol=1e-6)


def test_a_bfloat16_student_computes_in_bfloat16_and_its_loss_in_float32():
    distiller, history, _ = train(policy="mixed_bfloat16")
    x, _ = data(8)
    assert distiller.student(x).dtype == tf.bfloat16
    assert distiller.teacher(x).dtype == tf.float32
    _, plain, _ = train()
    np.testing.assert_allclose(history["distillation_loss"], plain["distillation_loss"], rtol=0.05)


# Whole cases: each is trained, saved, loaded, and trained on.


def diabetes():
    """Scikit-learn's diabetes, 442 patients with ten features; targets with mean 0 and variance 1."""
    found = require("sklearn.datasets", "load the diabetes data").load_diabetes()
    y = found.target.astype("float32")[:, None]
    return (found.data / found.data.std(0)).astype("float32"), (y - y.mean()) / y.std()


def multi_label():
    """Four yes-no questions on eight features, which do not exclude one another."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(400, 8)).astype("float32")
    return x, (x @ rng.normal(size=(8, 4)) > 0.3).astype("float32")


def classes():
    return data(400)


def nested(features, outputs, name):
    inputs = keras.Input((features,))
    inner = keras.Input((features,))
    x = keras.layers.Dense(12, activation="relu", name="inside")(inner)
    body = keras.Model(inner, keras.Sequential([keras.layers.Dense(12, activation="relu")], name="deep")(x), name="body")
    return keras.Model(inputs, keras.layers.Dense(outputs, name="logits")(body(inputs)), name=name)


@keras.saving.register_keras_serializable(package="tests")
class OwnStudent(Subclassed):
    """A subclassed student under a name by which it can be loaded."""


def dense(features, outputs, name):
    return mlp(12, features=features, classes=outputs, name=name)


def subclassed(features, outputs, name):
    return OwnStudent(classes=outputs, name=name)


BINARY = keras.losses.BinaryCrossentropy(from_logits=True)
CASES = {
    "regression": (diabetes, dense, OutputMatching("mse"), "mse"),
    "regression, bounded": (diabetes, dense, TeacherBounded(margin=0.01), "mse"),
    "regression, subclassed": (diabetes, subclassed, OutputMatching("huber"), "mse"),
    "multi-label": (multi_label, dense, BinarySoftTargets(2.0), BINARY),
    "multi-label, nested": (multi_label, nested, BinarySoftTargets(2.0), BINARY),
    "classes, subclassed": (classes, subclassed, [SoftTargets(2.0), Hint("hidden_0", "blocks/0")], CROSS_ENTROPY),
    "classes, nested": (classes, nested, [SoftTargets(2.0), Hint("hidden_0", "body/deep")], CROSS_ENTROPY),
}


# One of each kind of student and of each loss is quick; the rest of the table takes its time.
QUICK = ("regression", "multi-label", "classes, subclassed", "classes, nested")


@pytest.mark.parametrize("case", [case if case in QUICK else pytest.param(case, marks=pytest.mark.slow) for case in CASES])
def test_trained_saved_loaded_and_trained_on(case, tmp_path):
    load, build, losses, loss = CASES[case]
    x, y = load()
    features, outputs = x.shape[1], CLASSES if y.ndim == 1 else y.shape[1]
    teacher = mlp(64, 32, features=features, classes=outputs, name="teacher")
    teacher.compile(keras.optimizers.Adam(0.01), loss=loss, jit_compile=False)
    teacher.fit(x, y, epochs=10, verbose=0)
    student = build(features, outputs, "student")
    distiller = Distiller(teacher, student, losses, student_loss_weight=0.3)
    distiller.compile(keras.optimizers.Adam(0.01), loss=loss, jit_compile=False)
    fit = dict(batch_size=50, epochs=4, shuffle=False, verbose=0)
    first = distiller.fit(x, y, **fit).history
    assert first["loss"][-1] < 0.9 * first["loss"][0]
    path = tmp_path / "distiller.keras"
    distiller.save(path)
    loaded = keras.saving.load_model(path)
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), distiller.predict(x, verbose=0))
    again = [d.fit(x, y, **fit).history for d in (distiller, loaded)]
    for key in again[0]:
        np.testing.assert_allclose(again[0][key], again[1][key], rtol=1e-5, err_msg=key)
    assert again[0]["loss"][-1] < first["loss"][-1]
    alone = tmp_path / "student.keras"
    distiller.student.save(alone)
    kept = keras.saving.load_model(alone)
    np.testing.assert_array_equal(kept.predict(x, verbose=0), distiller.student.predict(x, verbose=0))
    assert kept.count_params() == distiller.student.count_params()
