"""A tf_keras wrapper under which a layer computes with clustered kernels.

tensorflow-model-optimization's own wrapper, `ClusterWeights`, is not used. It takes a closed list of layers and one input, and drops masks
and the training mode; it puts tensors into the layer's attributes for good, so that the kernel leaves the layer's weights; it looks for its
centroids when it is built, before the weights are there; its zeros are held by constants that no checkpoint has; its lookup makes a table
of weights times clusters, and its gradients a row for every weight. What is computed is the same: each weight is pulled to its nearest
centroid, the gradient of a centroid is the sum over its members (Han et al., 2016, https://arxiv.org/abs/1510.00149, section 3.3), and the
weight itself gets its own gradient, straight through, so that it can move over to another cluster.

The class derives from tf_keras's, so it is made at first use.
"""

import dataclasses
import functools
import math
import types

from tfdistill.bridge import imports
from tfdistill.bridge.wrappers.base import TransparentWrapper, replaced_weights, variable_at


@dataclasses.dataclass(frozen=True)
class Clusters:
    """How one kernel is clustered.

    Attributes:
        count: Number of values that the kernel (or each of its channels) may have, the zero of a sparse one included.
        shape: The kernel's shape.
        channel_axes: Its axes that count output channels, each of which has centroids of its own; empty for one set of centroids.
        sparse: Whether the zeros that it has at the start stay.
    """

    count: int
    shape: tuple[int, ...]
    channel_axes: tuple[int, ...] = ()
    sparse: bool = False

    @property
    def channels(self):
        """Number of sets of centroids."""
        return math.prod(self.shape[axis] for axis in self.channel_axes)

    @property
    def centroids(self):
        """Number of trained centroids in a set: zero takes the place of one."""
        return self.count - self.sparse

    @property
    def channels_first(self):
        """Permutation of the kernel's axes that puts those of the channels first."""
        return self.channel_axes + tuple(axis for axis in range(len(self.shape)) if axis not in self.channel_axes)


def _read(fields):
    """Makes `Clusters` of the list of its fields that a config holds."""
    return Clusters(*(tuple(field) if isinstance(field, (list, tuple)) else field for field in fields))


def is_clustered(layer):
    """Whether `layer` is the clustering wrapper of this library. Does not import tf_keras when it was never used."""
    return isinstance(layer, TransparentWrapper) and layer.step == "clustering"


@functools.cache
def clustered_layer_class():
    """Returns the class `ClusteredLayer`: a tf_keras wrapper around one layer."""
    import tensorflow as tf

    tfk = imports.tf_keras()

    @tf.custom_gradient
    def pull(weight, centroids, members):
        """Returns the centroid of each weight. All the gradients of a centroid's members are its own; each weight gets its own as well."""

        def gradient(upstream):
            return upstream, tf.math.unsorted_segment_sum(upstream, members, tf.size(centroids)), None

        return tf.gather(centroids, members), gradient

    @tfk.utils.register_keras_serializable("tfdistill")
    class ClusteredLayer(TransparentWrapper, tfk.layers.Wrapper):
        """Runs a layer with weights pulled to their nearest centroids. The layer keeps its own weights, which are trained as well.

        Args:
            layer: tf_keras layer; it need not be built.
            clusters: Dict of a weight's path from the layer (`"kernel"`, `"cell.kernel"`) to `Clusters`, or to a list of its fields.
        """

        step = "clustering"

        def __init__(self, layer, clusters, **kwargs):
            super().__init__(
                layer, autocast=False, **{"name": f"cluster_{layer.name}", "trainable": layer.trainable, "dtype": "float32", **kwargs}
            )
            self.become_like(layer)
            # In a namespace, or tf_keras would wrap the dict.
            found = {path: given if isinstance(given, Clusters) else _read(given) for path, given in clusters.items()}
            self._clustering = types.SimpleNamespace(clusters=found, centroids={}, masks={})

        @property
        def clusters(self):
            """Dict of a weight's path to `Clusters`."""
            return self._clustering.clusters

        @property
        def masks(self):
            """Dict of a sparse weight's path to the variable that is 0 where the weight is to be 0, and 1 elsewhere."""
            return self._clustering.masks

        @property
        def centroids(self):
            """Dict of a weight's path to the variable of its centroids, one channel's after another's."""
            return self._clustering.centroids

        def own_variables(self):
            return [*self.centroids.values(), *self.masks.values()]

        def masked_weights(self):
            return [(variable_at(self.layer, path), mask) for path, mask in self.masks.items()]

        def effective_values(self):
            return {id(variable_at(self.layer, path)): self.clustered(path) for path in self.clusters}

        def build(self, input_shape=None):
            # The layer itself is built by its own first call, which alone knows all of its inputs.
            for path, clusters in self.clusters.items():
                name = path.replace(".", "_")
                self.centroids[path] = self.add_weight(f"{name}_centroids", (clusters.channels * clusters.centroids,), initializer="zeros")
                if clusters.sparse:
                    self.masks[path] = self.add_weight(f"{name}_mask", clusters.shape, initializer="ones", trainable=False)
            self.built = True

        def call(self, *args, **kwargs):
            if not self.layer.built:
                self.layer(*args, **kwargs)  # attention has no kernels before
            with replaced_weights(self.layer, {path: self.clustered(path) for path in self.clusters}):
                return self.layer(*args, **kwargs)

        def clustered(self, path):
            """Returns the weight as the layer computes with it: a float32 tensor."""
            weight = tf.cast(tf.convert_to_tensor(variable_at(self.layer, path)), "float32")
            pulled = pull(weight, tf.convert_to_tensor(self.centroids[path]), self.members(path))
            # Not a product, which makes a zero of a negative one.
            return tf.where(self.masks[path] > 0, pulled, 0.0) if path in self.masks else pulled

        def members(self, path):
            """Returns, for each weight, the index of its nearest centroid: an int32 tensor of the weight's shape."""
            clusters = self.clusters[path]
            order = clusters.channels_first
            weight = tf.cast(tf.convert_to_tensor(variable_at(self.layer, path)), "float32")
            rows = tf.reshape(tf.transpose(weight, order), (clusters.channels, -1))
            centroids = tf.reshape(self.centroids[path], (clusters.channels, clusters.centroids))
            ranks = tf.argsort(centroids)
            ascending = tf.gather(centroids, ranks, batch_dims=1)
            # On a line, the nearest centroid is found between the midpoints.
            positions = tf.searchsorted((ascending[:, 1:] + ascending[:, :-1]) / 2, rows)
            found = tf.gather(ranks, positions, batch_dims=1) + clusters.centroids * tf.range(clusters.channels)[:, None]
            found = tf.reshape(found, [clusters.shape[axis] for axis in order])
            return tf.transpose(found, [order.index(axis) for axis in range(len(order))])

        def get_config(self):
            return {
                **super().get_config(),
                "clusters": {path: list(dataclasses.astuple(clusters)) for path, clusters in self.clusters.items()},
            }

    return ClusteredLayer


def cluster_layer(layer, clusters):
    """Wraps a tf_keras layer so that it computes with clustered weights; the centroids are zeros at first.

    Args:
        layer: tf_keras layer.
        clusters: Dict of a weight's path to `Clusters`.

    Returns:
        A `ClusteredLayer`.
    """
    return clustered_layer_class()(layer, clusters)
