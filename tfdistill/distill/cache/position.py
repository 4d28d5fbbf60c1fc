"""The epoch that a joined dataset is read for: its order and its views follow from `(seed, epoch)` alone."""

import contextlib
import inspect
import weakref

import keras
import tensorflow as tf

from tfdistill.graph.datasets import source_datasets

# Joined tf.data.Dataset -> its Position. A dataset that is derived from it (map, prefetch, take) keeps it alive.
_POSITIONS: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


class Position:
    """The epoch that a joined dataset is read for.

    In the `fit` of a `Distiller` it is the epoch's number, so a run that starts at `initial_epoch`, or is resumed, sees the order that an
    uninterrupted run sees. Outside of `fit` it is the number of passes over the data so far.
    """

    def __init__(self):
        self.epoch, self._passes = None, 0

    @property
    def current(self):
        """The epoch in `fit`, else the number of finished passes."""
        return self._passes if self.epoch is None else self.epoch

    def next_pass(self):
        """Returns the number of the pass that begins, and counts it outside of `fit`, where no epoch is given."""
        number = self.current
        self.finish_pass()
        return number

    def finish_pass(self):
        """Counts a pass outside of `fit`, where no epoch is given."""
        if self.epoch is None:
            self._passes += 1


def register(dataset, position):
    """Remembers the `Position` of a joined `tf.data.Dataset`; returns the dataset."""
    _POSITIONS[dataset] = position
    return dataset


def positions_of(data):
    """Lists the `Position`s of the joined datasets that `data` is, or is derived from by tf.data transformations."""
    if isinstance(getattr(data, "position", None), Position):
        return [data.position]
    found, waiting = [], [data] if isinstance(data, tf.data.Dataset) else []
    while waiting:
        dataset = waiting.pop()
        if dataset in _POSITIONS:
            found.append(_POSITIONS[dataset])
        else:
            waiting.extend(source_datasets(dataset))
    return found


class _FollowEpochs(keras.callbacks.Callback):
    """Sets the epoch of positions at the beginning of every epoch."""

    def __init__(self, positions):
        super().__init__()
        self._positions = positions

    def on_epoch_begin(self, epoch, logs=None):
        for position in self._positions:
            position.epoch = epoch


@contextlib.contextmanager
def following_epochs(model, *args, **kwargs):
    """Gives the arguments of a `fit` whose joined data follow its epochs.

    Args:
        model: The `keras.Model` that is trained.
        *args: Arguments of its `fit`.
        **kwargs: Arguments of its `fit`.

    Yields:
        The arguments as a tuple and a dict, with a callback added where `x` or `validation_data` is joined with a cache.
    """
    bound = inspect.signature(keras.Model.fit).bind(model, *args, **kwargs)
    positions = [p for name in ("x", "validation_data") for p in positions_of(bound.arguments.get(name))]
    if not positions:
        yield args, kwargs
        return
    callbacks, follow = bound.arguments.get("callbacks"), _FollowEpochs(positions)
    if isinstance(callbacks, keras.callbacks.CallbackList):
        callbacks.callbacks.append(follow)
    else:
        bound.arguments["callbacks"] = [follow, *keras.tree.flatten(callbacks or [])]
    try:
        yield bound.args[1:], bound.kwargs
    finally:
        for position in positions:
            position.epoch = None
        if isinstance(callbacks, keras.callbacks.CallbackList):
            callbacks.callbacks.remove(follow)
