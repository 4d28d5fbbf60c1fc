"""What a running `keras.Model.fit` does not hand to its callbacks: the list of all callbacks, and the iterator over the data.

They are read from the frames of the calls that lead to a callback. This is the one place that depends on how Keras names them.
"""

import sys

import keras
import tensorflow as tf
from tensorflow.python.eager import context

from tfdistill.graph.keras_internals import epoch_iterator_class

# Calls between a callback's method and `fit`, wrappers included.
_DEPTH = 12


def calling_list():
    """The `keras.callbacks.CallbackList` that calls the callback, or None if a loop of the user's calls it."""
    return _local(lambda frame: frame.f_locals.get("self"), keras.callbacks.CallbackList)


def running_iterator():
    """The iterator over the epochs of the running `fit`, or None if a loop of the user's runs."""
    return _local(lambda frame: frame.f_locals.get("epoch_iterator") if frame.f_code.co_name == "fit" else None, epoch_iterator_class())


def _local(look, kind):
    frame = sys._getframe(2)
    for _ in range(_DEPTH):
        if frame is None:
            return None
        found = look(frame)
        if isinstance(found, kind):
            return found
        frame = frame.f_back
    return None


def shuffled_without_seed(epoch_iterator):
    """Whether Keras shuffles arrays in an order that no seed decides."""
    return bool(getattr(epoch_iterator.data_adapter, "_shuffle", False)) and context.global_seed() is None


def replay(epoch_iterator, epochs):
    """Brings the data to where it is after a number of epochs.

    Nothing is read where each epoch has an iterator of its own: iterators are made as `fit` makes them, which is what the order of
    `tf.data.Dataset.shuffle` follows, and a PyDataset's `on_epoch_begin` and `on_epoch_end` are called. With `steps_per_epoch` the epochs share an
    iterator, and their batches are read and thrown away.

    Args:
        epoch_iterator: See `running_iterator`.
        epochs: Number of epochs.
    """
    dataset = getattr(epoch_iterator.data_adapter, "py_dataset", None)
    for _ in range(epochs):
        with epoch_iterator.catch_stop_iteration():
            if epoch_iterator.steps_per_epoch:
                for _, _, iterator in epoch_iterator:
                    skip(iterator, epoch_iterator.steps_per_execution)
            elif dataset is not None:
                dataset.on_epoch_begin()
                dataset.on_epoch_end()
            elif epoch_iterator.num_batches is None:
                iter(epoch_iterator._get_iterator())
            else:
                for _ in epoch_iterator:
                    pass


def skip(iterator, batches):
    """Reads the batches of one execution and throws them away; at the end of the data there may be fewer."""
    for number in range(batches):
        try:
            next(iterator)
        except (StopIteration, tf.errors.OutOfRangeError):
            if not number:
                raise
            return


class Skipping:
    """Stands in for a model's train function while batches are skipped that were trained before.

    Args:
        train_function: The model's train function.
        steps: Number of batches in one execution of it.
        logs: What it is to return.
        run_first: Whether the first execution trains: what Keras makes in the first step, such as the variables of metrics, is there after that.
    """

    def __init__(self, train_function, steps, logs, run_first):
        self.train_function, self._steps, self._logs, self._run = train_function, steps, logs, run_first

    def __call__(self, iterator):
        if self._run:
            self._run = False
            self.train_function(iterator)
        else:
            skip(iterator, self._steps)
        return self._logs
