"""What a Keras model with its own `train_step` needs in order to train on several workers."""

import functools

import keras
import tensorflow as tf


class ManyDevices:
    """Mixin of a `keras.Model`: trains under `tf.distribute.MirroredStrategy` and `MultiWorkerMirroredStrategy`.

    Models, Distiller and optimizer are made inside `strategy.scope()`, as for any Keras model. Two things that Keras does with a batch and with
    logs fail on several workers; these two overrides do them otherwise.
    """

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        # Keras averages a distributed batch to learn its shapes, which several workers cannot; one replica's part has the same shapes.
        if iterator is not None and self._distribute_strategy is not None:
            data_batch = next((local_part(next(it), self.distribute_strategy) for _, _, it in iterator), None)
            iterator = None
        super()._maybe_symbolic_build(iterator=iterator, data_batch=data_batch)

    def _make_function(self, step_function):
        return super()._make_function(_in_rows(step_function) if spans_workers(self.distribute_strategy) else step_function)


def spans_workers(strategy):
    """Whether a strategy has replicas in other processes."""
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy) and strategy.extended._in_multi_worker_mode()


def local_part(batch, strategy):
    """The part of a distributed batch that belongs to this process's first replica.

    Args:
        batch: Structure of `tf.distribute.DistributedValues`, tensors or absent values.
        strategy: The `tf.distribute.Strategy`.

    Returns:
        The same structure of tensors, None where a value is absent.
    """

    def part(value):
        value = strategy.experimental_local_results(value)[0]
        return None if isinstance(value, tf.experimental.Optional) else value

    return keras.tree.map_structure(part, batch)


def _in_rows(step_function):
    """Gives every log the shape (1,): between workers Keras averages logs along their first axis, and a scalar has none."""

    @functools.wraps(step_function)
    def step(data):
        return keras.tree.map_structure(lambda log: tf.reshape(log, (1,)), step_function(data))

    return step
