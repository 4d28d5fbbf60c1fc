"""`BackupAndRestore`: a training that is interrupted goes on as if it had not been."""

import os
import pathlib
import shutil
import warnings

import keras
import numpy as np

from tfdistill.distill.backup import file, loop
from tfdistill.distill.backup import state as backup_state
from tfdistill.distill.distributed import spans_workers
from tfdistill.errors import ConfigurationError, DataError, ModelError
from tfdistill.utils.files import clear_leftovers, writable_folder, write_whole
from tfdistill.version import __version__

FILE, PREVIOUS = "training_state.zip", "training_state.previous.zip"
_KERAS_FILES = ("latest.weights.h5", "training_metadata.json")
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


class BackupAndRestore(keras.callbacks.Callback):
    """Backs up a training, and goes on with it after an interruption: the same weights, to the bit, as without the interruption.

    A drop-in for `keras.callbacks.BackupAndRestore`, for any `keras.Model`: a `Distiller`, a plain model, a pruned, clustered or quantized one. A
    state is one file, written whole or not at all; the one before it stays until then. It holds all variables of the model, of its optimizers and,
    within an epoch, of its metrics; the random states of layers and of Python, NumPy and Keras; epoch and batch; and what other callbacks count
    (their attributes that are numbers, arrays, or lists and dicts of these: the patience of `EarlyStopping` and `ReduceLROnPlateau`, the best value of
    `ModelCheckpoint`). It acts after all other callbacks, wherever it stands in the list, so that what they do at the end of an epoch is in the state.

    A run that goes on in the middle of an epoch passes over the batches that were trained before; other callbacks do not hear of these. The data comes as it
    came if it is

    - data that is joined with a cache (`SoftTargetCache.join(..., seed=...)`), shuffled or not;
    - arrays, shuffled by `fit` if `keras.utils.set_random_seed` was called;
    - a `tf.data.Dataset` that is deterministic, `shuffle(..., seed=...)` included;
    - a `keras.utils.PyDataset` whose batches follow from their index, or change in `on_epoch_begin` and `on_epoch_end` alone; `fit` may shuffle them.

    Augmentation that draws from a generator of its own in another thread, a Python generator without `steps_per_epoch`, and orders that no seed decides
    cannot be brought back; within an epoch of such arrays there is a warning.

    Args:
        backup_dir: Folder of the state.
        save_freq: `"epoch"`, or a number of batches.
        double_checkpoint: Whether the state before the last one is kept, and used, with a warning, if the last one is damaged.
        delete_checkpoint: Whether the state is deleted when `fit` ends. Nothing else in the folder is; a folder that was made for the state is
            removed if it is empty then.

    Raises:
        ConfigurationError: if an argument is out of range; in `fit` if the folder cannot be written, holds a backup of
            `keras.callbacks.BackupAndRestore`, the epoch has another number of batches than the one that was interrupted, or the model
            trains on several workers, whose states would not be of one moment. A `ValueError`.
        DataError: in `fit`, if the state is damaged, or of another model. A `ValueError`.
        ModelError: in `fit`, if the model is not built. A `ValueError`.

    Example:

    >>> import keras, numpy as np, tempfile, tfdistill
    >>> x = np.arange(32, dtype="float32").reshape(16, 2)
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> model.compile("adam", "mse")
    >>> backup = tfdistill.BackupAndRestore(tempfile.mkdtemp() + "/backup", save_freq=100)
    >>> history = model.fit(x, x[:, :1], epochs=2, verbose=0, callbacks=[backup])
    """

    def __init__(self, backup_dir, save_freq="epoch", double_checkpoint=False, delete_checkpoint=True):
        super().__init__()
        if not backup_dir:
            raise ConfigurationError("Empty `backup_dir` argument passed.", "the path of a folder")
        if save_freq != "epoch" and (isinstance(save_freq, bool) or not isinstance(save_freq, int) or save_freq < 1):
            raise ConfigurationError(
                f"Invalid value for argument `save_freq`: {save_freq!r}.", "'epoch', or a number of batches of at least 1"
            )
        self.backup_dir, self.save_freq = pathlib.Path(backup_dir), save_freq
        self.double_checkpoint, self.delete_checkpoint = double_checkpoint, delete_checkpoint
        self._path, self._previous = self.backup_dir / FILE, self.backup_dir / PREVIOUS
        self._list = self._iterator = self._counters = self._pending = None

    def set_model(self, model):
        super().set_model(model)
        self._list = loop.calling_list()
        if self._list is not None:
            # A new list: the old one is being gone through.
            self._list.callbacks = [c for c in self._list.callbacks if c is not self] + [self]

    def on_train_begin(self, logs=None):
        if not self.model.built:
            raise ModelError(
                f"The model '{self.model.name}' is not built, so there is nothing that a state could be put back into.",
                "a model with weights",
                "give it an Input, or call it once on a batch before fit",
            )
        if spans_workers(self.model.distribute_strategy):
            raise ConfigurationError(
                "BackupAndRestore saves the state of one process, and this model trains on several.",
                "one process",
                "use keras.callbacks.BackupAndRestore with a folder for each worker",
            )
        self._made_folder = not self.backup_dir.exists()
        writable_folder(self.backup_dir)
        if self._made_folder:  # until the first state is written
            self.backup_dir.rmdir()
        self._iterator = loop.running_iterator()
        others = [] if self._list is None else [c for c in self._list.callbacks if not isinstance(c, BackupAndRestore)]
        self._counters = backup_state.Counters(others)
        if isinstance(self.model.train_function, loop.Skipping):  # of a fit that was interrupted while it skipped
            self.model.train_function = self.model.train_function.train_function
        self._current_epoch = self._last_batch_seen = self._batches_seen_since_last_saving = 0
        self._first_epoch = self._pending = None
        self._path_read, state = self._read()
        if state is not None:
            self._restore(state)

    def on_epoch_begin(self, epoch, logs=None):
        self._current_epoch, self._last_batch_seen = epoch, 0
        if self._first_epoch is None:
            self._first_epoch = epoch
        if self._pending is None:
            self._random_at_epoch = backup_state.random_states()
            return
        # The order of this epoch is drawn after this.
        self._random_at_epoch = self._pending["random_at_epoch"]
        backup_state.set_random_states(self._random_at_epoch)
        function, steps = self.model.train_function, self.model.steps_per_execution
        unbuilt = len(self.model.metrics_variables) != len(self._pending["metrics"])
        self.model.train_function = loop.Skipping(function, steps, self._pending["logs"], unbuilt)
        self._others, self._list.callbacks = self._list.callbacks, [self]

    def on_train_batch_end(self, batch, logs=None):
        trained = batch + 1 - self._last_batch_seen
        self._last_batch_seen = batch + 1
        if self._pending is not None:
            if batch + 1 >= self._pending["batch"]:
                self._end_of_skipping()
            return
        self._batches_seen_since_last_saving += trained
        if self.save_freq != "epoch" and self._batches_seen_since_last_saving >= self.save_freq:
            self._batches_seen_since_last_saving = 0
            self._save(self._current_epoch, batch + 1, logs)

    def on_epoch_end(self, epoch, logs=None):
        self._current_epoch, self._last_batch_seen = epoch + 1, 0
        if self.save_freq == "epoch":
            self._save(epoch + 1, 0, None)

    def on_train_end(self, logs=None):
        self.model._initial_epoch = None
        if not self.delete_checkpoint:
            return
        for path in (self._path, self._previous):
            path.unlink(missing_ok=True)
        clear_leftovers(self.backup_dir)
        if self._made_folder and self.backup_dir.is_dir() and not any(self.backup_dir.iterdir()):
            self.backup_dir.rmdir()

    def _save(self, epoch, batch, logs):
        state = {
            "epoch": epoch,
            "batch": batch,
            "first_epoch": self._first_epoch,
            "steps": (self.params or {}).get("steps"),
            "since_saving": self._batches_seen_since_last_saving,
            "stopped": bool(self.model.stop_training),
            "made_folder": self._made_folder,
            "logs": {name: float(value) for name, value in (logs or {}).items() if isinstance(value, (int, float))},
            "variables": backup_state.values_of(backup_state.variables_of(self.model)),
            "metrics": backup_state.values_of(self.model.metrics_variables) if batch else [],
            "random": backup_state.random_states(),
            "random_at_epoch": self._random_at_epoch,
            "callbacks": self._counters.read(),
            "library_version": __version__,
        }
        if self.double_checkpoint and self._path.exists():
            self._keep_previous()
        file.write(self._path, state)

    def _keep_previous(self):
        # The last state stays where it is until the next one takes its place.
        link = self.backup_dir / f".{self._previous.stem}.link{self._previous.suffix}"
        try:
            link.unlink(missing_ok=True)
            os.link(self._path, link)
            os.replace(link, self._previous)
        except OSError:  # a file system without links
            with write_whole(self._previous) as beside:
                shutil.copyfile(self._path, beside)

    def _read(self):
        """Reads the last state; returns its path and itself, or None twice."""
        paths = [p for p in (self._path, *([self._previous] if self.double_checkpoint else [])) if os.path.lexists(p)]
        if not paths:
            theirs = [name for name in _KERAS_FILES if (self.backup_dir / name).exists()]
            if theirs:
                raise ConfigurationError(
                    f"'{self.backup_dir}' holds a backup of keras.callbacks.BackupAndRestore ({', '.join(theirs)}).",
                    "a folder of its own",
                    "give another backup_dir, or end that training with Keras's callback",
                )
            return None, None
        try:
            return paths[0], _checked(paths[0], file.read(paths[0]))
        except DataError as error:
            if len(paths) == 1:
                raise
            state = _checked(paths[1], file.read(paths[1]))
            warnings.warn(f"{error.happened} The state before it is used: '{paths[1]}'.", stacklevel=2)
            return paths[1], state

    def _restore(self, state):
        """Puts a state back: all of it at the end of an epoch, else what other callbacks may look at before the skipping begins."""
        if state["batch"]:
            self._check_position(state)
        if self.model.optimizer is not None and not self.model.optimizer.built:
            self.model.optimizer.build(self.model.trainable_variables)
        self._put_back(state)
        self._first_epoch, self._made_folder = state["first_epoch"], state["made_folder"]
        self._batches_seen_since_last_saving = state["since_saving"]
        if self._iterator is not None:
            loop.replay(self._iterator, state["epoch"] - state["first_epoch"])
            backup_state.set_random_states(state["random"])
        self._current_epoch = self.model._initial_epoch = state["epoch"]
        if state["batch"]:
            self._pending = state
        elif state["stopped"]:
            self.model._initial_epoch = max(state["epoch"], self.params["epochs"])

    def _check_position(self, state):
        steps, size = (self.params or {}).get("steps"), self.model.steps_per_execution
        if self._list is None or self._iterator is None:
            raise ConfigurationError(
                f"'{self._path_read}' was written after batch {state['batch']} of an epoch, and this loop is not keras.Model.fit.",
                "fit, whose batches can be skipped",
                "save with save_freq='epoch'",
            )
        if (steps is not None and state["steps"] is not None and steps != state["steps"]) or state["batch"] % size:
            raise ConfigurationError(
                f"'{self._path_read}' was written after batch {state['batch']} of {state['steps']} in an epoch; now an epoch has {steps} batches, "
                f"{size} to an execution.",
                "the same data, batch size and steps_per_execution as before the interruption",
                "call fit and compile as before, or move the file away to begin the training anew",
            )
        if loop.shuffled_without_seed(self._iterator):
            warnings.warn(
                f"The training goes on after batch {state['batch']} of an epoch whose order no seed decided: some samples come twice in it, and "
                "others not at all. Call keras.utils.set_random_seed before fit, or save with save_freq='epoch'.",
                stacklevel=2,
            )

    def _put_back(self, state):
        backup_state.assign(backup_state.variables_of(self.model), state["variables"], self._path_read, "variables")
        backup_state.set_random_states(state["random"])
        self._counters.restore(state["callbacks"])

    def _end_of_skipping(self):
        state, self._pending = self._pending, None
        self.model.train_function = self.model.train_function.train_function
        self._list.callbacks = self._others
        self._put_back(state)
        backup_state.assign(self.model.metrics_variables, state["metrics"], self._path_read, "variables of metrics")
        self.model.stop_training = state["stopped"]


def _checked(path, state):
    """Returns the state that was read from `path` if it is whole; raises a `DataError` otherwise."""
    wrong = [n for n, kinds in _FIELDS.items() if not isinstance(state, dict) or n not in state or not isinstance(state[n], kinds)]
    if not wrong:
        wrong += [n for n in ("epoch", "batch", "first_epoch", "since_saving") if isinstance(state[n], bool) or state[n] < 0]
        wrong += [n for n in ("variables", "metrics") if not all(isinstance(value, np.ndarray) for value in state[n])]
        wrong += [n for n in ("random", "random_at_epoch") if not backup_state.are_random_states(state[n])]
        wrong += [n for n in ("callbacks",) if not all(isinstance(values, dict) for values in state[n].values())]
        wrong += [n for n in ("logs",) if not all(isinstance(value, float) for value in state[n].values())]
    if wrong:
        raise DataError(
            f"'{path}' is no training state: its {', '.join(wrong[:4])} is missing or of another type.",
            "a file that tfdistill.BackupAndRestore wrote",
            "move it away to begin the training anew, or give another backup_dir",
        )
    return state
