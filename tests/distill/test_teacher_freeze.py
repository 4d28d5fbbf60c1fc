"""When a teacher is frozen: while a `fit` that it teaches in runs, and at no other time, whatever ends it."""

import gc
import threading

import keras
import numpy as np
import pytest
from small import data, mlp, weights_of

from tfdistill import Distiller
from tfdistill.distill.teachers.ensemble import Ensemble
from tfdistill.distill.teachers.freeze import Freeze, _held
from tfdistill.losses import SoftTargets

CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def distiller(teacher, student=None):
    made = Distiller(teacher, student or mlp(6, name="student"), SoftTargets(2.0))
    made.compile(keras.optimizers.SGD(0.1), loss=CROSS_ENTROPY, jit_compile=False)
    return made


def flags(*models):
    return [thing.trainable for model in models for thing in (*model._flatten_layers(), *model.weights)]


def partly_frozen(name="teacher"):
    teacher = mlp(8, 7, name=name)
    teacher.get_layer("hidden_1").trainable = False
    teacher.get_layer("logits").bias.trainable = False
    return teacher


def fit(model, **kwargs):
    x, y = data(16)
    return model.fit(x, y, verbose=0, **kwargs)


def calls(event, act):
    return [keras.callbacks.LambdaCallback(**{event: lambda *_, **__: act()})]


def never_fitted(teacher):
    return distiller(teacher)


def never_fitted_and_gone(teacher):
    distiller(teacher)
    gc.collect()


def two_with_one_teacher(teacher):
    first, second = distiller(teacher), distiller(teacher)
    fit(first)
    fit(second)


def the_second_alone(teacher):
    _, second = distiller(teacher), distiller(teacher)
    fit(second)


def one_inside_another(teacher):
    inner = distiller(teacher)
    during = []

    def nested():
        fit(inner)
        during.append(teacher.trainable)

    fit(distiller(teacher), callbacks=calls("on_epoch_begin", nested))
    assert during == [False], "the inner fit gave back what the outer one still holds"


def evaluated_and_predicted(teacher):
    x, y = data(16)
    model = distiller(teacher)
    model.evaluate(x, y, verbose=0)
    model.predict(x, verbose=0)


def interrupted(teacher):
    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(distiller(teacher), callbacks=calls("on_train_batch_end", stop))


def failed(teacher):
    def fail():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fit(distiller(teacher), callbacks=calls("on_epoch_end", fail))


def refused_by_keras(teacher):
    with pytest.raises(ValueError, match="class_weight"):
        fit(distiller(teacher), class_weight={0: 1.0}, sample_weight=np.ones(16))


def in_two_threads(teacher):
    # Each waits for the other inside its own fit, so that the two overlap; then they end one after the other.
    both, seen = threading.Barrier(2, timeout=60), []

    def work(model):
        fit(model, callbacks=calls("on_epoch_begin", both.wait) + calls("on_train_batch_end", lambda: seen.append(teacher.trainable)))

    threads = [threading.Thread(target=work, args=(distiller(teacher),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [False, False]


def a_member_and_its_ensemble(teacher):
    ensemble = distiller(Ensemble([teacher, mlp(5, name="other")]))
    during = []

    def alone():
        fit(distiller(teacher))
        during.append(teacher.trainable)

    fit(ensemble, callbacks=calls("on_epoch_begin", alone))
    assert during == [False]


def shared_layers(teacher):
    other = keras.Model(teacher.input, keras.layers.Dense(5)(teacher.get_layer("hidden_0").output), name="other_teacher")
    during = []

    def nested():
        fit(distiller(other))
        during.extend(layer.trainable for layer in teacher.layers)

    fit(distiller(teacher), callbacks=calls("on_epoch_begin", nested))
    assert not any(during)
    assert other.trainable


WAYS = [
    never_fitted,
    never_fitted_and_gone,
    two_with_one_teacher,
    the_second_alone,
    one_inside_another,
    evaluated_and_predicted,
    interrupted,
    failed,
    refused_by_keras,
    in_two_threads,
    a_member_and_its_ensemble,
    shared_layers,
]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_flags_are_the_users_own_outside_fit(way):
    teacher = partly_frozen()
    before = flags(teacher)
    assert True in before
    assert False in before
    kept = way(teacher)
    assert flags(teacher) == before
    assert not _held
    del kept


@pytest.mark.parametrize("epochs", [1, 2])
def test_frozen_during_fit_with_its_weights(epochs):
    teacher, during = partly_frozen(), []
    before = weights_of(teacher)
    fit(distiller(teacher), epochs=epochs, callbacks=calls("on_train_batch_end", lambda: during.extend(flags(teacher))))
    assert len(during) == epochs * len(flags(teacher))
    assert not any(during)
    for a, b in zip(before, weights_of(teacher), strict=True):
        assert (a == b).all()


def test_the_teacher_can_be_trained_on_while_a_distiller_exists():
    teacher = mlp(8, name="teacher")
    waiting = distiller(teacher)
    teacher.compile(keras.optimizers.SGD(0.5), loss=CROSS_ENTROPY, jit_compile=False)
    before = weights_of(teacher)
    fit(teacher)
    assert any((a != b).any() for a, b in zip(before, weights_of(teacher), strict=True))
    fit(waiting)


def test_a_block_that_cannot_begin_leaves_nothing_held():
    class Stubborn(keras.layers.Dense):
        """Refuses to be frozen."""

        @property
        def trainable(self):
            return True

        @trainable.setter
        def trainable(self, value):
            if not value:
                raise RuntimeError("never")

    inputs = keras.Input((8,))
    model = keras.Model(inputs, Stubborn(5)(keras.layers.Dense(4)(inputs)))
    before = flags(model)
    with pytest.raises(RuntimeError, match="never"), Freeze(model):
        pass
    assert flags(model) == before
    assert not _held
