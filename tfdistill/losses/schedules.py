"""Schedules of the training step, for temperatures and the weights of losses.

They are `keras.optimizers.schedules.LearningRateSchedule` objects, so they serialize as Keras's own do, and Keras's own are accepted wherever these
are. Before their first step they hold the initial value, after their last the final one.
"""

import math

import keras
from keras import ops

from tfdistill.errors import ConfigurationError
from tfdistill.losses import checks
from tfdistill.saveable import checks_config

Schedule = keras.optimizers.schedules.LearningRateSchedule


class _Course(Schedule):
    """Base of this module's schedules: they know their extremes, and two of equal configuration are equal."""

    def extremes(self):
        """Returns the smallest and the largest value of the whole course."""
        raise TypeError(f"{type(self).__name__} does not say its extremes.")

    @classmethod
    @checks_config
    def from_config(cls, config):
        return cls(**config)

    def __repr__(self):
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.get_config().items())})"

    def __eq__(self, other):
        return type(self) is type(other) and self.get_config() == other.get_config()

    def __hash__(self):
        return hash(repr(self))


class _Ramp(_Course):
    """From one value to another over a number of steps."""

    def __init__(self, initial_value, final_value, steps, start=0):
        owner = type(self).__name__
        self.initial_value = checks.number(owner, "initial_value", initial_value)
        self.final_value = checks.number(owner, "final_value", final_value)
        self.steps = checks.whole(owner, "steps", steps, 1)
        self.start = checks.whole(owner, "start", start, 0)

    def __call__(self, step):
        done = ops.clip((ops.cast(step, "float32") - self.start) / self.steps, 0.0, 1.0)
        return self.initial_value + (self.final_value - self.initial_value) * self._share(done)

    def extremes(self):
        return min(self.initial_value, self.final_value), max(self.initial_value, self.final_value)

    def get_config(self):
        return {"initial_value": self.initial_value, "final_value": self.final_value, "steps": self.steps, "start": self.start}


@keras.saving.register_keras_serializable(package="tfdistill")
class LinearSchedule(_Ramp):
    """A straight line from `initial_value` to `final_value`.

    Args:
        initial_value: Value up to step `start`.
        final_value: Value from step `start + steps` on.
        steps: Length of the ramp in training steps, at least 1.
        start: First step of the ramp, at least 0.

    Raises:
        ConfigurationError: if a value is not finite, or a step count is not a whole number in its range.
    """

    def _share(self, done):
        return done


@keras.saving.register_keras_serializable(package="tfdistill")
class CosineSchedule(_Ramp):
    """Half a cosine wave from `initial_value` to `final_value`: flat at both ends, steepest in the middle.

    Args:
        initial_value: Value up to step `start`.
        final_value: Value from step `start + steps` on.
        steps: Length of the ramp in training steps, at least 1.
        start: First step of the ramp, at least 0.

    Raises:
        ConfigurationError: if a value is not finite, or a step count is not a whole number in its range.
    """

    def _share(self, done):
        return 0.5 * (1.0 - ops.cos(math.pi * done))


@keras.saving.register_keras_serializable(package="tfdistill")
class PiecewiseSchedule(_Course):
    """A constant value between boundaries.

    Args:
        boundaries: Increasing training steps, at least one; from a boundary on, the next value holds.
        values: One value more than there are boundaries.

    Raises:
        ConfigurationError: if the lengths do not fit, the boundaries do not increase, or a value is not finite.
    """

    def __init__(self, boundaries, values):
        owner = type(self).__name__
        self.boundaries = [checks.whole(owner, "boundaries", b, 1) for b in boundaries]
        self.values = [checks.number(owner, "values", v) for v in values]
        if not self.boundaries or any(b <= a for a, b in zip(self.boundaries, self.boundaries[1:], strict=False)):
            raise ConfigurationError(
                f"{owner}: boundaries={list(boundaries)} do not increase.", "at least one step, each larger than the one before"
            )
        if len(self.values) != len(self.boundaries) + 1:
            raise ConfigurationError(
                f"{owner}: {len(self.values)} values for {len(self.boundaries)} boundaries.",
                f"{len(self.boundaries) + 1} values, one more than boundaries",
            )

    def __call__(self, step):
        step = ops.cast(step, "float32")
        value = ops.convert_to_tensor(self.values[0], "float32")
        for boundary, following in zip(self.boundaries, self.values[1:], strict=True):
            value = ops.where(step >= boundary, following, value)
        return value

    def extremes(self):
        return min(self.values), max(self.values)

    def get_config(self):
        return {"boundaries": self.boundaries, "values": self.values}


def is_schedule(value):
    """Whether `value` changes with the step: a schedule of this module or of `keras.optimizers.schedules`."""
    return isinstance(value, Schedule)


def value_at(value, step):
    """The value of a number or a schedule at a training step.

    Args:
        value: A number, or a schedule.
        step: The training step: a whole number or a scalar tensor. May be None for a number.

    Returns:
        The number itself, or the schedule's value as a scalar tensor.

    Raises:
        ConfigurationError: if a schedule is asked without a step.
    """
    if not is_schedule(value):
        return value
    if step is None:
        raise ConfigurationError(
            f"The schedule {_said(value)} was asked for its value without a training step.",
            "the step, which tfdistill.Distiller passes and keras.distillation.Distiller does not",
            "train with tfdistill.Distiller, or give a constant",
        )
    return value(step)


def extremes(value):
    """The smallest and the largest value of a number or of a schedule's whole course.

    Exact for this module's schedules. Others are opaque, and are asked at every power of two up to 2^20 (a million steps) and beside every
    whole number of their configuration (where a boundary or an end may lie).

    Returns:
        `(low, high)` as floats; NaN where the schedule says NaN.
    """
    if not is_schedule(value):
        return float(value), float(value)
    if isinstance(value, _Course):
        return value.extremes()
    marks = {0, *(2**power for power in range(21))}
    for setting in keras.tree.flatten(value.get_config()):
        if isinstance(setting, (int, float)) and not isinstance(setting, bool) and math.isfinite(setting) and 0 <= setting < 2**30:
            marks.update((int(setting), int(setting) + 1, max(int(setting) - 1, 0)))
    course = [float(ops.convert_to_numpy(value(mark))) for mark in sorted(marks)]
    if any(math.isnan(v) for v in course):
        return math.nan, math.nan
    return min(course), max(course)


def checked(owner, name, value, low=0.0, strict=True):
    """Checks a setting that may be a number or a schedule, for its whole course.

    Args:
        owner: Name of the class the setting belongs to, for the message.
        name: Name of the setting.
        value: A number or a schedule.
        low: Smallest permitted value.
        strict: Whether `low` itself is refused.

    Returns:
        The number as a `float`, or the schedule.

    Raises:
        ConfigurationError: if it is neither, not finite, or leaves its range at any step.
    """
    if not is_schedule(value):
        return checks.number(owner, name, value, low, strict)
    least, most = extremes(value)
    if not (math.isfinite(least) and math.isfinite(most)) or least < low or (strict and least == low):
        raise ConfigurationError(
            f"{owner}: the schedule {_said(value)} for {name} goes as far as {least:g} (its largest value is {most:g}).",
            f"finite values {'greater than' if strict else 'of at least'} {low:g} at every step",
        )
    return value


def _said(schedule):
    """A schedule in words: Keras's own have no repr of their settings."""
    if isinstance(schedule, _Course):
        return repr(schedule)
    return f"{type(schedule).__name__}({', '.join(f'{k}={v!r}' for k, v in schedule.get_config().items())})"
