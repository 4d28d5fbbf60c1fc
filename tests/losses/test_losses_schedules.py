"""Schedules of the training step, this library's and Keras's: their course and their extremes."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfdistill import losses
from tfdistill.losses import CosineSchedule, LinearSchedule, PiecewiseSchedule
from tfdistill.losses.schedules import extremes, is_schedule, number_or_schedule, value_at

schedules = keras.optimizers.schedules

COURSES = [
    pytest.param(LinearSchedule(4.0, 1.0, 10), {0: 4.0, 5: 2.5, 10: 1.0, 999: 1.0}, id="linear"),
    pytest.param(LinearSchedule(0.0, 1.0, 4, start=3), {0: 0.0, 3: 0.0, 4: 0.25, 7: 1.0}, id="linear-late"),
    pytest.param(CosineSchedule(4.0, 2.0, 10), {0: 4.0, 5: 3.0, 10: 2.0, 1: 3.0 + math.cos(0.1 * math.pi), 99: 2.0}, id="cosine"),
    pytest.param(PiecewiseSchedule([3, 6], [8.0, 4.0, 2.0]), {0: 8.0, 2: 8.0, 3: 4.0, 5: 4.0, 6: 2.0, 99: 2.0}, id="piecewise"),
    pytest.param(schedules.PolynomialDecay(4.0, 10, 1.0), {0: 4.0, 5: 2.5, 10: 1.0, 99: 1.0}, id="keras"),
    pytest.param(3.5, {0: 3.5, 7: 3.5}, id="number"),
]


@pytest.mark.parametrize(("schedule", "course"), COURSES)
def test_course(schedule, course):
    inside = tf.function(lambda step: tf.convert_to_tensor(value_at(schedule, step)))
    for step, expected in course.items():
        assert float(value_at(schedule, step)) == pytest.approx(expected, rel=1e-6)
        assert float(inside(tf.constant(step, "int64"))) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("schedule", "course"), COURSES)
def test_extremes(schedule, course):
    assert extremes(schedule) == pytest.approx((min(course.values()), max(course.values())), rel=1e-6)


@pytest.mark.parametrize(("schedule", "course"), [p for p in COURSES if p.id != "number"])
def test_serialization(schedule, course):
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(schedule))
    assert again.get_config() == schedule.get_config()
    loss = losses.SoftTargets(schedule) if min(course.values()) > 0 else losses.DIST(beta=schedule)
    assert keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss)) == loss


def test_equality_is_by_configuration():
    assert LinearSchedule(4, 1, 10) == LinearSchedule(4.0, 1.0, 10)
    assert LinearSchedule(4, 1, 10) != CosineSchedule(4, 1, 10)
    assert len({LinearSchedule(4, 1, 10), LinearSchedule(4.0, 1.0, 10)}) == 1


def test_a_schedule_that_gives_nan_is_refused():
    class Broken(schedules.LearningRateSchedule):
        def __call__(self, step):
            return float("nan")

        def get_config(self):
            return {}

    with pytest.raises(ValueError, match="nan"):
        number_or_schedule("temperature", Broken(), "Loss")


def test_what_is_a_schedule():
    assert is_schedule(schedules.CosineDecay(1.0, 5))
    assert not is_schedule(4.0)


def test_the_scheduled_settings_of_a_loss():
    loss = losses.DecoupledKD(LinearSchedule(5.0, 1.0, 4), beta=CosineSchedule(0.0, 8.0, 4))
    assert {name: float(v) for name, v in loss.scheduled(2).items()} == pytest.approx({"temperature": 3.0, "beta": 4.0})
    assert losses.DecoupledKD().scheduled(2) == {}


def test_the_step_moves_the_loss():
    rng = np.random.default_rng(0)
    teacher, student = rng.normal(size=(2, 6, 5))
    moving = losses.RelationalKD(LinearSchedule(1.0, 3.0, 10), 0.0)
    plain = float(losses.RelationalKD(1.0, 0.0).compute_loss(teacher, student))
    assert [float(moving.compute_loss(teacher, student, step=step)) for step in (0, 5, 10)] == pytest.approx([plain, 2 * plain, 3 * plain])
    # An angle weight that starts at 0 is not left out.
    late = losses.RelationalKD(1.0, PiecewiseSchedule([2], [0.0, 2.0]))
    assert float(late.compute_loss(teacher, student, step=0)) == pytest.approx(plain)
    assert float(late.compute_loss(teacher, student, step=2)) == pytest.approx(float(losses.RelationalKD().compute_loss(teacher, student)))


def test_they_serve_as_learning_rates():
    variable = keras.Variable(1.0)
    optimizer = keras.optimizers.SGD(PiecewiseSchedule([1], [0.5, 0.25]))
    for expected in (0.5, 0.25):
        optimizer.apply([tf.constant(1.0)], [variable])
        assert float(variable) == pytest.approx(expected)
