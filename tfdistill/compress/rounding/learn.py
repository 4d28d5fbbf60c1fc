"""Learns the rounding of the weights of one layer, by gradient descent on minibatches of the calls that were seen of it."""

import typing

import keras
import numpy as np

from tfdistill.bridge import layer_facts
from tfdistill.bridge.wrappers.given_weights import given_weights
from tfdistill.compress.rounding.calls import first_of
from tfdistill.compress.rounding.functions import beta_at, inverse, rectified_sigmoid, regularizer

# Rate of Adam, such that a variable can go from one end to the other in a fifth of the steps; but no faster than a step of this size.
_WAY, _MOST_RATE = 10.0, 0.1
# How strong the regularizer is beside the error of rounding to nearest.
_STRENGTH = 1.0
# So many outputs are in a minibatch, in samples from the least to the most.
_ROWS, _LEAST_SAMPLES, _MOST_SAMPLES = 2048, 16, 128
# Samples whose error is measured at once, and steps that are counted at once.
_MEASURED, _COUNTED = 64, 10


class Learned(typing.NamedTuple):
    """The rounded weights of one layer.

    Attributes:
        weights: Dict of a weight's path to its float32 array, rounded.
        nearest_error: Mean over the samples of the squared error of the outputs, with the weights rounded to the nearest of the steps that the largest weight gives.
        error: The same with `weights`.
        learned: Whether they are learned, and not the nearest ones.
        power: Mean over the samples of the squared distance of the float outputs from their mean.
    """

    weights: dict
    nearest_error: float
    error: float
    learned: bool
    power: float


class Rounding:
    """The rounding of one layer, to be learned.

    Args:
        layer: The quantized layer.
        run: Function of (args, kwargs, sums) that computes what is compared.
        calls: List of `Call`: what the layer is called on with all samples, for each time that it runs.
        targets: List of tensors: what the float model gives there.
        grids: Dict of a weight's path to its `Grid`.
        nearest: Dict of a weight's path to the array that the layer has without this.
    """

    def __init__(self, layer, run, calls, targets, grids, nearest):
        import tensorflow as tf

        self._layer, self._run, self._calls, self._targets, self._grids, self._nearest = layer, run, calls, targets, grids, nearest
        self.count = int(targets[0].shape[0])
        # Traced here: a function that is traced when it is called warns where there are several like it.
        weights = {path: tf.TensorSpec(grid.part.shape, tf.float32) for path, grid in grids.items()}
        self._error = tf.function(self._error_of, autograph=False).get_concrete_function(tf.TensorSpec((None,), tf.int64), weights)

    def learn(self, steps, seed, advance):
        """Learns the rounding.

        Args:
            steps: Number of steps.
            seed: Seed of the order of the samples: an int or a sequence of these.
            advance: Function of a number of steps, called as they are taken.

        Returns:
            `Learned`.
        """
        grids = self._grids
        known = [
            (self._mean_error(weights), learned, weights)
            for learned, weights in (
                (False, self._nearest),
                (False, {path: grid.rounded(grid.nearest) for path, grid in grids.items()}),
            )
        ]
        nearest_error = known[0][0]
        if min(error for error, _, _ in known) > 0:
            up = self._descend(steps, np.random.default_rng(seed), min(error for error, _, _ in known), advance)
            weights = {path: grid.rounded(up[path]) for path, grid in grids.items()}
            known.append((self._mean_error(weights), True, weights))
        else:
            advance(steps)
        error, learned, weights = min(known, key=lambda found: found[0])
        return Learned(weights, nearest_error, error, learned, self._power())

    def _descend(self, steps, rng, scale, advance):
        """Returns a dict of a weight's path to whether each weight is rounded up, as 0.0 and 1.0."""
        import tensorflow as tf

        variables = {path: keras.Variable(inverse(grid.part), name="rounding") for path, grid in self._grids.items()}
        optimizer = keras.optimizers.Adam(min(_MOST_RATE, _WAY / steps))
        optimizer.build(list(variables.values()))
        # With an error of about one for each weight, rates and strengths are those of any layer.
        share = sum(grid.part.size for grid in self._grids.values()) / scale

        def step(index, beta, strength):
            with tf.GradientTape() as tape:
                ups = {path: rectified_sigmoid(variable.value) for path, variable in variables.items()}
                pulled = sum(regularizer(up, beta) for up in ups.values())
                loss = share * self._error_of(index, {path: _soft(self._grids[path], up) for path, up in ups.items()}) + strength * pulled
            values = [variable.value for variable in variables.values()]
            optimizer.apply(tape.gradient(loss, values), list(variables.values()))

        scalar = tf.TensorSpec((), tf.float32)
        size = self._batch()
        stepping = tf.function(step, autograph=False).get_concrete_function(tf.TensorSpec((size,), tf.int64), scalar, scalar)
        for number in range(steps):
            beta = beta_at(number / steps)
            index = np.sort(rng.choice(self.count, size, replace=False))
            strength = 0.0 if beta is None else _STRENGTH
            stepping(tf.constant(index), tf.constant(beta or 1.0, tf.float32), tf.constant(strength, tf.float32))
            if (number + 1) % _COUNTED == 0:
                advance(_COUNTED)
        advance(steps % _COUNTED)
        return {path: (np.asarray(rectified_sigmoid(v.value)) >= 0.5).astype("float32") for path, v in variables.items()}

    def _batch(self):
        rows = max(1, int(np.prod(self._targets[0].shape[1:-1])))
        return int(min(self.count, max(_LEAST_SAMPLES, min(_MOST_SAMPLES, _ROWS // rows))))

    def _error_of(self, index, weights):
        """Returns the squared error of the outputs for some samples: the mean over samples and positions of the sum over channels, and the mean over calls."""
        import tensorflow as tf

        errors = []
        with given_weights({id(self._layer): weights}):
            for call, target in zip(self._calls, self._targets, strict=True):
                taken = tf.nest.map_structure(lambda x: _taken(x, index, self.count), (call.args, call.kwargs, list(call.sums)))
                difference = first_of(self._run(*taken)) - _taken(target, index, self.count)
                errors.append(tf.reduce_mean(tf.reduce_sum(tf.square(difference), -1)))
        return tf.add_n(errors) / len(errors)

    def _mean_error(self, weights):
        import tensorflow as tf

        constants = {path: tf.constant(value) for path, value in weights.items()}
        parts = np.array_split(np.arange(self.count), -(-self.count // _MEASURED))
        return float(np.average([self._error(tf.constant(part), constants) for part in parts], weights=[len(part) for part in parts]))

    def _power(self):
        import tensorflow as tf

        each = [tf.reduce_sum(tf.math.reduce_variance(target, list(range(target.shape.rank - 1)))) for target in self._targets]
        return float(tf.add_n(each)) / len(each)


def _soft(grid, up):
    """Returns the weights of a `Grid` that are rounded up by `up`, a float tensor from 0 to 1, as a tensor that has a gradient."""
    import tensorflow as tf

    moved = tf.clip_by_value(grid.below + up, -float(grid.last), float(grid.last))
    return grid.scale * tf.where(grid.held, grid.below + grid.nearest, moved)


def _taken(x, index, count):
    """Returns the samples of a tensor that holds all of them, with its mask; anything else as it is."""
    import tensorflow as tf

    if not isinstance(x, tf.Tensor) or x.shape.rank in (0, None) or x.shape[0] != count:
        return x
    return layer_facts.with_mask_of(x, tf.gather(x, index), lambda mask: tf.gather(mask, index))
