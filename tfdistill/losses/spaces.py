"""Logits, log-probabilities and probabilities: conversions from one to another, and what values show of the space they are in.

The caller names the space of an output. It is never inferred; `space_checks` compares the first batch with it.
"""

import typing
from typing import Literal

import keras
import numpy as np
from keras import ops

from tfdistill.errors import ConfigurationError
from tfdistill.losses import scaling
from tfdistill.losses.reduction import at_least_float32

Space = Literal["logits", "log_probabilities", "probabilities"]
BinarySpace = Literal["logits", "probabilities"]
SPACES = typing.get_args(Space)
BINARY_SPACES = typing.get_args(BinarySpace)

# A probability of zero counts as this, near the smallest normal float32.
SMALLEST = 1e-37
# The logarithm of zero counts as this: far below any logit, and finite in sums and after division by a temperature.
LOG_OF_ZERO = -1e30
# The largest float32 below one.
LARGEST_BELOW_ONE = 1.0 - 2.0**-24
# The probability below which the slope of the logarithm is constant. Float16 has no gradients above 65504, and those of float32 must stay
# finite when they are multiplied by the weight of a loss. The softmax before it multiplies the slope by the probability, so the student's
# logits get the right gradient.
STEEPEST, STEEPEST_FLOAT16 = scaling.SMALLEST, 2.0**-14
# A student's logits that deviate by less than this count as flat (see `least_deviation`).
FLAT = 0.1
# Logits below this are those of masked classes.
MASKED = -1e4
# By how much the sum of a row of probabilities may differ from one (half precision sums to about this).
SUM_TOLERANCE = 1e-3
# Fewer logits than this may all lie between 0 and 1 by chance.
ENOUGH = 16


def is_float16(x):
    """Whether a tensor is of type float16, whose range is too small for the gradients of logarithms."""
    return keras.backend.standardize_dtype(x.dtype) == "float16"


def steepest_at(x):
    """Returns the probability down to which `log_of_probabilities` has its true slope, for outputs of the type of `x`."""
    return STEEPEST_FLOAT16 if is_float16(x) else STEEPEST


def with_float16(ready, student):
    """Returns the pair `ready` of teacher and student, with a float16 student in its original type, which `steepest_at` depends on."""
    return (ready[0], student) if is_float16(student) else ready


def log_of_probabilities(p, steepest=STEEPEST):
    """Computes the logarithm of probabilities, with a gradient that is neither cut off nor infinite.

    Args:
        p: `(...)`, from 0 to 1, float32 or wider.
        steepest: Positive number. The slope is 1 / p down to here, and stays 1 / steepest below.

    Returns:
        `(...)`: log(p), of at least log(1e-37).
    """
    # Below `steepest` the logarithm is continued by its tangent. The distance from the logarithm is added as a constant; it is exactly 0
    # above.
    line = ops.log(ops.maximum(p, steepest)) + (ops.minimum(p / steepest, 1.0) - 1.0)
    return line + ops.stop_gradient(ops.log(ops.maximum(p, SMALLEST)) - line)


def as_logits(outputs, space):
    """Converts outputs over classes to logits.

    Args:
        outputs: `(..., classes)`.
        space: "logits", "log_probabilities" or "probabilities".

    Returns:
        `(..., classes)`. Log-probabilities are logits whose exponentials sum to one; a probability of zero counts as 1e-37, and its
        logarithm as -1e30.
    """
    if space == "probabilities":
        return log_of_probabilities(at_least_float32(outputs), steepest_at(outputs))
    return outputs if space == "logits" else ops.maximum(outputs, LOG_OF_ZERO)


def as_binary_logits(outputs, space):
    """Converts outputs of independent binary decisions to logits.

    Args:
        outputs: `(..., labels)`.
        space: "logits" or "probabilities".

    Returns:
        `(..., labels)`. Probabilities count as at least 1e-7 away from 0 and 1. Their gradient is not cut off there, so that confident
        mistakes are corrected.
    """
    if space == "logits":
        return outputs
    steepest, p = steepest_at(outputs), at_least_float32(outputs)
    kept = ops.clip(p, 1e-7, 1.0 - 1e-7)
    free = log_of_probabilities(p, steepest) - ops.log1p(-ops.minimum(p, LARGEST_BELOW_ONE))
    return free + ops.stop_gradient(ops.log(kept) - ops.log1p(-kept) - free)


def standardized(logits, least=0.0):
    """Scales logits to mean 0 and standard deviation 1 over the classes, so that their shift and scale do not matter.

    Sun et al. 2024, "Logit standardization in knowledge distillation", arXiv 2403.01427. The deviation is that of the population (divided
    by the number of classes n), as in the paper's formula. The authors' code takes the sample's (divided by n - 1), which makes all logits
    smaller by the factor sqrt((n - 1) / n).

    Args:
        logits: `(..., classes)`. Equal logits give zeros; a deviation of less than about 1e-5 of the largest logit (in float32) is
            rounding.
        least: Deviations below this are not scaled up to 1; the gradient is at most about 1 / least. A number, or `(..., 1)`.

    Returns:
        `(..., classes)`.
    """
    root = _root_of_count(logits)
    centred = logits - ops.mean(logits, axis=-1, keepdims=True)
    floor = root * ops.maximum(scaling.rounding(logits) * scaling.magnitude(logits, -1), least)
    return root * scaling.normalized(centred, floor)


def least_deviation(teacher_logits):
    """Computes the least deviation by which a student's logits are divided when they are standardized.

    A student whose last layer starts at zero has equal logits. Their deviation is 0, and the gradient of standardized logits is one over
    the deviation. One step of SGD along such a gradient moves the weights so far that later steps, whose gradients are then small, do not
    bring them back. A least deviation of 0.1, or of a tenth of the teacher's deviation where that is smaller than 1, bounds the gradient.
    As it scales with the teacher there, the loss does not change when both sides are scaled. A unit of logits is a factor e between two
    probabilities.

    Args:
        teacher_logits: `(..., classes)`.

    Returns:
        `(..., 1)`: 0.1 min(1, the teacher's deviation over the classes). Equal logits of the teacher count as a deviation of 1.
    """
    centred = teacher_logits - ops.mean(teacher_logits, axis=-1, keepdims=True)
    deviation = scaling.length(centred) / _root_of_count(teacher_logits)
    distinct = deviation > scaling.rounding(teacher_logits) * scaling.magnitude(teacher_logits, -1)
    return ops.stop_gradient(FLAT * ops.minimum(ops.where(distinct, deviation, 1.0), 1.0))


def _root_of_count(logits):
    return ops.sqrt(ops.cast(ops.shape(logits)[-1], logits.dtype))


def _rows_sum_to_one(values):
    return bool(np.all(values >= 0) and np.all(np.abs(values.sum(-1) - 1.0) <= SUM_TOLERANCE))


def class_space(values):
    """Finds out from values over classes which space they are in.

    Args:
        values: `(..., classes)`, NumPy array.

    Returns:
        "probabilities" or "log_probabilities" where every row is such a distribution, to 1e-3; else "logits".
    """
    values = np.asarray(values, "float64")
    if _rows_sum_to_one(values):
        return "probabilities"
    # Only values up to 0 are log-probabilities; exponentials of large logits would overflow.
    return "log_probabilities" if bool(np.all(values <= SUM_TOLERANCE)) and _rows_sum_to_one(np.exp(values)) else "logits"


def check_unmasked(owner, side, values):
    """Checks that no class is masked by a very low logit, beside which the others would be equal after standardization.

    Args:
        owner: Name of the loss, for the message.
        side: "teacher" or "student".
        values: `(..., classes)`, NumPy array of logits.

    Raises:
        ConfigurationError: if some logits are below -1e4 and others are not.
    """
    masked = np.asarray(values) < MASKED
    if masked.any() and not masked.all():
        raise ConfigurationError(
            f"{owner}: {int(masked.sum())} of the {side}'s {masked.size} logits are below {MASKED:g}, the lowest is {np.asarray(values).min():.4g}.",
            "logits of all classes: beside a masked class the others are equal once they are standardized",
            "set standardize=False, or leave the masked classes out of the outputs",
        )


def looks_binary(values):
    """Whether there are at least 16 values, not all equal and all between 0 and 1, as probabilities are and logits hardly ever are."""
    return values.size >= ENOUGH and values.min() < values.max() and bool(np.all((values >= 0) & (values <= 1)))
