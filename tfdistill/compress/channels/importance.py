"""How much a channel counts, by the weights alone.

All criteria return, for each unit of a group, a number that is on average 1 in the group, so that groups can be compared.
"""

import numpy as np

from tfdistill.compress.channels.units import NONE


def normalized(scores):
    """Returns scores divided by their mean; ones where all are zero. NaN where one is NaN or infinite."""
    mean = float(np.mean(scores))
    if not np.isfinite(mean):
        return np.full_like(scores, np.nan)
    return scores / mean if mean > 0 else np.ones_like(scores)


def by_unit(trace, group, labels, values):
    """Adds up values of the elements of an axis for each unit of a group.

    Args:
        trace: `ChannelTrace`.
        group: `Group`.
        labels: Labels of the axis.
        values: Array with a number for each element, or with an array of equal shape for each.
    """
    found, roots = np.zeros((len(group.units), *values.shape[1:])), trace.units.find(labels)
    for column in roots.T:
        places = np.searchsorted(group.units, column)
        inside = (places < len(group.units)) & (column != NONE)
        inside[inside] = group.units[places[inside]] == column[inside]
        np.add.at(found, places[inside], values[inside])
    return found


def per_element(value, axis):
    """Returns an array as a matrix of at least float32 with a row for each element of an axis."""
    value = np.asarray(value)
    return np.moveaxis(value if value.dtype == "float64" else value.astype("float32", copy=False), axis, 0).reshape(value.shape[axis], -1)


def magnitude(trace, group, power):
    """Norm of the weights of a channel, in every kernel that makes, filters or reads it, and in gamma of BatchNormalization; each of them counts equally.

    All that a channel is coupled to is counted as by Fang et al., "DepGraph: towards any structural pruning" (2023), https://arxiv.org/abs/2301.12900.

    Args:
        trace: `ChannelTrace`.
        group: `Group`.
        power: 1 for the sum of magnitudes (Li et al. 2017, https://arxiv.org/abs/1608.08710), 2 for the Euclidean norm.
    """
    found = []
    for known, axis in group.weights:
        if known.kernel or known.gate:
            summed = by_unit(
                trace, group, known.axes[axis], (np.abs(per_element(known.variable.numpy(), axis)) ** power).sum(1, dtype="float64")
            )
            found.append(normalized(summed ** (1 / power)))
    return normalized(np.mean(found, 0)) if found else None


def scale(trace, group):
    """Magnitude of gamma of the BatchNormalizations behind a channel (Liu et al. 2017, https://arxiv.org/abs/1708.06519); None where there is none."""
    found = [
        normalized(by_unit(trace, group, known.axes[axis], np.abs(known.variable.numpy()))) for known, axis in group.weights if known.gate
    ]
    return normalized(np.mean(found, 0)) if found else None


def at_random(group, seed):
    """Random numbers, the baseline of every criterion."""
    return normalized(np.random.default_rng([seed, group.number]).uniform(0.5, 1.5, len(group.units)))
