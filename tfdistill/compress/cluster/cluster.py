"""Weight clustering (weight sharing): the weights of each kernel take only a few values, which are trained.

Han, Mao and Dally, "Deep Compression: Compressing Deep Neural Networks with Pruning, Trained Quantization and Huffman Coding" (2016),
https://arxiv.org/abs/1510.00149, section 3.
"""

import dataclasses
import math
import typing

import numpy as np

from tfdistill.bridge.adopt import introspection
from tfdistill.bridge.adopt.adopt import AdoptedModel, adopt
from tfdistill.bridge.wrappers.clustering import Clusters, cluster_layer, is_clustered
from tfdistill.compress import kernels, rebuild
from tfdistill.compress.cluster.kmeans import INITIALIZATIONS, KMEANS, centroids
from tfdistill.compress.plan import DONE, IMPOSSIBLE, SKIPPED, LayerPlan, Plan
from tfdistill.compress.selection import select_values, selectors, settings_by_layer
from tfdistill.compress.step import AUTO, Step, frozen_note, is_whole, require_auto_or_bool, warn_of_frozen, why_no_kernel
from tfdistill.errors import ConfigurationError, InvariantError, ModelError


@dataclasses.dataclass(frozen=True)
class Cluster(Step):
    """Weight clustering: each kernel keeps at most `number_of_clusters` distinct values.

    A file gets smaller after compression (gzip), or when it stores an index a weight: log2(number_of_clusters) bits each instead of 32.
    Inference does not get faster.

    The values start as the centroids of a k-means over the kernel's weights. In training, each weight has the value of its nearest
    centroid. A centroid's gradient is the sum over its weights; the weights behind are trained as well, each with its own gradient, and the
    nearest centroid is looked up anew at every step, so weights change clusters while they are trained. After training, `strip` leaves the
    values alone. A sum over thousands of weights is large: take an optimizer that does not mind (Adam), or a small learning rate.

    Args:
        number_of_clusters: Number of distinct values of a kernel, 2 to 256; or a dict of selector (name, path or pattern; the first match
            wins, `"*"` is all the rest) to such a number. Layers that no selector matches are left as they are.
        initialization: Where k-means starts: `"kmeans++"`, `"density"`, `"linear"` or `"random"`; see `cluster_centroids.centroids`.
        layers: Which layers: a name or path, a pattern, a predicate of a layer, or a list of these. None is every layer with a kernel. Not
            together with a dict, which selects by itself.
        exclude: Which layers not; wins over `layers` and over a dict.
        preserve_sparsity: `"auto"` keeps the zeros of every kernel that comes in with any: zero is one of the values, and stays exactly
            zero. True does the same and insists that there are some. False lets them go.
        per_channel: Whether each output channel (unit, filter) has values of its own. Embeddings, and kernels with no more weights in a
            channel than clusters, share their values in the whole kernel, which the plan says.
        seed: Seed of the initializations that draw.

    Raises:
        ConfigurationError: if the settings contradict each other or are out of range.
    """

    number_of_clusters: typing.Any = 16
    initialization: str = KMEANS
    layers: typing.Any = None
    exclude: typing.Any = None
    preserve_sparsity: typing.Any = AUTO
    per_channel: bool = False
    seed: int = 0

    def __post_init__(self):
        clusters, given = settings_by_layer("number_of_clusters", self.number_of_clusters, "numbers", self.layers)
        if not all(is_whole(number, 2) and number <= 256 for number in given):
            raise ConfigurationError(f"number_of_clusters={clusters!r}.", "whole numbers from 2 to 256")
        if self.initialization not in INITIALIZATIONS:
            raise ConfigurationError(f"initialization={self.initialization!r}.", f"one of {', '.join(map(repr, INITIALIZATIONS))}")
        require_auto_or_bool(self, "preserve_sparsity")
        if not isinstance(self.per_channel, bool):
            raise ConfigurationError(f"per_channel={self.per_channel!r}.", "True or False")
        if not is_whole(self.seed, 0):
            raise ConfigurationError(f"seed={self.seed!r}.", "a whole number of at least 0")
        object.__setattr__(self, "number_of_clusters", clusters)
        object.__setattr__(self, "layers", selectors(self.layers, "layers"))
        object.__setattr__(self, "exclude", selectors(self.exclude, "exclude"))

    def plan(self, model):
        return self._plan(rebuild.open_model(model))[0]

    def apply(self, model):
        opened = rebuild.open_model(model)
        rebuild.refuse_wrapped(opened, "Cluster")
        rebuild.warn_of_own_training(model, "Cluster")
        rebuild.require_way_back(opened)
        plan, named, clusters = self._plan(opened)
        plan.require_work(named)
        if self.preserve_sparsity is True and not any(c.sparse for found in clusters.values() for c in found.values()):
            raise ModelError(
                f"preserve_sparsity=True, but no kernel of '{opened.adopted.name}' that would be clustered has a zero.",
                "a pruned model",
                "prune it first, or use 'auto'",
            )
        warn_of_frozen("Cluster moves weights", opened.adopted.name, opened.layers, clusters, named)

        def replace(path, layer):
            return cluster_layer(layer, clusters[path]) if path in clusters else layer

        adopted = adopt(rebuild.rebuild(opened.legacy, replace), original=opened.original, name=opened.adopted.name)
        for layer in clustered_layers(adopted):
            self._start(layer)
        return adopted

    def strip(self, model):
        if not isinstance(model, AdoptedModel) or not clustered_layers(model):
            raise ModelError(f"'{getattr(model, 'name', model)}' carries no clustering.", "the model that Cluster.apply returned")
        return rebuild.without_wrappers(model)

    def check(self, model):
        layers = rebuild.layers_by_name(model)
        numbers, _ = self._numbers(layers)
        wrong, zeros = [], 0
        for path, layer in layers.items():
            for kernel in kernels.kernels_of(layer) if path in numbers else ():
                value = rebuild.effective_weight(layer, kernel.attribute)
                clusters = self._clusters(kernel, value, numbers[path])
                found, zeros = _distinct(value, clusters), zeros + kernels.zeros(value)
                if found > clusters.count:
                    where = " in a channel" if clusters.channel_axes else ""
                    wrong.append(f"'{path}' {kernel.attribute}: {found:,} distinct values{where}, not {clusters.count}")
        if wrong:
            raise InvariantError(
                f"Kernels of '{model.name}' are not clustered: {'; '.join(wrong)}.",
                "at most number_of_clusters distinct values in each",
                "apply no later step that lets the values drift apart",
            )
        if self.preserve_sparsity is True and not zeros:
            raise InvariantError(f"No kernel of '{model.name}' has a zero.", "the zeros that clustering was to keep")

    def _numbers(self, layers):
        return select_values(layers, self.number_of_clusters, self.layers, self.exclude)

    def _clusters(self, kernel, value, number):
        """Returns the `Clusters` of one kernel, whether or not it has more weights than clusters."""
        per_channel = self.per_channel and kernel.kind != kernels.LOOKUP and kernel.rows > number
        sparse = self.preserve_sparsity is not False and kernels.zeros(value) > 0
        return Clusters(int(number), kernel.shape, kernel.outputs if per_channel else (), sparse)

    def _plan(self, opened):
        """Returns the plan, the paths that were named outright, and a dict of path to the `Clusters` of the layer's kernels."""
        layers, wanted, rows = opened.layers, {}, []
        numbers, named = self._numbers(layers)
        for path, layer in layers.items():
            found, reasons, zeros = {}, [], 0
            for kernel in kernels.kernels_of(layer) if path in numbers else ():
                value = rebuild.effective_weight(layer, kernel.attribute)
                clusters = self._clusters(kernel, value, numbers[path])
                if kernel.size <= clusters.count:
                    reasons.append(f"{kernel.attribute}: no more weights ({kernel.size}) than clusters ({clusters.count})")
                elif not value.any():
                    reasons.append(f"{kernel.attribute}: all weights are zero")
                else:
                    found[kernel.attribute] = clusters
                    reasons.append(f"{kernel.attribute}: {self._told(value, clusters)}")
                    zeros += kernels.zeros(value) if clusters.sparse else 0
            if found:
                wanted[path] = found
                reasons += frozen_note(layer, "so that no training makes up for it")
            if path not in numbers:
                reasons = [f"left out by {'number_of_clusters=' if isinstance(self.number_of_clusters, dict) else 'layers='} or exclude="]
            # A layer that is merely among those selected is skipped; one that was asked for by its name cannot be.
            action = DONE if found else IMPOSSIBLE if path in named else SKIPPED
            rows.append(LayerPlan.of(path, layer, action, "; ".join(reasons) or why_no_kernel(layer), zeros))
        return Plan(step=repr(self), model=opened.adopted.name, rows=tuple(rows)), named, wanted

    def _told(self, value, clusters):
        bits = max(1, math.ceil(math.log2(clusters.count)))
        size = math.ceil(value.size * bits / 8) + 4 * clusters.count * clusters.channels
        told = f"{value.size:,} weights of at most {clusters.count} values"
        if clusters.channel_axes:
            told += " per channel"
        elif self.per_channel:
            told += " in all channels together"
        told += f", {bits} bits each, {size:,} bytes with the values"
        return told + (f", {kernels.zeros(value):,} zeros kept" if clusters.sparse else "")

    def _start(self, layer):
        """Gives a new wrapper its centroids and masks, from the weights of the layer in it."""
        for path, clusters in layer.clusters.items():
            value = np.asarray(introspection.weight_named(layer, path))
            if clusters.sparse:
                layer.masks[path].assign(value != 0)
            rows = [row[row != 0] if clusters.sparse else row for row in _channels(value, clusters)]
            found = [centroids(row, clusters.centroids, self.initialization, self.seed) for row in rows]
            layer.centroids[path].assign(np.concatenate(found))


def clustered_layers(model):
    """Lists the clustering wrappers in an `AdoptedModel`, nested ones too."""
    return [layer for layer in model.legacy._flatten_layers() if is_clustered(layer)]


def _channels(value, clusters):
    return value.transpose(clusters.channels_first).reshape(clusters.channels, -1)


def _distinct(value, clusters):
    """Counts the distinct values of a kernel: the most of any channel."""
    return int(np.max(np.sum(np.diff(np.sort(_channels(value, clusters))) != 0, axis=-1))) + 1
