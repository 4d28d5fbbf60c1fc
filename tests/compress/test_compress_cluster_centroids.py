"""The numbers of weight clustering: k-means against a plain NumPy one, and values and gradients against tensorflow-model-optimization."""

import numpy as np
import pytest

from tfdistill.bridge import imports
from tfdistill.bridge.wrappers.base import replaced_weights, variable_at
from tfdistill.bridge.wrappers.clustering import Clusters, cluster_layer
from tfdistill.compress.cluster.kmeans import INITIALIZATIONS, centroids

SAMPLES = {
    "normal": lambda rng: rng.normal(0, 0.1, (20, 30)),
    "laplace": lambda rng: rng.laplace(0, 0.1, (20, 30)),
    "two heaps": lambda rng: np.concatenate([rng.normal(-1, 0.01, 300), rng.normal(1, 0.01, 300)]),
}


def nearest(weights, found):
    return np.argmin(np.abs(np.ravel(weights)[:, None] - found), axis=1)


def cost(weights, found):
    return np.sum((np.ravel(weights) - np.asarray(found, "float64")[nearest(weights, found)]) ** 2)


def plain_k_means(weights, found, iterations=300):
    """k-means with a table of all distances."""
    weights, found = np.ravel(weights), np.array(found, "float64")
    for _ in range(iterations):
        members = nearest(weights, found)
        found = np.array([weights[members == i].mean() if np.any(members == i) else found[i] for i in range(len(found))])
    return found


@pytest.mark.parametrize("kind", SAMPLES)
@pytest.mark.parametrize("initialization", INITIALIZATIONS)
def test_the_centroids_are_the_means_of_their_members(kind, initialization, rng):
    weights = SAMPLES[kind](rng)
    found = centroids(weights, 8, initialization)
    assert found.dtype == "float32"
    assert found.shape == (8,)
    assert np.all(np.diff(found) > 0)
    np.testing.assert_allclose(found, plain_k_means(weights, found), atol=1e-6)


STARTS = {
    "linear": lambda w: np.linspace(w.min(), w.max(), 8),
    "density": lambda w: np.quantile(w, np.arange(1, 16, 2) / 16),
}


@pytest.mark.parametrize("kind", SAMPLES)
@pytest.mark.parametrize("initialization", STARTS)
def test_k_means_is_that_of_a_plain_one_from_the_same_start(kind, initialization, rng):
    weights = SAMPLES[kind](rng)
    np.testing.assert_allclose(centroids(weights, 8, initialization), plain_k_means(weights, STARTS[initialization](weights)), atol=1e-6)


def test_the_initializations_differ_and_a_good_one_costs_less(rng):
    weights = SAMPLES["laplace"](rng)
    found = {name: centroids(weights, 16, name) for name in INITIALIZATIONS}
    assert len({f.tobytes() for f in found.values()}) == len(INITIALIZATIONS)
    assert cost(weights, found["kmeans++"]) < cost(weights, found["linear"])
    assert cost(weights, found["linear"]) < cost(weights, np.linspace(weights.min(), weights.max(), 16))
    # Arthur and Vassilvitskii, 2007: choices far from each other find both heaps, whatever the seed.
    heaps = SAMPLES["two heaps"](rng)
    assert all(cost(heaps, centroids(heaps, 2, "kmeans++", seed)) < 0.1 for seed in range(10))


@pytest.mark.parametrize("initialization", ["kmeans++", "random"])
def test_the_seed_decides(initialization, rng):
    weights = SAMPLES["normal"](rng)
    one, same, other = (centroids(weights, 16, initialization, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert np.any(one != other)


@pytest.mark.parametrize("initialization", INITIALIZATIONS)
@pytest.mark.parametrize(
    ("weights", "expected"), [([], [0, 0, 0]), ([2, 2], [2, 2, 2]), ([3, 1, 3], [1, 3, 3]), ([5, 1, 3, 1], [1, 3, 5])], ids=str
)
def test_few_distinct_weights_are_their_own_centroids(weights, expected, initialization):
    np.testing.assert_array_equal(centroids(weights, 3, initialization), expected)


def clustered(weights, found, clusters):
    """A wrapped layer of one unit with the given kernel and centroids."""
    layer = imports.tf_keras().layers.Dense(clusters.shape[1], use_bias=False)
    wrapper = cluster_layer(layer, {"kernel": clusters})
    wrapper(np.zeros((1, clusters.shape[0]), "float32"))
    layer.kernel.assign(weights)
    wrapper.centroids["kernel"].assign(found)
    return wrapper


def test_values_and_gradients_are_those_of_tfmot(rng):
    import tensorflow as tf

    imports.tfmot()
    from tensorflow_model_optimization.python.core.clustering.keras.clustering_algorithm import ClusteringAlgorithm

    weights, x = rng.normal(size=(12, 9)).astype("float32"), rng.normal(size=(5, 12)).astype("float32")
    found = rng.permutation(np.linspace(-2, 2, 7)).astype("float32")  # trained centroids are in no order
    wrapper = clustered(weights, found, Clusters(7, (12, 9)))
    kernel, trained = wrapper.layer.kernel, wrapper.centroids["kernel"]
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(wrapper(x) ** 2)
    gradients = tape.gradient(loss, [kernel, trained])

    original, theirs = tf.Variable(weights), tf.Variable(found)
    algorithm = ClusteringAlgorithm(theirs)
    with tf.GradientTape() as tape:
        pulled = algorithm.get_clustered_weight(algorithm.get_pulling_indices(original), original)
        expected = tf.reduce_sum(tf.matmul(x, pulled) ** 2)
    expected_gradients = [tf.convert_to_tensor(g) for g in tape.gradient(expected, [original, theirs])]
    np.testing.assert_array_equal(wrapper.clustered("kernel"), pulled)
    np.testing.assert_array_equal(wrapper.members("kernel"), nearest(weights, found).reshape(weights.shape))
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    for one, other in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("axes", [(), (0,), (1,), (0, 1)])
def test_each_weight_is_pulled_to_the_nearest_centroid_of_its_channel(axes, rng):
    weights = rng.normal(size=(6, 4)).astype("float32")
    clusters = Clusters(3, (6, 4), axes)
    found = rng.normal(size=(clusters.channels, 3)).astype("float32")
    wrapper = clustered(weights, found.ravel(), clusters)
    channel = (
        np.ravel_multi_index([np.indices(weights.shape)[a] for a in axes], [weights.shape[a] for a in axes])
        if axes
        else np.zeros((6, 4), int)
    )
    for place, weight in np.ndenumerate(weights):
        own = found[channel[place]]
        assert wrapper.clustered("kernel")[place] == own[np.argmin(np.abs(own - weight))]


def test_a_masked_weight_is_zero_and_gets_no_gradient_nor_does_its_centroid_from_it(rng):
    import tensorflow as tf

    weights = rng.normal(size=(4, 3)).astype("float32")
    mask = rng.integers(0, 2, (4, 3)).astype("float32")
    wrapper = clustered(weights, [-0.5], Clusters(2, (4, 3), (), True))
    wrapper.masks["kernel"].assign(mask)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(wrapper(np.ones((1, 4), "float32")))
    kernel, trained = tape.gradient(loss, [wrapper.layer.kernel, wrapper.centroids["kernel"]])
    np.testing.assert_array_equal(wrapper.clustered("kernel"), np.where(mask, np.float32(-0.5), 0))
    np.testing.assert_array_equal(kernel, mask)
    np.testing.assert_array_equal(trained, [mask.sum()])


def test_an_error_leaves_the_weights_as_they_were(rng):
    wrapper = clustered(rng.normal(size=(4, 3)), [0, 1], Clusters(2, (4, 3)))
    kernel, weights = wrapper.layer.kernel, [id(w) for w in wrapper.layer.weights]
    with replaced_weights(wrapper.layer, {"kernel": np.zeros((4, 3))}):
        assert variable_at(wrapper.layer, "kernel") is not kernel
        with pytest.raises(ValueError, match="incompatible"):
            wrapper.layer(np.zeros((1, 5), "float32"))
    assert wrapper.layer.kernel is kernel
    assert [id(w) for w in wrapper.layer.weights] == weights
