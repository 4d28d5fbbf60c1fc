"""The state of a training besides its data: variables, random states, and the counters of callbacks."""

import random

import keras
import numpy as np

from tfdistill.distill.backup.file import encodable
from tfdistill.errors import DataError
from tfdistill.graph.epochs import keras_random_state, set_keras_random_state
from tfdistill.graph.layers import all_layers

# Field of a state -> its types.
_FIELDS = {
    "epoch": int,
    "batch": int,
    "first_epoch": int,
    "steps": (int, type(None)),
    "since_saving": int,
    "stopped": bool,
    "made_folder": bool,
    "logs": dict,
    "variables": list,
    "metrics": list,
    "random": dict,
    "random_at_epoch": dict,
    "callbacks": dict,
    "library_version": str,
}
# Attributes that Keras sets on every callback.
_OF_KERAS = ("params", "model", "_model")
# They record one `fit`. Keras's own BackupAndRestore does not restore them either.
_NOT_RESTORED = (keras.callbacks.History, keras.callbacks.ProgbarLogger)


def variables_of(model):
    """Lists the variables of a training: weights, states of layers, random states, and the variables of every optimizer."""
    metrics = {id(v) for v in model.metrics_variables}
    optimizers = [model.optimizer, *(value for layer in all_layers(model) for value in vars(layer).values())]
    found = [v for v in model.variables if id(v) not in metrics]
    for optimizer in optimizers:
        if isinstance(optimizer, keras.optimizers.Optimizer):
            found.extend(optimizer.variables)
    return list({id(v): v for v in found}.values())


def values_of(variables):
    """Returns the values of variables as a list of NumPy arrays."""
    return [np.asarray(v.numpy()) for v in variables]


def assign(variables, values, path, what):
    """Assigns values to variables, all of them or none.

    Raises:
        DataError: if number, shapes or types differ from those of the variables; it names `path`, the file of the values.
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
    """Returns the states of the process's random generators: those of Python, NumPy and Keras."""
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(legacy=False),
        "keras": keras_random_state(),
    }


def set_random_states(states):
    """Sets the states that `random_states` returned."""
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    set_keras_random_state(states["keras"])


def are_random_states(states):
    """Tells whether `set_random_states` can set them."""
    try:
        random.Random().setstate(states["python"])
        np.random.RandomState(np.random.MT19937()).set_state(states["numpy"])
        return states["keras"] is None or (states["keras"].shape == (2,) and states["keras"].dtype.kind in "iu")
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return False


def checked(path, state):
    """Returns the state that was read from `path` if it is whole; raises a `DataError` otherwise."""
    wrong = [n for n, kinds in _FIELDS.items() if not isinstance(state, dict) or n not in state or not isinstance(state[n], kinds)]
    if not wrong:
        wrong += [n for n in ("epoch", "batch", "first_epoch", "since_saving") if isinstance(state[n], bool) or state[n] < 0]
        wrong += [n for n in ("variables", "metrics") if not all(isinstance(value, np.ndarray) for value in state[n])]
        wrong += [n for n in ("random", "random_at_epoch") if not are_random_states(state[n])]
        wrong += [n for n in ("callbacks",) if not all(isinstance(values, dict) for values in state[n].values())]
        wrong += [n for n in ("logs",) if not all(isinstance(value, float) for value in state[n].values())]
    if wrong:
        raise DataError(
            f"'{path}' is no training state: its {', '.join(wrong[:4])} is missing or of another type.",
            "a file that tfdistill.BackupAndRestore wrote",
            "move it away to begin the training anew, or give another backup_dir",
        )
    return state


class Counters:
    """The counters of callbacks: attributes that are numbers, arrays, None, or lists, tuples and dicts of these.

    Only attributes that changed since the training began are saved, so that a resumed training uses the settings that it is given.

    Args:
        callbacks: The callbacks, all of whose `on_train_begin` has run.
    """

    def __init__(self, callbacks):
        self._callbacks, numbers = {}, {}
        for callback in callbacks:
            if not isinstance(callback, _NOT_RESTORED):
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
        """Restores the attributes. Those of callbacks that are missing now are ignored."""
        for name, callback in self._callbacks.items():
            values = {**self._beginning[name], **changed.get(name, {})}
            for attribute, value in _copied(values).items():
                # A state never replaces a method, nor an attribute with text, such as a name or a path.
                if attribute not in _OF_KERAS and _is_counter(getattr(callback, attribute, None)) and _is_counter(value):
                    setattr(callback, attribute, value)


def _attributes(callback):
    return {name: value for name, value in vars(callback).items() if name not in _OF_KERAS and _is_counter(value)}


def _is_counter(value):
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
