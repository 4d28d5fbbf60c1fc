"""Schedules of the training step, for temperatures and the weights of losses.

They are `keras.optimizers.schedules.LearningRateSchedule` objects: Keras serializes them, and Keras's own schedules are accepted wherever
these are. Before the first step of its course a schedule holds its initial value, after the last step its final value.
"""

import math
from collections.abc import Sequence
from typing import TypeAlias

import keras
from keras import ops

from tfdistill.errors import ConfigurationError
from tfdistill.losses.configured import Configured
from tfdistill.utils import validate
from tfdistill.utils.types import Tensor

Schedule: TypeAlias = keras.optimizers.schedules.LearningRateSchedule


class _BoundedSchedule(Configured, keras.optimizers.schedules.LearningRateSchedule):
    """Base of this module's schedules: they know their extremes, and two of equal configuration are equal."""

    def extremes(self) -> tuple[float, float]:
        """Returns the smallest and the largest value of the whole course."""
        raise TypeError(f"{type(self).__name__} does not define `extremes`.")


class _Ramp(_BoundedSchedule):
    """From one value to another over a number of steps. A subclass defines `_fraction`, the share of the way after a share of the steps."""

    def __init__(self, initial_value: float, final_value: float, steps: int, start: int = 0):
        owner = type(self).__name__
        self.initial_value = validate.number("initial_value", initial_value, owner=owner)
        self.final_value = validate.number("final_value", final_value, owner=owner)
        self.steps = validate.whole_number("steps", steps, at_least=1, owner=owner)
        self.start = validate.whole_number("start", start, at_least=0, owner=owner)

    def __call__(self, step: Tensor) -> Tensor:
        done = ops.clip((ops.cast(step, "float32") - self.start) / self.steps, 0.0, 1.0)
        return self.initial_value + (self.final_value - self.initial_value) * self._fraction(done)

    def extremes(self) -> tuple[float, float]:
        return min(self.initial_value, self.final_value), max(self.initial_value, self.final_value)


@keras.saving.register_keras_serializable(package="tfdistill")
class LinearSchedule(_Ramp):
    """A straight line from `initial_value` to `final_value` over a number of training steps.

    Args:
        initial_value: Value up to step `start`.
        final_value: Value from step `start + steps` on.
        steps: Length of the ramp in training steps, at least 1.
        start: First step of the ramp, at least 0.

    Raises:
        ConfigurationError: if a value is not finite, or a step count is not a whole number in its range.

    Example:
        >>> temperature = tfdistill.losses.LinearSchedule(8.0, 2.0, steps=1000)
        >>> [float(temperature(step)) for step in (0, 500, 2000)]
        [8.0, 5.0, 2.0]
        >>> loss = tfdistill.losses.SoftTargets(temperature)
    """

    def _fraction(self, done):
        return done


@keras.saving.register_keras_serializable(package="tfdistill")
class CosineSchedule(_Ramp):
    """Half a cosine wave from `initial_value` to `final_value`: flat at both ends, steepest in the middle.

    The value at step s is final_value + (initial_value - final_value) * (1 + cos(pi * t)) / 2, where t = (s - start) / steps, from 0 to 1.

    Args:
        initial_value: Value up to step `start`.
        final_value: Value from step `start + steps` on.
        steps: Length of the ramp in training steps, at least 1.
        start: First step of the ramp, at least 0.

    Raises:
        ConfigurationError: if a value is not finite, or a step count is not a whole number in its range.

    Example:
        >>> weight = tfdistill.losses.CosineSchedule(1.0, 0.0, steps=100, start=20)
        >>> [round(float(weight(step)), 2) for step in (0, 45, 70, 120)]
        [1.0, 0.85, 0.5, 0.0]
    """

    def _fraction(self, done):
        return 0.5 * (1.0 - ops.cos(math.pi * done))


@keras.saving.register_keras_serializable(package="tfdistill")
class PiecewiseSchedule(_BoundedSchedule):
    """A constant value between boundaries.

    Args:
        boundaries: Increasing training steps, at least one; from a boundary on, the next value holds.
        values: The values, one more than there are boundaries.

    Raises:
        ConfigurationError: if the lengths do not fit, the boundaries do not increase, or a value is not finite.

    Example:
        >>> temperature = tfdistill.losses.PiecewiseSchedule([1000, 2000], [8.0, 4.0, 2.0])
        >>> [float(temperature(step)) for step in (0, 999, 1000, 5000)]
        [8.0, 8.0, 4.0, 2.0]
    """

    def __init__(self, boundaries: Sequence[int], values: Sequence[float]):
        owner = type(self).__name__
        self.boundaries = [validate.whole_number("boundaries", boundary, at_least=1, owner=owner) for boundary in boundaries]
        self.values = [validate.number("values", value, owner=owner) for value in values]
        if not self.boundaries or any(b <= a for a, b in zip(self.boundaries, self.boundaries[1:], strict=False)):
            raise ConfigurationError(
                f"{owner}: boundaries={list(boundaries)} do not increase.", "at least one step, each larger than the one before"
            )
        if len(self.values) != len(self.boundaries) + 1:
            raise ConfigurationError(
                f"{owner}: {len(self.values)} values for {len(self.boundaries)} boundaries.",
                f"{len(self.boundaries) + 1} values, one more than boundaries",
            )

    def __call__(self, step: Tensor) -> Tensor:
        step = ops.cast(step, "float32")
        value = ops.convert_to_tensor(self.values[0], "float32")
        for boundary, following in zip(self.boundaries, self.values[1:], strict=True):
            value = ops.where(step >= boundary, following, value)
        return value

    def extremes(self) -> tuple[float, float]:
        return min(self.values), max(self.values)


def is_schedule(value):
    """Whether `value` is a schedule, of this module or of `keras.optimizers.schedules`."""
    return isinstance(value, keras.optimizers.schedules.LearningRateSchedule)


def value_at(value, step):
    """Returns the value of a number or a schedule at a training step.

    Args:
        value: A number, or a schedule.
        step: The training step: a whole number or a scalar tensor. May be None for a number.

    Returns:
        The number itself, or the schedule's value as a scalar tensor.

    Raises:
        ConfigurationError: for a schedule without a step.
    """
    if not is_schedule(value):
        return value
    if step is None:
        raise ConfigurationError(
            f"The schedule {_described(value)} was evaluated without a training step.",
            "the step, which tfdistill.Distiller passes and keras.distillation.Distiller does not",
            "train with tfdistill.Distiller, or give a constant",
        )
    return value(step)


def extremes(value):
    """Returns the smallest and the largest value of a number, or of a schedule over its whole course.

    They are exact for this module's schedules. Others are evaluated at every power of two up to 2^20 (a million steps) and beside every
    whole number of their configuration, where a boundary or an end may lie.

    Returns:
        `(low, high)` as floats; NaN where the schedule gives NaN.
    """
    if not is_schedule(value):
        return float(value), float(value)
    if isinstance(value, _BoundedSchedule):
        return value.extremes()
    marks = {0, *(2**power for power in range(21))}
    for setting in keras.tree.flatten(value.get_config()):
        if validate.is_number(setting) and 0 <= setting < 2**30:
            marks.update((int(setting), int(setting) + 1, max(int(setting) - 1, 0)))
    course = [float(ops.convert_to_numpy(value(mark))) for mark in sorted(marks)]
    if any(math.isnan(v) for v in course):
        return math.nan, math.nan
    return min(course), max(course)


def number_or_schedule(name, value, owner, zero=False):
    """Checks a setting that is a positive number or a schedule of positive numbers.

    Args:
        name: Name of the setting, for the message.
        value: A number or a schedule.
        owner: Name of the class that has the setting, for the message.
        zero: Whether 0 is permitted.

    Returns:
        The number as a `float`, or the schedule.

    Raises:
        ConfigurationError: if it is neither, not finite, or leaves its range at any step.
    """
    if not is_schedule(value):
        return validate.number(name, value, at_least=0, owner=owner) if zero else validate.positive_number(name, value, owner=owner)
    low, high = extremes(value)
    if not (math.isfinite(low) and math.isfinite(high)) or low < 0 or (low == 0 and not zero):
        raise ConfigurationError(
            f"{owner}: the schedule {_described(value)} for {name} goes as far as {low:g} (its largest value is {high:g}).",
            f"finite values {'of at least' if zero else 'greater than'} 0 at every step",
        )
    return value


def _described(schedule):
    """A schedule in words: Keras's own have no repr of their settings."""
    if isinstance(schedule, _BoundedSchedule):
        return repr(schedule)
    return f"{type(schedule).__name__}({', '.join(f'{k}={v!r}' for k, v in schedule.get_config().items())})"
