"""What stands on the screen while a Distiller trains: the whole loss once. The history has it under both names."""

import contextlib
import io

import keras
import pytest
from small import data, pair

from tfdistill import Distiller
from tfdistill.distill.progress import ProgressOnce, with_progress
from tfdistill.losses import SoftTargets

X, Y = data(32)


@pytest.fixture(scope="module")
def distiller():
    made = Distiller(*pair(), SoftTargets(4.0))
    made.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return made


def shown(function):
    with contextlib.redirect_stdout(io.StringIO()) as text:
        result = function()
    return text.getvalue(), result


@pytest.mark.parametrize("verbose", ["auto", 1, 2])
def test_the_loss_is_shown_once(distiller, verbose):
    text, history = shown(lambda: distiller.fit(X, Y, epochs=2, verbose=verbose, validation_data=(X, Y)).history)
    assert " loss: " in text
    assert " val_loss: " in text
    assert "student_loss: " in text
    assert "total_loss" not in text
    assert history["loss"] == history["total_loss"]
    assert history["val_loss"] == history["val_total_loss"]
    text, logs = shown(lambda: distiller.evaluate(X, Y, verbose=verbose, return_dict=True))
    assert " loss: " in text
    assert "total_loss" not in text
    assert logs["loss"] == logs["total_loss"]


def test_silence_is_silence(distiller):
    assert shown(lambda: (distiller.fit(X, Y, verbose=0), distiller.evaluate(X, Y, verbose=0)))[0] == ""


class Watch(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        self.logs = logs


@pytest.mark.parametrize("how", ["one", "list", "tuple", "nested"])
def test_other_callbacks_get_all_logs(distiller, how):
    watch = Watch()
    callbacks = {"one": watch, "list": [watch], "tuple": (watch,), "nested": [[watch]]}[how]
    shown(lambda: distiller.fit(X, Y, verbose=2, callbacks=callbacks))
    assert {"loss", "total_loss"} <= set(watch.logs)


def test_a_progress_bar_of_ones_own_is_kept(distiller):
    own = keras.callbacks.ProgbarLogger()
    assert with_progress([own], 1) == [own]
    assert "total_loss" in shown(lambda: distiller.fit(X, Y, verbose=2, callbacks=[own]))[0]


def test_no_batch_waits_for_the_screen():
    # Keras hands logs to its own bar without waiting for the device, and asks other callbacks whether they allow that.
    callbacks = keras.callbacks.CallbackList([ProgressOnce()], add_progbar=True)
    assert callbacks._async_train == keras.callbacks.CallbackList([], add_progbar=True)._async_train
    assert len(callbacks.callbacks) == 1
    assert with_progress(callbacks, 1) is callbacks
