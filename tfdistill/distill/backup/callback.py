"""`BackupAndRestore`: backs up a training, and resumes it after an interruption."""

import os
import pathlib
import shutil
import warnings
from typing import Any, Literal

import keras

from tfdistill.distill.backup import file, loop
from tfdistill.distill.backup import state as backup_state
from tfdistill.distill.distributed import spans_workers
from tfdistill.errors import ConfigurationError, DataError, ModelError
from tfdistill.graph import epochs
from tfdistill.utils import validate
from tfdistill.utils.files import clear_leftovers, writable_folder, write_whole
from tfdistill.utils.types import PathLike
from tfdistill.version import __version__

FILE, PREVIOUS = "training_state.zip", "training_state.previous.zip"
_KERAS_FILES = ("latest.weights.h5", "training_metadata.json")


class BackupAndRestore(keras.callbacks.Callback):
    """Backs up a training, and resumes it after an interruption. The weights are the same, to the bit, as without the interruption.

    A drop-in for `keras.callbacks.BackupAndRestore`, for any `keras.Model`: a `Distiller`, a plain model, a pruned, clustered or quantized
    one. A state is one file, written whole or not at all; it replaces the one before it only when it is complete. It holds all variables of
    the model, of its optimizers and, within an epoch, of its metrics; the random states of layers and of Python, NumPy and Keras; epoch and
    batch; and the counters of other callbacks (their attributes that are numbers, arrays, or lists and dicts of these: the patience of
    `EarlyStopping` and `ReduceLROnPlateau`, the best value of `ModelCheckpoint`). It runs after all other callbacks, whatever its place in
    the list, so that the state includes what they do at the end of an epoch.

    A training that is resumed in the middle of an epoch skips the batches that were trained before; other callbacks are not called for
    these. The data has the same order as before if it is

    - data that is joined with a cache (`SoftTargetCache.join(..., seed=...)`), shuffled or not;
    - arrays, shuffled by `fit` if `keras.utils.set_random_seed` was called;
    - a `tf.data.Dataset` that is deterministic, `shuffle(..., seed=...)` included;
    - a `keras.utils.PyDataset` whose batches follow from their index, or change in `on_epoch_begin` and `on_epoch_end` alone; `fit` may
      shuffle them.

    Augmentation that draws from a generator of its own in another thread, a Python generator without `steps_per_epoch`, and orders that no
    seed determines cannot be restored; within an epoch of such arrays there is a warning.

    Args:
        backup_dir: Folder of the state.
        save_freq: `"epoch"`, or a number of batches.
        double_checkpoint: Whether the state before the last one is kept; it is used, with a warning, if the last one is damaged.
        delete_checkpoint: Whether the state is deleted when `fit` ends. Other files in the folder stay; a folder that was made for the
            state is removed if it is empty then.

    Raises:
        ConfigurationError: if an argument is out of range; in `fit` if the folder cannot be written, holds a backup of
            `keras.callbacks.BackupAndRestore`, the epoch has another number of batches than the one that was interrupted, or the model
            trains on several workers, whose states could be of different steps. A `ValueError`.
        DataError: in `fit`, if the state is damaged, or of another model. A `ValueError`.
        ModelError: in `fit`, if the model is not built. A `ValueError`.

    Example:
        >>> student.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        >>> backup = tfdistill.BackupAndRestore("backup", delete_checkpoint=False)
        >>> history = student.fit(x, y, epochs=2, verbose=0, callbacks=[backup])
        >>> history = student.fit(x, y, epochs=3, verbose=0, callbacks=[backup])  # resumed: only the third epoch is trained
        >>> history.epoch
        [2]
    """

    def __init__(
        self,
        backup_dir: PathLike,
        save_freq: Literal["epoch"] | int = "epoch",
        double_checkpoint: bool = False,
        delete_checkpoint: bool = True,
    ) -> None:
        super().__init__()
        if not backup_dir:
            raise ConfigurationError("Empty `backup_dir` argument passed.", "the path of a folder")
        if save_freq != "epoch" and not validate.is_whole_number(save_freq, 1):
            raise ConfigurationError(
                f"Invalid value for argument `save_freq`: {save_freq!r}.", "'epoch', or a number of batches of at least 1"
            )
        self.backup_dir, self.save_freq = pathlib.Path(backup_dir), save_freq
        self.double_checkpoint, self.delete_checkpoint = double_checkpoint, delete_checkpoint
        self._path, self._previous = self.backup_dir / FILE, self.backup_dir / PREVIOUS
        self._list: Any = None
        self._iterator: Any = None
        self._counters: Any = None
        self._first_epoch: int | None = None
        self._pending: dict[str, Any] | None = None

    def set_model(self, model: keras.Model) -> None:
        super().set_model(model)
        self._list = epochs.calling_list()
        if self._list is not None:
            # A new list, as Keras is iterating over the old one.
            self._list.callbacks = [c for c in self._list.callbacks if c is not self] + [self]

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        if not self.model.built:
            raise ModelError(
                f"The model '{self.model.name}' is not built, so it has no variables to restore.",
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
        self._iterator = epochs.running_iterator()
        others: list[keras.callbacks.Callback] = (
            [] if self._list is None else [c for c in self._list.callbacks if not isinstance(c, BackupAndRestore)]
        )
        self._counters = backup_state.Counters(others)
        if isinstance(self.model.train_function, loop.Skipping):  # left by a fit that was interrupted while it skipped batches
            self.model.train_function = self.model.train_function.train_function
        self._current_epoch = self._last_batch_seen = self._batches_seen_since_last_saving = 0
        self._first_epoch = self._pending = None
        self._path_read, state = self._read()
        if state is not None:
            self._restore(state)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._current_epoch, self._last_batch_seen = epoch, 0
        if self._first_epoch is None:
            self._first_epoch = epoch
        if self._pending is None:
            self._random_at_epoch = backup_state.random_states()
            return
        # Set before the order of this epoch is drawn.
        self._random_at_epoch = self._pending["random_at_epoch"]
        backup_state.set_random_states(self._random_at_epoch)
        function, steps = self.model.train_function, self.model.steps_per_execution
        unbuilt = len(self.model.metrics_variables) != len(self._pending["metrics"])
        self.model.train_function = loop.Skipping(function, steps, self._pending["logs"], unbuilt)
        self._others, self._list.callbacks = self._list.callbacks, [self]

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
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

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._current_epoch, self._last_batch_seen = epoch + 1, 0
        if self.save_freq == "epoch":
            self._save(epoch + 1, 0, None)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
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
        # A link and not a move: the last state stays in place until the next one replaces it.
        link = self.backup_dir / f".{self._previous.stem}.link{self._previous.suffix}"
        try:
            link.unlink(missing_ok=True)
            os.link(self._path, link)
            os.replace(link, self._previous)
        except OSError:  # a file system without links
            with write_whole(self._previous) as temporary:
                shutil.copyfile(self._path, temporary)

    def _read(self):
        """Reads the last state; returns its path and the state, or None twice if there is none."""
        paths = [p for p in (self._path, *([self._previous] if self.double_checkpoint else [])) if os.path.lexists(p)]
        if not paths:
            found = [name for name in _KERAS_FILES if (self.backup_dir / name).exists()]
            if found:
                raise ConfigurationError(
                    f"'{self.backup_dir}' holds a backup of keras.callbacks.BackupAndRestore ({', '.join(found)}).",
                    "a folder of its own",
                    "give another backup_dir, or end that training with Keras's callback",
                )
            return None, None
        try:
            return paths[0], backup_state.checked(paths[0], file.read(paths[0]))
        except DataError as error:
            if len(paths) == 1:
                raise
            state = backup_state.checked(paths[1], file.read(paths[1]))
            warnings.warn(f"{error.happened} The state before it is used: '{paths[1]}'.", stacklevel=2)
            return paths[1], state

    def _restore(self, state):
        """Restores a state. Within an epoch, it is restored once more when the trained batches are skipped."""
        if state["batch"]:
            self._check_position(state)
        if self.model.optimizer is not None and not self.model.optimizer.built:
            self.model.optimizer.build(self.model.trainable_variables)
        self._assign(state)
        self._first_epoch, self._made_folder = state["first_epoch"], state["made_folder"]
        self._batches_seen_since_last_saving = state["since_saving"]
        if self._iterator is not None:
            epochs.replay(self._iterator, state["epoch"] - state["first_epoch"])
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
        if epochs.shuffled_without_seed(self._iterator):
            warnings.warn(
                f"The training is resumed after batch {state['batch']} of an epoch whose order no seed decided: some samples come twice in it, and "
                "others not at all. Call keras.utils.set_random_seed before fit, or save with save_freq='epoch'.",
                stacklevel=2,
            )

    def _assign(self, state):
        backup_state.assign(backup_state.variables_of(self.model), state["variables"], self._path_read, "variables")
        backup_state.set_random_states(state["random"])
        self._counters.restore(state["callbacks"])

    def _end_of_skipping(self):
        state, self._pending = self._pending, None
        self.model.train_function = self.model.train_function.train_function
        self._list.callbacks = self._others
        self._assign(state)
        backup_state.assign(self.model.metrics_variables, state["metrics"], self._path_read, "variables of metrics")
        self.model.stop_training = state["stopped"]
