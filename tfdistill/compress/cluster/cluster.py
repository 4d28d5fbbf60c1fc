"""Weight clustering (weight sharing): the weights of each kernel take only a few values, which are trained.

Han, Mao and Dally, "Deep Compression: Compressing Deep Neural Networks with Pruning, Trained Quantization and Huffman Coding" (2016),
https://arxiv.org/abs/1510.00149, section 3.
"""

import dataclasses
import math
import typing

import keras
import numpy as np

from tfdistill.bridge.adopt import introspection
from tfdistill.bridge.adopt.adopt import AdoptedModel, adopt
from tfdistill.bridge.wrappers.clustering import Clusters, cluster_layer, is_clustered
from tfdistill.compress import kernels, rebuild
from tfdistill.compress.cluster.kmeans import INITIALIZATIONS, KMEANS, centroids
from tfdistill.compress.dry_run import DryRunStep, unexportable, warn_of_findings
from tfdistill.compress.plan import DONE, IMPOSSIBLE, SKIPPED, LayerPlan, Plan
from tfdistill.compress.selection import Selection, select_values, settings_by_layer
from tfdistill.compress.step import (
    AUTO,
    AutoOrBool,
    frozen_note,
    require_applied,
    require_auto_or_bool,
    set_selectors,
    warn_of_frozen,
    why_left_out,
    why_no_kernel,
)
from tfdistill.errors import ConfigurationError, InvariantError, ModelError
from tfdistill.graph.layers import all_layers
from tfdistill.utils import validate


@dataclasses.dataclass(frozen=True, repr=False)
class Cluster(DryRunStep):
    """Weight clustering: each kernel keeps at most `number_of_clusters` distinct values.

    A file gets smaller after compression (gzip), or when it stores an index per weight: log2(number_of_clusters) bits each instead of 32.
    Inference does not get faster.

    The values start as the centroids of a k-means over the kernel's weights. In training, each weight has the value of its nearest
    centroid. A centroid's gradient is the sum over its weights. The original weights are trained as well, each with its own gradient, and the
    nearest centroid is looked up anew at every step, so weights change clusters during training. After training, `strip` writes the
    values into the kernels. A sum over thousands of weights is large: use an optimizer that normalizes gradients (Adam), or a small learning rate.

    Han, Mao and Dally, "Deep Compression" (2016), https://arxiv.org/abs/1510.00149, section 3.

    Args:
        number_of_clusters: Number of distinct values of a kernel, 2 to 256; or a dict of selector (name, path or pattern; the first match
            counts, `"*"` matches all the rest) to such a number. Layers that no selector matches are left as they are.
        initialization: Where k-means starts: `"kmeans++"`, at weights drawn far from each other; `"density"`, at evenly spaced quantiles;
            `"linear"`, evenly from the smallest to the largest weight; or `"random"`, at weights drawn uniformly.
        layers: Which layers: a name or path, a pattern, a predicate of a layer, or a list of these. None is every layer with a kernel. Not
            together with a dict, which selects by itself.
        exclude: Layers to leave as they are, in the same forms; overrides `layers` and a dict.
        preserve_sparsity: `"auto"` keeps the zeros of every kernel that has any: zero is one of the values, and stays exactly
            zero. True does the same, and requires that there are some. False does not keep them.
        per_channel: Whether each output channel (unit, filter) has values of its own. Embeddings, and kernels with no more weights in a
            channel than clusters, share their values in the whole kernel, which the plan says.
        seed: Seed of `"kmeans++"` and `"random"`.

    Raises:
        ConfigurationError: if the settings contradict each other or are out of range.

    Example:
        >>> cluster = tfdistill.compress.Cluster({"conv": 4, "logits": 8})
        >>> clustered = cluster.apply(student)
        >>> clustered.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        >>> history = clustered.fit(x, y, epochs=1, verbose=0)
        >>> smaller = cluster.strip(clustered)
        >>> cluster.check(smaller)
        >>> [len(np.unique(smaller.get_layer(name).kernel)) for name in ("conv", "logits")]
        [4, 8]
    """

    number_of_clusters: int | dict[str, int] = 16
    initialization: typing.Literal["kmeans++", "density", "linear", "random"] = KMEANS
    layers: Selection = None
    exclude: Selection = None
    preserve_sparsity: AutoOrBool = AUTO
    per_channel: bool = False
    seed: int = 0

    def __post_init__(self):
        clusters, given = settings_by_layer("number_of_clusters", self.number_of_clusters, "numbers", self.layers)
        if not all(validate.is_whole_number(number, 2, 256) for number in given):
            raise ConfigurationError(f"number_of_clusters={clusters!r}.", "whole numbers from 2 to 256")
        validate.one_of("initialization", self.initialization, INITIALIZATIONS)
        require_auto_or_bool(self, "preserve_sparsity")
        validate.boolean("per_channel", self.per_channel)
        validate.whole_number("seed", self.seed, at_least=0)
        object.__setattr__(self, "number_of_clusters", clusters)
        set_selectors(self)

    def apply(self, model: keras.Model, dry_run: bool = True) -> AdoptedModel:
        opened = rebuild.open_to_apply(model, "Cluster")
        rebuild.require_strippable(opened)
        plan, named, clusters = self._plan(opened, dry_run)
        plan.require_work(named)
        warn_of_findings(plan)
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

    def strip(self, model: AdoptedModel) -> keras.Model:
        require_applied(model, clustered_layers, "carries no clustering", "Cluster")
        return rebuild.without_wrappers(model)

    def check(self, model: keras.Model) -> None:
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
            raise InvariantError(f"No kernel of '{model.name}' has a zero.", "the zeros of the model that was clustered")

    def _numbers(self, layers):
        return select_values(layers, self.number_of_clusters, self.layers, self.exclude)

    def _clusters(self, kernel, value, number):
        """Returns the `Clusters` of one kernel, even if it has no more weights than clusters."""
        per_channel = self.per_channel and kernel.kind != kernels.LOOKUP and kernel.rows > number
        sparse = self.preserve_sparsity is not False and kernels.zeros(value) > 0
        return Clusters(int(number), kernel.shape, kernel.outputs if per_channel else (), sparse)

    def _plan(self, opened, dry_run):
        """Returns the plan, the paths that were named outright, and a dict of path to the `Clusters` of the layer's kernels."""
        layers, by_layer, rows = opened.layers, {}, []
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
                    reasons.append(f"{kernel.attribute}: {self._described(value, clusters)}")
                    zeros += kernels.zeros(value) if clusters.sparse else 0
            if found:
                by_layer[path] = found
                reasons += frozen_note(layer, "so that no training makes up for it")
            if path not in numbers:
                reasons = [why_left_out("number_of_clusters", self.number_of_clusters)]
            # Only a layer that was selected by its name is "impossible"; one that a pattern matches is skipped.
            action = DONE if found else IMPOSSIBLE if path in named else SKIPPED
            rows.append(LayerPlan.of(path, layer, action, "; ".join(reasons) or why_no_kernel(layer), zeros))
        findings = unexportable(opened) if dry_run else ()
        return Plan(step=repr(self), model=opened.adopted.name, rows=tuple(rows), findings=findings, custom=opened.custom), named, by_layer

    def _described(self, value, clusters):
        """Returns what the plan says of a kernel: its weights, its values, and its size if it stores an index per weight."""
        bits = max(1, math.ceil(math.log2(clusters.count)))
        size = math.ceil(value.size * bits / 8) + 4 * clusters.count * clusters.channels
        text = f"{value.size:,} weights of at most {clusters.count} values"
        if clusters.channel_axes:
            text += " per channel"
        elif self.per_channel:
            text += " in all channels together"
        text += f", {bits} bits each, {size:,} bytes with the values"
        return text + (f", {kernels.zeros(value):,} zeros kept" if clusters.sparse else "")

    def _start(self, layer):
        """Computes the centroids and masks of a new wrapper from the weights of its layer."""
        for path, clusters in layer.clusters.items():
            value = np.asarray(introspection.weight_named(layer, path))
            if clusters.sparse:
                layer.masks[path].assign(value != 0)
            rows = [row[row != 0] if clusters.sparse else row for row in _channels(value, clusters)]
            found = [centroids(row, clusters.centroids, self.initialization, self.seed) for row in rows]
            layer.centroids[path].assign(np.concatenate(found))


def clustered_layers(model):
    """Lists the clustering wrappers in an `AdoptedModel`, nested ones too."""
    return [layer for layer in all_layers(model.legacy) if is_clustered(layer)]


def _channels(value, clusters):
    return value.transpose(clusters.channels_first).reshape(clusters.channels, -1)


def _distinct(value, clusters):
    """Counts the distinct values of a kernel: the largest number in any set of centroids."""
    return int(np.max(np.sum(np.diff(np.sort(_channels(value, clusters))) != 0, axis=-1))) + 1
