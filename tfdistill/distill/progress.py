"""Keras's progress bar, with the whole loss once: a Distiller logs it as `loss` and, as Keras's Distiller does, as `total_loss`."""

import keras

SAME_AS_LOSS = ("total_loss", "val_total_loss")


class ProgressOnce(keras.callbacks.ProgbarLogger):
    """Keras's progress bar without the logs that repeat `loss`. The history and other callbacks have all of them."""

    # As Keras's own, which waits for no batch.
    async_safe = True

    def on_train_batch_end(self, batch, logs=None):
        super().on_train_batch_end(batch, _once(logs))

    def on_test_batch_end(self, batch, logs=None):
        super().on_test_batch_end(batch, _once(logs))

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, _once(logs))

    def on_test_end(self, logs=None):
        super().on_test_end(_once(logs))


def with_progress(callbacks, verbose):
    """Adds the progress bar to the callbacks of a `fit` or `evaluate`, unless it is silent or they hold one.

    Args:
        callbacks: None, a callback, or a list of them; a `keras.callbacks.CallbackList` is returned as it is.
        verbose: As in `keras.Model.fit`.

    Returns:
        The callbacks, with the progress bar as the last one.
    """
    if not verbose or isinstance(callbacks, keras.callbacks.CallbackList):
        return callbacks
    given = keras.tree.flatten(callbacks) if callbacks else []
    return callbacks if any(isinstance(c, keras.callbacks.ProgbarLogger) for c in given) else [*given, ProgressOnce()]


def _once(logs):
    return {name: value for name, value in logs.items() if name not in SAME_AS_LOSS} if logs else logs
