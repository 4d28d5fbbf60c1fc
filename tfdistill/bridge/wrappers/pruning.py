"""A tf_keras wrapper under which a layer is pruned while it trains: any layer, any way of calling it, and any kernel inside it.

tensorflow-model-optimization's own, `PruneLowMagnitude`, takes a closed list of layers and one input; it drops masks of padded steps,
activity regularizers and half precision, counts a training step for every call of a shared layer, knows blocks for matrices alone, and
keeps too many weights where several are equally large. Its schedules, its variables and its handling of several devices are used as they are.

The classes derive from TFMOT's, so they are made at first use.
"""

import functools
import math
import types
import typing

from tfdistill.bridge import imports
from tfdistill.bridge.wrappers.base import TransparentWrapper, replaced_weights, variable_at

MAGNITUDE: typing.Final = "magnitude"
TAYLOR: typing.Final = "taylor"
FISHER: typing.Final = "fisher"
MOVEMENT: typing.Final = "movement"
# Weight of all earlier steps in the moving averages of scores by gradients.
DECAY = 0.9


class PrunedKernel(typing.NamedTuple):
    """Which weight of a layer is pruned, and how it is seen as a matrix of one column per output channel.

    Attributes:
        path: Where it is, from the layer on: `"kernel"`, `"cell.kernel"`.
        inputs: Axes that become the rows, the last one running fastest.
        outputs: Axes that become the columns.
        guarded: Whether every column keeps its largest weight, or block.
    """

    path: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    guarded: bool = True


class Pattern(typing.NamedTuple):
    """Which weights become zero together.

    Attributes:
        block: Rows and columns of a block that is kept or zeroed as a whole; (1, 1) for single weights.
        pooling: `"avg"` or `"max"`: what of its magnitudes a block is measured by.
        n_of_m: At most n of every m consecutive weights along the last input axis stay; None for no such rule.
    """

    block: tuple[int, int] = (1, 1)
    pooling: str = "avg"
    n_of_m: tuple[int, int] | None = None


def prune_layer(layer, kernels, pattern, schedule, criterion=MAGNITUDE):
    """Wraps a tf_keras layer so that it is pruned while it trains.

    Args:
        layer: tf_keras layer; it need not be built.
        kernels: List of `PrunedKernel`.
        pattern: `Pattern`.
        schedule: TFMOT's `PruningSchedule`.
        criterion: Which weights stay: those of the largest magnitude, or of the largest score by gradients; see `Prune`.

    Returns:
        A `PrunedLayer`, whose `update_masks` is to be called once before each training step.
    """
    return pruned_layer_class()(layer, kernels, pattern, criterion, pruning_schedule=schedule)


@functools.cache
def pruned_layer_class():
    """Returns the class `PrunedLayer`: a tf_keras wrapper around one layer."""
    imports.tfmot()
    import tensorflow as tf
    from tensorflow_model_optimization.python.core.sparsity.keras import pruning_impl, pruning_wrapper

    tfk = imports.tf_keras()

    class Masks(pruning_impl.Pruning):
        """Computes the masks of one layer's kernels."""

        def __init__(self, kernels, pattern, scores, **kwargs):
            super().__init__(block_size=(1, 1), block_pooling_type="AVG", **kwargs)
            self._pattern = pattern
            self._scored = {
                id(weight): (mask, scores.get(kernel.path)) for (weight, mask, _), kernel in zip(self._pruning_vars, kernels, strict=True)
            }
            self._kernels = {id(weight): kernel for (weight, _, _), kernel in zip(self._pruning_vars, kernels, strict=True)}

        def _maybe_update_block_mask(self, weights):
            kernel = self._kernels[id(weights)]
            order = (*kernel.inputs, *kernel.outputs)
            shape = [weights.shape[axis] for axis in order]
            rows = math.prod(shape[: len(kernel.inputs)])
            magnitudes = tf.reshape(tf.transpose(self._magnitudes(weights), order), (rows, -1))
            threshold, mask = self._update_mask(self._scores(magnitudes, shape[len(kernel.inputs) - 1], kernel.guarded))
            height, width = self._pattern.block
            mask = tf.repeat(tf.repeat(mask, height, axis=0), width, axis=1)[: magnitudes.shape[0], : magnitudes.shape[1]]
            mask = tf.transpose(tf.reshape(mask, shape), [order.index(axis) for axis in range(len(order))])
            return tf.cast(threshold, weights.dtype), tf.cast(mask, weights.dtype)

        def _magnitudes(self, weights):
            """Returns by what weights are ranked, not negative: their magnitude, or their score, below which all are that are zero already."""
            mask, scores = self._scored[id(weights)]
            if scores is None:
                return tf.abs(tf.cast(weights, tf.float32))
            return tf.where(mask > 0, scores - tf.reduce_min(scores) + 1e-30, 0.0)

        def _scores(self, magnitudes, consecutive, guarded):
            """Returns the scores of weights or blocks, those that must stay above all others."""
            scores, must = magnitudes, None
            if self._pattern.n_of_m is not None:
                must = self._largest_of_groups(magnitudes, consecutive)
            elif self._pattern.block != (1, 1):
                pool = tf.reduce_max if self._pattern.pooling == "max" else tf.reduce_sum
                scores = self._pooled(magnitudes, pool)
                if self._pattern.pooling == "avg":
                    scores /= self._pooled(tf.ones_like(magnitudes), tf.reduce_sum)
            if must is None and guarded:
                must = tf.one_hot(tf.argmax(scores, axis=0), scores.shape[0], axis=0, on_value=True, off_value=False)
            return scores if must is None else tf.where(must, tf.float32.max, scores)

        def _pooled(self, magnitudes, pool):
            (height, width), (rows, columns) = self._pattern.block, magnitudes.shape
            # Padded at the end: TFMOT's pooling pads on both sides, and so measures other blocks than those it zeroes.
            padded = tf.pad(magnitudes, ((0, -rows % height), (0, -columns % width)))
            return pool(tf.reshape(padded, (-1, height, padded.shape[1] // width, width)), axis=(1, 3))

        def _largest_of_groups(self, magnitudes, consecutive):
            n, m = self._pattern.n_of_m
            columns = magnitudes.shape[1]
            # (places, inputs, columns), the inputs padded to whole groups with a value below any magnitude.
            padded = tf.pad(
                tf.reshape(magnitudes, (-1, consecutive, columns)), ((0, 0), (0, -consecutive % m), (0, 0)), constant_values=-1.0
            )
            groups = tf.transpose(tf.reshape(padded, (padded.shape[0], -1, m, columns)), (0, 1, 3, 2))
            chosen = tf.reduce_any(tf.one_hot(tf.math.top_k(groups, n).indices, m, on_value=True, off_value=False), axis=-2)
            chosen = tf.reshape(tf.transpose(chosen, (0, 1, 3, 2)), (padded.shape[0], -1, columns))
            return tf.reshape(chosen[:, :consecutive], magnitudes.shape)

        def _update_mask(self, weights):
            """Returns the lowest score that stays, and a mask of exactly as many ones as the sparsity of this step leaves."""
            sparsity = self._pruning_schedule(self._step_fn())[1]
            size = tf.size(weights)
            kept = tf.cast(tf.round(tf.cast(size, tf.float32) * (1.0 - sparsity)), tf.int32)
            required = tf.reduce_sum(tf.cast(weights == tf.float32.max, tf.int32))
            values, places = tf.math.top_k(tf.reshape(weights, [-1]), tf.maximum(tf.maximum(kept, required), 1))
            mask = tf.scatter_nd(places[:, None], tf.ones_like(values), size[None])
            return values[-1], tf.reshape(mask, weights.shape)

    @tfk.utils.register_keras_serializable("tfdistill")
    class PrunedLayer(TransparentWrapper, pruning_wrapper.PruneLowMagnitude):
        """Runs a layer some of whose weights are masked.

        Args:
            layer: tf_keras layer; it need not be built.
            kernels: List of `PrunedKernel`, or of lists of its fields.
            pattern: `Pattern`, or a list of its fields.
            criterion: `MAGNITUDE`, `TAYLOR`, `FISHER` or `MOVEMENT`.
        """

        step = "pruning"

        def __init__(self, layer, kernels, pattern, criterion=MAGNITUDE, **kwargs):
            # In a namespace, or tf_keras would wrap the tuples.
            settings = types.SimpleNamespace(
                kernels=[PrunedKernel(path, tuple(inputs), tuple(outputs), guarded) for path, inputs, outputs, guarded in kernels],
                pattern=Pattern(*(tuple(field) if isinstance(field, (list, tuple)) else field for field in pattern)),
                criterion=criterion,
                scores={},
                products={},
            )
            # TFMOT looks for this method on layers of classes that it does not know.
            layer.get_prunable_weights = lambda: [variable_at(layer, kernel.path) for kernel in settings.kernels]
            super().__init__(layer, **kwargs)
            self._settings = settings
            self._autocast = False  # the layer casts by itself
            self.become_like(layer)

        def masked_weights(self):
            return [(weight, mask) for weight, mask, _ in self.pruning_vars]

        def build(self, input_shape=None):
            # The layer is built by its own first call, which alone knows all of its inputs; the masks come after that.
            self.built = True

        def call(self, *args, **kwargs):
            if not self.pruning_vars:
                outputs = self.layer(*args, **kwargs)
                with tf.init_scope():
                    self._add_masks()
                return outputs
            self.add_update(self.pruning_obj.weight_mask_op())
            with replaced_weights(self.layer, {path: self._watched(path) for path in self._settings.products}):
                return self.layer(*args, **kwargs)

        def _watched(self, path):
            """Returns a weight as a tensor whose gradients, times the weight, are added up until the next step."""
            products = self._settings.products[path]

            @tf.custom_gradient
            def watch(weight):
                def gradient(upstream):
                    upstream = tf.convert_to_tensor(upstream)  # of a table it has the rows that were looked up
                    # Not in half precision, in which the product of a weight and a scaled gradient may be infinite.
                    products.assign_add(tf.cast(weight, tf.float32) * tf.cast(upstream, tf.float32))
                    return upstream

                return tf.identity(weight), gradient

            return watch(tf.convert_to_tensor(variable_at(self.layer, path)))

        def _score(self):
            """Takes what the last step has shown into the scores."""
            settings = self._settings
            for path, score in settings.scores.items():
                product = settings.products[path]
                # A step whose scaled gradients are infinite changes no weight: the optimizer leaves it out.
                shown = tf.where(tf.reduce_all(tf.math.is_finite(product)), product, tf.zeros_like(product))
                if settings.criterion == MOVEMENT:
                    score.assign_sub(shown)
                else:
                    change = tf.abs(shown) if settings.criterion == TAYLOR else tf.square(shown) / 2
                    score.assign(DECAY * score + (1 - DECAY) * change)
                product.assign(tf.zeros_like(product))

        def _add_masks(self):
            super().build(None)
            for kernel in self._settings.kernels if self._settings.criterion != MAGNITUDE else ():
                shape, name = variable_at(self.layer, kernel.path).shape, kernel.path.replace(".", "_")
                for kind, held in (("score", self._settings.scores), ("product", self._settings.products)):
                    held[kernel.path] = self.add_weight(f"{name}_{kind}", shape, "float32", initializer="zeros", trainable=False)
            self.pruning_obj = Masks(
                self._settings.kernels,
                self._settings.pattern,
                self._settings.scores,
                training_step_fn=lambda: self.pruning_step,
                pruning_vars=self.pruning_vars,
                pruning_schedule=self.pruning_schedule,
            )

        def update_masks(self):
            """Counts a training step, and computes the masks anew if the schedule says so."""
            self.pruning_step.assign(self.pruning_step + 1)
            self._score()
            self.pruning_obj.conditional_mask_update()

        @classmethod
        def from_config(cls, config, custom_objects=None):
            return pruning_wrapper.PruneLowMagnitude.from_config.__func__(cls, config)  # which reads the schedule

        def get_config(self):
            settings = self._settings
            found = {**super().get_config(), "kernels": [list(k) for k in settings.kernels], "pattern": list(settings.pattern)}
            return found if settings.criterion == MAGNITUDE else {**found, "criterion": settings.criterion}

    return PrunedLayer
