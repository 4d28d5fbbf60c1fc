"""k-means over the weights of one kernel: the centroids from which weight clustering starts.

Weights are numbers on a line, so a cluster is an interval of the sorted weights. An iteration costs a binary search per centroid, whatever
the kernel's size, and needs no table of distances between weights and centroids. The initializers of tensorflow-model-optimization are not used:
no iterations follow them, the density-based one finds at most 30 centroids, and the random one takes no seed.
"""

import typing

import numpy as np

KMEANS: typing.Final = "kmeans++"
DENSITY: typing.Final = "density"
LINEAR: typing.Final = "linear"
RANDOM: typing.Final = "random"
INITIALIZATIONS = (KMEANS, DENSITY, LINEAR, RANDOM)

# The default of scikit-learn; a kernel converges in a few dozen.
_ITERATIONS = 300


def centroids(weights, count, initialization=KMEANS, seed=0):
    """Finds centroids with k-means (Lloyd's iterations), as Deep Compression does (Han et al., 2016, https://arxiv.org/abs/1510.00149).

    Args:
        weights: Array of any shape.
        count: Number of centroids, at least 1.
        initialization: Where the iterations start: `"kmeans++"`, at weights drawn far from each other (Arthur and Vassilvitskii, 2007,
            https://theory.stanford.edu/~sergei/papers/kMeansPP-soda.pdf); `"density"`, at evenly spaced quantiles; `"linear"`, evenly from
            the smallest to the largest weight, which keeps the few large weights; `"random"`, at weights drawn uniformly (Forgy).
        seed: Seed of `"kmeans++"` and `"random"`.

    Returns:
        float32 array of shape (count,), ascending. Where there are no more distinct weights than centroids, they are those weights, the
        largest one repeated; without weights, zeros.
    """
    values = np.sort(np.asarray(weights, "float64"), axis=None)
    distinct = np.unique(values)
    if not distinct.size:
        return np.zeros(count, "float32")
    if distinct.size <= count:
        return np.pad(distinct, (0, count - distinct.size), mode="edge").astype("float32")
    starts = {
        KMEANS: lambda: _plus_plus(values, count, seed),
        DENSITY: lambda: np.quantile(values, (np.arange(count) + 0.5) / count),
        LINEAR: lambda: np.linspace(values[0], values[-1], count),
        RANDOM: lambda: np.random.default_rng(seed).choice(distinct, count, replace=False),
    }
    return _lloyd(values, np.sort(starts[initialization]())).astype("float32")


def _plus_plus(values, count, seed):
    rng = np.random.default_rng(seed)
    chosen = [rng.choice(values)]
    squares = np.full(values.shape, np.inf)
    while len(chosen) < count:
        squares = np.minimum(squares, (values - chosen[-1]) ** 2)
        mass = np.cumsum(squares)
        # side="right" never chooses a weight of no mass, so every choice is a new weight.
        chosen.append(values[np.searchsorted(mass, rng.random() * mass[-1], side="right")])
    return np.array(chosen)


def _lloyd(values, found):
    sums = np.concatenate([[0.0], np.cumsum(values)])
    for _ in range(_ITERATIONS):
        edges = np.concatenate([[0], np.searchsorted(values, (found[1:] + found[:-1]) / 2), [values.size]])
        sizes = np.diff(edges)
        moved = np.where(sizes > 0, np.diff(sums[edges]) / np.maximum(sizes, 1), found)  # an empty cluster stays where it is
        if np.array_equal(moved, found):
            break
        found = moved
    return found
