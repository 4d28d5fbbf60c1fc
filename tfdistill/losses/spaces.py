"""Logits, log-probabilities and probabilities: from one to the other, and how to tell that one was passed for another.

No function here guesses: the space is said by the caller, and the first batch is checked against what was said.
"""

import numpy as np
from keras import ops

from tfdistill.errors import ConfigurationError

SPACES = ("logits", "log_probabilities", "probabilities")

# Below this a float32 logarithm leaves the normal numbers; a probability of zero counts as this.
SMALLEST = 1e-37
# By how much the sum of a row of probabilities may differ from one (half precision sums to about this).
SUM_TOLERANCE = 1e-3
# Fewer sigmoid outputs than this may lie between 0 and 1 by chance.
ENOUGH = 16


def as_logits(outputs, space):
    """Outputs over classes as logits.

    Args:
        outputs: `(..., classes)`, in the space said.
        space: "logits", "log_probabilities" or "probabilities".

    Returns:
        `(..., classes)`. Log-probabilities are logits whose exponentials sum to one; a probability of zero counts as 1e-37.
    """
    if space == "probabilities":
        return ops.log(ops.maximum(outputs, SMALLEST))
    return outputs if space == "logits" else ops.maximum(outputs, float(np.log(SMALLEST)))


def as_binary_logits(outputs, space):
    """Outputs of independent yes-no questions as logits.

    Args:
        outputs: `(..., labels)`, in the space said.
        space: "logits" or "probabilities".

    Returns:
        `(..., labels)`. Probabilities are kept 1e-7 away from 0 and 1, where float32 cannot tell more.
    """
    if space == "logits":
        return outputs
    p = ops.clip(outputs, 1e-7, 1.0 - 1e-7)
    return ops.log(p) - ops.log1p(-p)


def standardized(logits):
    """Logits with mean 0 and standard deviation 1 over the classes (population form), so that their shift and scale carry nothing.

    Sun et al. 2024, "Logit standardization in knowledge distillation", arXiv 2403.01427.

    Args:
        logits: `(..., classes)`. Equal logits give zeros.

    Returns:
        `(..., classes)`.
    """
    centred = logits - ops.mean(logits, axis=-1, keepdims=True)
    # The smallest constant whose root is still harmless in the gradient of equal logits.
    return centred * ops.rsqrt(ops.mean(ops.square(centred), axis=-1, keepdims=True) + 1e-12)


def _rows_sum_to_one(values):
    return bool(np.all(values >= 0) and np.all(np.abs(values.sum(-1) - 1.0) <= SUM_TOLERANCE))


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
    distribution = _rows_sum_to_one(values)
    # Exponentials of large logits overflow, and those are no log-probabilities.
    log_distribution = bool(np.all(values <= SUM_TOLERANCE)) and _rows_sum_to_one(np.exp(values))
    found = "probabilities" if distribution else "log_probabilities" if log_distribution else "logits"
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
    if space == "logits" and inside and values.size >= ENOUGH and values.min() < values.max():
        raise ConfigurationError(
            f"{owner}: the {side}'s outputs were said to be logits, but all {values.size} of them lie between 0 and 1.",
            "logits, which have both signs",
            f"say {side}_outputs='probabilities', or let the {side} end without its sigmoid",
        )
