"""Keras's own tests of its BackupAndRestore, as they are installed with Keras, run with ours in its place.

Ours acts after all other callbacks, so the one of theirs that interrupts must come after those of the same moment: at the next beginning.
"""

import importlib
import inspect
import types
import unittest

import keras
import numpy as np
import pytest

import tfdistill

# The state before the last one is used with a warning; their test expects it to be used.
pytestmark = pytest.mark.filterwarnings("ignore:.*The state before it is used:UserWarning")
# Theirs counts the batches of an epoch twice that it goes on in: 17 steps where there are 15. Ours is below.
DIFFERENT = {"test_best_case_step"}


class Ours(tfdistill.BackupAndRestore):
    """Under their names for its files: weights and metadata are in one."""

    _weights_path = _training_metadata_path = property(lambda self: str(self._path))
    _prev_weights_path = _prev_training_metadata_path = property(lambda self: str(self._previous))


class Interrupting(keras.callbacks.Callback):
    """Interrupts after a number of batches or epochs."""

    def __init__(self, steps_int, epoch_int):
        super().__init__()
        self.steps_int, self.epoch_int, self.batches, self.epochs = steps_int, epoch_int, 0, 0

    def on_epoch_begin(self, epoch, logs=None):
        if self.epochs == self.epoch_int:
            raise RuntimeError("EpochInterruption")
        self.epochs += 1

    def on_train_batch_begin(self, batch, logs=None):
        if self.batches == self.steps_int:
            raise RuntimeError("StepsInterruption")
        self.batches += 1


theirs = importlib.import_module("keras.src.callbacks.backup_and_restore_test")
adapted = types.ModuleType("adapted")
source = inspect.getsource(theirs)
exec(compile(source, theirs.__file__, "exec"), adapted.__dict__)
adapted.callbacks = types.SimpleNamespace(BackupAndRestore=Ours, Callback=keras.callbacks.Callback)
adapted.InterruptingCallback = Interrupting
BackupAndRestoreCallbackTest = adapted.BackupAndRestoreCallbackTest
for name in DIFFERENT:
    delattr(BackupAndRestoreCallbackTest, name)


def test_no_other_test_of_theirs_is_lost():
    kept = unittest.TestLoader().getTestCaseNames(BackupAndRestoreCallbackTest)
    assert len(kept) + len(DIFFERENT) >= source.count("    def test_") >= 7


def test_no_batch_is_trained_twice(tmp_path):
    make = BackupAndRestoreCallbackTest("test_best_case_epoch").make_model
    model, x, y = make(), np.random.random((10, 3)), np.random.random((10, 1))
    backup = tfdistill.BackupAndRestore(tmp_path / "backup", save_freq=1)
    with pytest.raises(RuntimeError, match="StepsInterruption"):
        model.fit(x, y, batch_size=4, callbacks=[backup, Interrupting(2, None)], epochs=2, verbose=0)
    assert int(model.layers[0].counter.value) == 2
    history = model.fit(x, y, batch_size=4, callbacks=[backup], epochs=5, verbose=0)
    assert history.epoch[-1] == 4
    assert int(model.layers[0].counter.value) == 5 * 3
