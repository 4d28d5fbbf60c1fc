"""Finds the structure of a kernel that quantization-aware training keeps: the zeros of a pruned one, the few values of a clustered one."""

import typing

import numpy as np

from tfdistill.compress import kernels

# A kernel counts as clustered if it has at most this many values, ...
MOST_VALUES = 256
# ... and if its distinct values are at most this share of its weights that are not zero. Trained weights hardly ever repeat one another.
MOST_DISTINCT = 0.75


class Clustering(typing.NamedTuple):
    """The values of a clustered kernel.

    Attributes:
        values: Largest number of different values, in the whole kernel or in one of its channels.
        per_channel: Whether each output channel has values of its own.
        members: int32 array of the kernel's shape: the index of each weight's cluster.
        clusters: Number of clusters, those of all channels together.
    """

    values: int
    per_channel: bool
    members: np.ndarray
    clusters: int


def clustering(kernel, value):
    """Finds the clusters of a kernel, if it is clustered.

    It is clustered if it has 2 to `MOST_VALUES` different values, at least two of them not zero, and if these are at most `MOST_DISTINCT` of the number of its weights
    that are not zero: in the whole kernel, or else in every output channel.

    Args:
        kernel: The `kernels.Kernel`.
        value: Its array.

    Returns:
        A `Clustering`; None if it is not clustered.
    """
    # Most kernels have more values than that among their first weights, so sorting all of them is not needed.
    found = np.unique(value.reshape(-1)[: 4 * MOST_VALUES])
    if len(found) <= MOST_VALUES:
        found, members = np.unique(value, return_inverse=True)
    if _few(found, value):
        return Clustering(len(found), False, members.reshape(value.shape).astype("int32"), len(found))
    if kernel.kind != kernels.MATRIX or kernel.columns < 2:
        return None
    columns = kernel.matrix(value)
    matrix, most, count = np.empty(columns.shape, "int32"), 0, 0
    for i, column in enumerate(columns.T):
        found, members = np.unique(column, return_inverse=True)
        if not _few(found, column):
            return None
        matrix[:, i] = members.reshape(-1) + count
        most, count = max(most, len(found)), count + len(found)
    return Clustering(most, True, _unfolded(kernel, matrix), count)


def _unfolded(kernel, matrix):
    order = (*kernel.inputs, *kernel.outputs)
    return np.transpose(matrix.reshape([kernel.shape[axis] for axis in order]), np.argsort(order))


def _few(found, value):
    distinct = np.count_nonzero(found)
    return 2 <= distinct <= MOST_DISTINCT * np.count_nonzero(value) and len(found) <= MOST_VALUES


class Structure(typing.NamedTuple):
    """The structure of a kernel that can be kept.

    Attributes:
        zeros: Number of its zeros.
        clustering: Its `Clustering`, or None.
    """

    zeros: int
    clustering: Clustering | None


def structure(kernel, value):
    """Returns the `Structure` of a kernel. A kernel of zeros alone, as some layers are initialized, has none."""
    zeros = kernels.zeros(value)
    return Structure(0 if zeros == value.size else zeros, clustering(kernel, value))
