"""What a running `keras.Model.fit` keeps to itself: its callbacks, its iterator over the data, and Keras's random generator.

Each private part of Keras is read behind one function here.
"""

import sys

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.eager import context

from tfdistill.graph import keras_internals

# Calls between a callback's method and `fit`, wrappers included.
_DEPTH = 12


def calling_list():
    """Returns the `keras.callbacks.CallbackList` that calls the callback, or None if a custom training loop calls it.

    Looks for a `self` of this class in the frames above the caller. If Keras calls its callbacks from somewhere else, this returns None: a
    training that was interrupted in the middle of an epoch is then refused.
    """
    return _local(lambda frame: frame.f_locals.get("self"), keras.callbacks.CallbackList)


def running_iterator():
    """Returns the iterator over the epochs of the running `fit`, or None in a custom training loop.

    Looks for the variable `epoch_iterator`, a `keras.src.trainers.epoch_iterator.EpochIterator`, in the frame of `fit` above the caller. If
    Keras renames the variable, this returns None: the order of the data is not restored, and a training that was interrupted in the middle
    of an epoch is refused.
    """
    kind = keras_internals.epoch_iterator_class()
    return _local(lambda frame: frame.f_locals.get("epoch_iterator") if frame.f_code.co_name == "fit" else None, kind)


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
    """Tells whether Keras shuffles arrays in an order that no seed determines.

    Reads the adapter's `_shuffle`, and TensorFlow's global seed, which `keras.utils.set_random_seed` sets. If Keras renames the attribute,
    this returns False: the warning about such an order is lost.
    """
    return bool(getattr(epoch_iterator.data_adapter, "_shuffle", False)) and context.global_seed() is None


def replay(epoch_iterator, epochs):
    """Advances the data by a number of epochs, as `fit` does.

    Where each epoch has an iterator of its own, no batch is read: iterators are made as `fit` makes them, which determines the order of
    `tf.data.Dataset.shuffle`, and a PyDataset's `on_epoch_begin` and `on_epoch_end` are called. With `steps_per_epoch` the epochs share an
    iterator, and their batches are read and dropped.

    Reads `data_adapter`, `steps_per_epoch`, `steps_per_execution`, `num_batches`, `catch_stop_iteration` and `_get_iterator` of the
    iterator. If Keras renames one, a training that is resumed after its first epoch fails here with an AttributeError.

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
    """Reads the batches of one execution and drops them; at the end of the data there may be fewer."""
    for number in range(batches):
        try:
            next(iterator)
        except (StopIteration, tf.errors.OutOfRangeError):
            if not number:
                raise
            return


def keras_random_state():
    """Returns the state of Keras's random generator of the process, an int array of shape (2,), or None if there is no generator yet."""
    if not keras_internals.has_global_seed_generator():
        return None
    return np.asarray(keras_internals.global_seed_generator().state.numpy())


def set_keras_random_state(state):
    """Sets the state that `keras_random_state` returned; None leaves the generator as it is."""
    if state is not None:
        keras_internals.global_seed_generator().state.assign(state)
