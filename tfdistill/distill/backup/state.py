"""What a training consists of besides its data: variables, random states, and the counters of callbacks."""

import random

import keras
import numpy as np

from tfdistill.distill.backup.file import encodable
from tfdistill.errors import DataError
from tfdistill.graph.keras_internals import global_seed_generator, has_global_seed_generator

# Set by Keras itself on every callback.
_OF_KERAS = ("params", "model", "_model")
# Read from the logs of the epochs of one `fit`: Keras's own BackupAndRestore leaves them as they are, too.
_LEFT_OUT = (keras.callbacks.History, keras.callbacks.ProgbarLogger)


def variables_of(model):
    """Lists the variables of a training: weights, states of layers, random states, and the variables of every optimizer."""
    metrics = {id(v) for v in model.metrics_variables}
    optimizers = [model.optimizer, *(value for layer in model._flatten_layers() for value in vars(layer).values())]
    found = [v for v in model.variables if id(v) not in metrics]
    for optimizer in optimizers:
        if isinstance(optimizer, keras.optimizers.Optimizer):
            found.extend(optimizer.variables)
    return list({id(v): v for v in found}.values())


def values_of(variables):
    """Reads variables: a list of NumPy arrays."""
    return [np.asarray(v.numpy()) for v in variables]


def assign(variables, values, path, what):
    """Gives variables their values, all of them or none.

    Raises:
        DataError: if the values are not of these variables' number, shapes and types; names the file `path` that they come from.
    """
    wrong = [
        f"{v.path} is {tuple(v.shape)} {v.dtype}, in the file {value.shape} {value.dtype.name}"
        for v, value in zip(variables, values, strict=False)
        if tuple(v.shape) != value.shape or v.dtype != value.dtype.name
    ]
    if wrong or len(variables) != len(values):
        counts = f"{len(variables)} {what}, in the file {len(values)}" if len(variables) != len(values) else "; ".join(wrong[:3])
        raise DataError(
            f"'{path}' is the training state of another model, or of another optimizer: {counts}.",
            "the model, compiled, as it was when the file was written",
            "move the file away to begin the training anew, or give another backup_dir",
        )
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def random_states():
    """Reads the states of the random generators of Python, NumPy and Keras that belong to the process."""
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(legacy=False),
        "keras": np.asarray(global_seed_generator().state.numpy()) if has_global_seed_generator() else None,
    }


def set_random_states(states):
    """Sets what `random_states` has read."""
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    if states["keras"] is not None:
        global_seed_generator().state.assign(states["keras"])


def are_random_states(states):
    """Whether `set_random_states` can set them."""
    try:
        random.Random().setstate(states["python"])
        np.random.RandomState(np.random.MT19937()).set_state(states["numpy"])
        return states["keras"] is None or (states["keras"].shape == (2,) and states["keras"].dtype.kind in "iu")
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return False


class Counters:
    """What callbacks count: their attributes that are numbers, arrays, None, or lists, tuples and dicts of these.

    Only what differs from the moment at which the training began is kept, so that a run that goes on has the settings that it was given.

    Args:
        callbacks: The callbacks, all of whose `on_train_begin` has run.
    """

    def __init__(self, callbacks):
        self._callbacks, numbers = {}, {}
        for callback in callbacks:
            if not isinstance(callback, _LEFT_OUT):
                kind = type(callback).__name__
                numbers[kind] = numbers.get(kind, -1) + 1
                self._callbacks[f"{kind} {numbers[kind]}"] = callback
        self._beginning = {name: _copied(_attributes(callback)) for name, callback in self._callbacks.items()}

    def read(self):
        """Returns, for each callback, a dict of the attributes that changed."""
        changed = {}
        for name, callback in self._callbacks.items():
            before = self._beginning[name]
            changed[name] = {k: v for k, v in _attributes(callback).items() if k not in before or not _same(v, before[k])}
        return changed

    def restore(self, changed):
        """Puts the attributes back. Those of callbacks that are not there now are left out."""
        for name, callback in self._callbacks.items():
            values = {**self._beginning[name], **changed.get(name, {})}
            for attribute, value in _copied(values).items():
                # A file does not replace a method, nor anything that holds a name or a path.
                if attribute not in _OF_KERAS and _counts(getattr(callback, attribute, None)) and _counts(value):
                    setattr(callback, attribute, value)


def _attributes(callback):
    return {name: value for name, value in vars(callback).items() if name not in _OF_KERAS and _counts(value)}


def _counts(value):
    return not _has_text(value) and encodable(value)


def _has_text(value):
    if isinstance(value, dict):
        return any(map(_has_text, value.values()))
    return isinstance(value, str) or (isinstance(value, (list, tuple)) and any(map(_has_text, value)))


def _copied(value):
    if isinstance(value, dict):
        return {k: _copied(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(_copied, value))
    return value.copy() if isinstance(value, np.ndarray) else value


def _same(a, b):
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return type(a) is type(b) and a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    return a is b or (type(a) is type(b) and a == b)
