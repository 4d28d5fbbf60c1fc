"""NaN and infinity after the first batch: reported within the epoch, with the model they come from, and the student stays usable."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from small import CLASSES, data, weights_of

from tfdistill import Distiller
from tfdistill.distill.objective import finite
from tfdistill.errors import DataError
from tfdistill.losses import Hint, SoftTargets, TeacherBounded

CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
STEPS, ROWS, BAD_STEP = 6, 8, 4


class Spoils(keras.layers.Layer):
    """Gives NaN (or infinity) for batches whose first input is above 50, though the inputs are finite."""

    def __init__(self, value=np.nan, **kwargs):
        super().__init__(**kwargs)
        self.value = value

    def call(self, inputs):
        x, outputs = inputs
        return tf.where(tf.reduce_max(x) > 50, tf.fill(tf.shape(outputs), tf.constant(self.value, outputs.dtype)), outputs)


def net(width, name, value=None, where="outputs", activation="tanh"):
    inputs = keras.Input((8,))
    x = keras.layers.Dense(width, activation=activation, name="hidden")(inputs)
    if value is not None and where == "hidden":
        x = Spoils(value, name="spoilt")([inputs, x])
    outputs = keras.layers.Dense(CLASSES, name="logits")(x)
    if value is not None and where == "outputs":
        outputs = Spoils(value, name="spoilt")([inputs, outputs])
    return keras.Model(inputs, outputs, name=name)


def feed(bad=60.0):
    x, y = data(STEPS * ROWS)
    x[(BAD_STEP - 1) * ROWS] = bad
    return x, y


def distil(teacher, student, *terms, optimizer=None, share=0.5, loss=CROSS_ENTROPY, **compile):
    made = Distiller(teacher, student, list(terms) or SoftTargets(2.0), student_loss_weight=share)
    made.compile(optimizer or keras.optimizers.SGD(0.05), loss=loss, **{"jit_compile": False, **compile})
    return made


class SpoilsLoss(keras.losses.Loss):
    """Cross-entropy that is infinite for a batch whose first label is 4, though all outputs are finite."""

    def call(self, y_true, y_pred):
        value = keras.losses.sparse_categorical_crossentropy(y_true, y_pred, from_logits=True)
        return value * tf.where(tf.reshape(y_true, (-1,))[0] == 4, np.inf, 1.0)


def spoilt_loss():
    x, y = feed(bad=1.0)
    y = np.where(y == 4, 3, y)
    y[(BAD_STEP - 1) * ROWS] = 4
    return distil(net(8, "teacher"), net(6, "student"), loss=SpoilsLoss()), x, y


TEACHERS = {
    "NaN": lambda: (distil(net(8, "teacher", np.nan), net(6, "student")), *feed()),
    "infinity": lambda: (distil(net(8, "teacher", np.inf), net(6, "student")), *feed()),
    "NaN in a hidden layer": lambda: (distil(net(8, "teacher", np.nan, "hidden"), net(6, "student"), Hint("hidden", "hidden")), *feed()),
    "a loss that hides it": lambda: (
        distil(net(8, "teacher", np.nan), net(6, "student"), TeacherBounded(), loss="mse"),
        feed()[0],
        np.zeros((STEPS * ROWS, CLASSES), "float32"),
    ),
    "under XLA": lambda: (distil(net(8, "teacher", np.nan), net(6, "student"), jit_compile=True), *feed()),
    "several steps a call": lambda: (distil(net(8, "teacher", np.nan), net(6, "student"), steps_per_execution=3), *feed()),
    "Adam": lambda: (distil(net(8, "teacher", np.nan), net(6, "student"), optimizer=keras.optimizers.Adam(0.01)), *feed()),
    "scaled loss": lambda: (
        distil(net(8, "teacher", np.nan), net(6, "student"), optimizer=keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.05))),
        *feed(),
    ),
}


@pytest.mark.parametrize("kind", TEACHERS)
def test_a_teacher_that_turns_bad_ends_the_training_and_spares_the_student(kind):
    model, x, y = TEACHERS[kind]()
    with pytest.raises(DataError, match=rf"teacher 'teacher' answered NaN or infinity in step {BAD_STEP} of this epoch"):
        model.fit(x, y, batch_size=ROWS, epochs=3, shuffle=False, verbose=0)
    assert all(np.isfinite(w).all() for w in weights_of(model.student))
    assert model.teacher.trainable


def test_the_student_is_what_training_without_that_batch_makes():
    x, y = feed()
    rest = np.delete(np.arange(STEPS * ROWS), np.arange((BAD_STEP - 1) * ROWS, BAD_STEP * ROWS))
    ends = []
    for rows in (np.arange(STEPS * ROWS), rest):
        keras.utils.set_random_seed(2)
        model = distil(net(8, "teacher", np.nan), net(6, "student"))
        try:
            model.fit(x[rows], y[rows], batch_size=ROWS, shuffle=False, verbose=0)
        except DataError:
            assert len(rows) > len(rest)
        ends.append(weights_of(model.student))
    for a, b in zip(*ends, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-7)


def test_no_callback_sees_the_end_of_a_spoilt_epoch():
    ended = []
    watch = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: ended.append(epoch))
    x, y = feed()
    with pytest.raises(DataError):
        distil(net(8, "teacher", np.nan), net(6, "student")).fit(
            x, y, validation_data=(x, y), batch_size=ROWS, shuffle=False, verbose=0, callbacks=[watch]
        )
    assert ended == []


def test_a_long_epoch_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(finite, "CHECK_EVERY", 2)
    steps = []
    watch = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: steps.append(batch))
    x, y = feed()
    with pytest.raises(DataError, match=f"step {BAD_STEP} "):
        distil(net(8, "teacher", np.nan), net(6, "student")).fit(x, y, batch_size=ROWS, shuffle=False, verbose=0, callbacks=[watch])
    assert len(steps) == BAD_STEP - 1


def nan_input():
    x, y = feed()
    x[BAD_STEP * ROWS - 1, 2] = np.nan
    return x, y


def test_bad_inputs_are_told_from_a_bad_teacher():
    x, y = nan_input()
    model = distil(net(8, "teacher"), net(6, "student"))
    with pytest.raises(DataError, match=rf"'teacher' and student 'student' both .* step {BAD_STEP} .*\n.*\n.*inputs of that batch"):
        model.fit(x, y, batch_size=ROWS, shuffle=False, verbose=0)
    assert all(np.isfinite(w).all() for w in weights_of(model.student))


OTHERS = {
    "the student": (
        lambda: (distil(net(8, "teacher"), net(6, "student", np.inf)), *feed()),
        "The student 'student' answered NaN or infinity in step 4",
    ),
    "the loss on labels": (spoilt_loss, r"The loss was NaN or infinite \(student_loss\).* in step 4"),
    "a sample weight": (
        lambda: (
            distil(net(8, "teacher"), net(6, "student")),
            *feed(1.0),
            np.where(np.arange(STEPS * ROWS) == BAD_STEP * ROWS - 1, np.inf, 1),
        ),
        r"The loss was NaN or infinite \(student_loss, distillation_loss\)",
    ),
}


def test_inputs_whose_nan_a_relu_hides_spoil_no_weights():
    x, y = nan_input()
    model = distil(net(8, "teacher", activation="relu"), net(6, "student", activation="relu"))
    with pytest.warns(UserWarning, match=rf"gradients were NaN or infinite.* in step {BAD_STEP} .*NaN in the inputs"):
        model.fit(x, y, batch_size=ROWS, shuffle=False, verbose=0)
    assert all(np.isfinite(w).all() for w in weights_of(model.student))


@pytest.mark.parametrize("kind", OTHERS)
def test_what_plain_keras_goes_on_from_is_warned_of_and_spares_the_student(kind):
    make, words = OTHERS[kind]
    model, x, y, *weight = make()
    with pytest.warns(UserWarning, match=words) as caught:
        history = model.fit(x, y, sample_weight=weight[0] if weight else None, batch_size=ROWS, epochs=2, shuffle=False, verbose=0).history
    assert sum(issubclass(w.category, UserWarning) for w in caught) == 1
    assert not np.isfinite(history["loss"]).any()
    assert all(np.isfinite(w).all() for w in weights_of(model.student))


def test_the_remedy_clipnorm_is_taken():
    x, y = feed(1.0)
    distil(net(8, "teacher"), net(6, "student"), optimizer=keras.optimizers.SGD(0.05, clipnorm=1.0)).fit(x, y, verbose=0)


def test_embeddings_keep_their_gradient_form_and_train():
    def tokens(width, name):
        inputs = keras.Input((4,), dtype="int32")
        x = keras.layers.Flatten()(keras.layers.Embedding(20, width)(inputs))
        return keras.Model(inputs, keras.layers.Dense(CLASSES)(x), name=name)

    x, y = np.random.default_rng(1).integers(0, 20, (16, 4)).astype("int32"), np.zeros(16, "int32")
    model = distil(tokens(6, "teacher"), tokens(4, "student"))
    before = weights_of(model.student)
    model.fit(x, y, verbose=0)
    assert all((a != b).any() for a, b in zip(before, weights_of(model.student), strict=True))


def test_an_optimizer_that_scales_the_loss_still_finds_its_scale():
    x, y = feed(1.0)
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.05), initial_scale=1e38)
    model = distil(net(8, "teacher"), net(6, "student"), optimizer=optimizer)
    before = weights_of(model.student)
    # Gradients overflow at first; the scale is halved for each of these steps, without a word.
    model.fit(x * 30, y, batch_size=1, epochs=2, verbose=0)
    assert float(optimizer.dynamic_scale) < 1e38
    assert all(np.isfinite(w).all() for w in weights_of(model.student))
    assert any((a != b).any() for a, b in zip(before, weights_of(model.student), strict=True))


def test_logs_have_no_new_name_and_finite_training_says_nothing():
    x, y = feed(1.0)
    history = distil(net(8, "teacher"), net(6, "student")).fit(x, y, epochs=2, validation_data=(x, y), verbose=0).history
    assert set(history) == {p + n for p in ("", "val_") for n in ("loss", "student_loss", "distillation_loss", "total_loss")}


def test_replicas_are_counted_as_one():
    metric = finite.FirstNonFinite()
    good, bad = tf.zeros((2, 3)), tf.constant([[np.nan, 0.0]])
    assert bool(metric.record(good, good, 1.0, [good, None]))
    assert not bool(metric.record(bad, good, np.inf, [good]))
    assert not bool(metric.record(good, bad, 1.0, [good]))
    assert metric.found() == (2, {"teacher", "loss"})
    metric.counts.assign(metric.counts * 2)
    assert metric.found() == (2, {"teacher", "loss"})
    metric.reset_state()
    assert metric.found() is None
    assert bool(metric.record(None, {"a": good, "b": tf.constant([1, 2])}, 0.0, [good]))
