"""Logits, log-probabilities and probabilities: from one to the other, and how to tell that one was passed for another.

No function here guesses: the space is said by the caller, and the first batch is checked against what was said.
"""

import keras
import numpy as np
from keras import ops

from tfdistill.errors import ConfigurationError
from tfdistill.losses import scaling
from tfdistill.losses.reduction import at_least_float32

SPACES = ("logits", "log_probabilities", "probabilities")

# Below this a float32 logarithm leaves the normal numbers; a probability of zero counts as this.
SMALLEST = 1e-37
# What the logarithm of zero counts as: finite after division by a temperature.
NO_CHANCE = -1e30
# The largest float32 below one.
LARGEST_BELOW_ONE = 1.0 - 2.0**-24
# The probability at which the slope of the logarithm stops to grow: float16 has no larger gradients than 65504, and float32's times a loss's weight
# must stay finite. The softmax before it multiplies the slope by the probability, so nothing is lost.
STEEPEST, STEEPEST_FLOAT16 = scaling.SMALLEST, 2.0**-14
# A student's logits that deviate by less than this count as flat (see `least_deviation`).
FLAT = 0.1
# Values below this are masks, not logits.
MASKED = -1e4
# By how much the sum of a row of probabilities may differ from one (half precision sums to about this).
SUM_TOLERANCE = 1e-3
# Fewer sigmoid outputs than this may lie between 0 and 1 by chance.
ENOUGH = 16


def is_float16(x):
    """Whether a tensor is of type float16, whose range is too small for the gradients of logarithms."""
    return keras.backend.standardize_dtype(x.dtype) == "float16"


def steepest_at(x):
    """The probability down to which `log_of_probabilities` has its true slope, for outputs that came in the type of `x`."""
    return STEEPEST_FLOAT16 if is_float16(x) else STEEPEST


def with_float16(ready, student):
    """The pair `ready` of teacher and student, in which a float16 student stays as it came, so that `steepest_at` sees its type."""
    return (ready[0], student) if is_float16(student) else ready


def log_of_probabilities(p, steepest=STEEPEST):
    """Logarithm of probabilities, with a gradient that is neither cut off nor infinite.

    Args:
        p: `(...)`, from 0 to 1, float32 or wider.
        steepest: Positive number. The slope is 1 / p down to here, and stays 1 / steepest below.

    Returns:
        `(...)`: log(p), of at least log(1e-37).
    """
    # The tangent goes on below `steepest`; its distance from the logarithm is added as a constant, and is exactly 0 above.
    line = ops.log(ops.maximum(p, steepest)) + (ops.minimum(p / steepest, 1.0) - 1.0)
    return line + ops.stop_gradient(ops.log(ops.maximum(p, SMALLEST)) - line)


def as_logits(outputs, space):
    """Outputs over classes as logits.

    Args:
        outputs: `(..., classes)`, in the space said.
        space: "logits", "log_probabilities" or "probabilities".

    Returns:
        `(..., classes)`. Log-probabilities are logits whose exponentials sum to one; a probability of zero counts as 1e-37, and its logarithm as -1e30.
    """
    if space == "probabilities":
        return log_of_probabilities(at_least_float32(outputs), steepest_at(outputs))
    return outputs if space == "logits" else ops.maximum(outputs, NO_CHANCE)


def as_binary_logits(outputs, space):
    """Outputs of independent yes-no questions as logits.

    Args:
        outputs: `(..., labels)`, in the space said.
        space: "logits" or "probabilities".

    Returns:
        `(..., labels)`. Probabilities count as at least 1e-7 away from 0 and 1. Their gradient is not cut off there: a wrong answer that is sure is learned from
        too.
    """
    if space == "logits":
        return outputs
    steepest, p = steepest_at(outputs), at_least_float32(outputs)
    kept = ops.clip(p, 1e-7, 1.0 - 1e-7)
    free = log_of_probabilities(p, steepest) - ops.log1p(-ops.minimum(p, LARGEST_BELOW_ONE))
    return free + ops.stop_gradient(ops.log(kept) - ops.log1p(-kept) - free)


def standardized(logits, least=0.0):
    """Logits with mean 0 and standard deviation 1 over the classes, so that their shift and scale carry nothing.

    Sun et al. 2024, "Logit standardization in knowledge distillation", arXiv 2403.01427. The deviation is that of the population (divided by the number of
    classes), as in the paper's formula; the authors' code takes the sample's (divided by one less), which for n classes makes all logits smaller by the factor
    sqrt((n - 1) / n).

    Args:
        logits: `(..., classes)`. Equal logits give zeros; a deviation of less than about 1e-5 of the largest logit (in float32) is rounding.
        least: Deviations below this are not scaled up to 1; the gradient is at most about 1 / least. A number, or `(..., 1)`.

    Returns:
        `(..., classes)`.
    """
    root = _root_of_count(logits)
    centred = logits - ops.mean(logits, axis=-1, keepdims=True)
    floor = root * ops.maximum(scaling.rounding(logits) * scaling.magnitude(logits, -1), least)
    return root * scaling.normalized(centred, floor)


def least_deviation(teacher_logits):
    """The deviation below which a student's logits count as flat, and are not standardized in full.

    A student whose last layer starts at zero has equal logits. Their deviation is 0, the gradient of standardized logits is one over the deviation, and one step
    of SGD along such a gradient throws the weights so far that later steps, whose gradient is then as small, do not bring them back. A tenth of a unit, or of
    the teacher's deviation where that is smaller than one unit, bounds the gradient. In that form the floor scales with the teacher, so the loss stays
    unmoved when both sides are scaled. A unit is the logits' own: it is a factor e between two probabilities.

    Args:
        teacher_logits: `(..., classes)`.

    Returns:
        `(..., 1)`: 0.1 min(1, the teacher's deviation over the classes). Equal logits of the teacher count as a deviation of 1.
    """
    centred = teacher_logits - ops.mean(teacher_logits, axis=-1, keepdims=True)
    deviation = scaling.length(centred) / _root_of_count(teacher_logits)
    told_apart = deviation > scaling.rounding(teacher_logits) * scaling.magnitude(teacher_logits, -1)
    return ops.stop_gradient(FLAT * ops.minimum(ops.where(told_apart, deviation, 1.0), 1.0))


def _root_of_count(logits):
    return ops.sqrt(ops.cast(ops.shape(logits)[-1], logits.dtype))


def _rows_sum_to_one(values):
    return bool(np.all(values >= 0) and np.all(np.abs(values.sum(-1) - 1.0) <= SUM_TOLERANCE))


def class_space(values):
    """Tells from values over classes which space they are in.

    Args:
        values: `(..., classes)`, NumPy array.

    Returns:
        "probabilities" or "log_probabilities" where every row is such a distribution, to 1e-3; else "logits".
    """
    values = np.asarray(values, "float64")
    if _rows_sum_to_one(values):
        return "probabilities"
    # Exponentials of large logits overflow, and those are no log-probabilities.
    return "log_probabilities" if bool(np.all(values <= SUM_TOLERANCE)) and _rows_sum_to_one(np.exp(values)) else "logits"


def check_class_space(owner, side, values, space):
    """Checks that the values of a batch can be what the loss was told.

    Args:
        owner: Name of the loss.
        side: "teacher" or "student".
        values: `(..., classes)`, NumPy array.
        space: What the loss was told.

    Raises:
        ConfigurationError: if rows that are said to be logits are non-negative and sum to one within 1e-3, or
            rows that are said to be probabilities (or log-probabilities) do not.
    """
    values = np.asarray(values, "float64")
    found = class_space(values)
    # Log-probabilities are logits as well: a softmax gives the same distribution back.
    if found == space or (space == "logits" and found == "log_probabilities"):
        return
    sums = (np.exp(np.minimum(values, 700.0)) if space == "log_probabilities" else values).sum(-1)
    what = f"{owner}: the {side}'s outputs were said to be {space.replace('_', '-')}, but "
    if found == "logits":
        raise ConfigurationError(
            what
            + f"they range from {values.min():.4g} to {values.max():.4g} and their {'exponentials' if space != 'probabilities' else 'rows'}"
            f" sum to {sums.min():.4g} ... {sums.max():.4g}.",
            "rows that sum to one within 1e-3",
            f"say {side}_outputs='logits' if the last layer has no softmax",
        )
    raise ConfigurationError(
        what + f"every row is one of {found.replace('_', '-')} (it sums to one within 1e-3).",
        f"{space.replace('_', '-')}",
        f"say {side}_outputs={found!r}, or let the {side} end without its softmax",
    )


def check_unmasked(owner, side, values):
    """Checks that no class is masked by a very low logit, which would leave the others equal once they are standardized.

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
    """Whether at least 16 values, not all equal, lie between 0 and 1, as probabilities of yes-no answers do and logits hardly ever."""
    return values.size >= ENOUGH and values.min() < values.max() and bool(np.all((values >= 0) & (values <= 1)))


def check_binary_space(owner, side, values, space):
    """Checks that the values of a batch of yes-no outputs can be what the loss was told; arguments as in `check_class_space`.

    Raises:
        ConfigurationError: if probabilities leave 0 to 1, or at least 16 different logits all lie in it.
    """
    values = np.asarray(values, "float64")
    inside = bool(np.all((values >= 0) & (values <= 1)))
    if space == "probabilities" and not inside:
        raise ConfigurationError(
            f"{owner}: the {side}'s outputs were said to be probabilities, but they range from {values.min():.4g} to {values.max():.4g}.",
            "values from 0 to 1",
            f"say {side}_outputs='logits' if the last layer has no sigmoid",
        )
    if space == "logits" and looks_binary(values):
        raise ConfigurationError(
            f"{owner}: the {side}'s outputs were said to be logits, but all {values.size} of them lie between 0 and 1.",
            "logits, which have both signs",
            f"say {side}_outputs='probabilities', or let the {side} end without its sigmoid",
        )
