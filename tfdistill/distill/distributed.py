"""Training of a Keras model with its own `train_step` on several devices and workers."""

import functools

import keras
import tensorflow as tf


class DistributedTraining:
    """Mixin of a `keras.Model`: trains under `tf.distribute.MirroredStrategy` and `MultiWorkerMirroredStrategy`.

    Models, Distiller and optimizer are made inside `strategy.scope()`, as for any Keras model. Keras builds a model from a distributed
    batch and averages its logs in two private methods that fail on several workers; they are overridden here. A Keras that renames them
    trains on one process as before, and fails on several workers (see tests/distill/test_distributed.py).

    Attributes:
        made_for_strategy: Whether the model was made inside a strategy's scope, so that Keras distributes its data.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.made_for_strategy = tf.distribute.has_strategy()

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        # Keras averages a distributed batch to learn its shapes, which several workers cannot; one replica's part has the same shapes.
        if iterator is not None and self.made_for_strategy:
            data_batch = next((local_part(next(it), self.distribute_strategy) for _, _, it in iterator), None)
            iterator = None
        super()._maybe_symbolic_build(iterator=iterator, data_batch=data_batch)

    def _make_function(self, step_function):
        return super()._make_function(_with_log_axis(step_function) if spans_workers(self.distribute_strategy) else step_function)


def spans_workers(strategy):
    """Tells whether a strategy has replicas in other processes."""
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy) or strategy.cluster_resolver is None:
        return False
    resolver = strategy.cluster_resolver
    cluster = tf.train.ClusterSpec(resolver.cluster_spec() or {}).as_dict()
    # An evaluator is a cluster of its own, of which training is no part.
    jobs = ("evaluator",) if resolver.task_type == "evaluator" else ("chief", "worker")
    return sum(len(cluster.get(job, ())) for job in jobs) > 1


def local_part(batch, strategy):
    """Returns the part of a distributed batch that belongs to this process's first replica.

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


def _with_log_axis(step_function):
    """Gives every log the shape (1,): between workers Keras averages logs along their first axis, and a scalar has none."""

    @functools.wraps(step_function)
    def step(data):
        return keras.tree.map_structure(lambda log: tf.reshape(log, (1,)), step_function(data))

    return step
