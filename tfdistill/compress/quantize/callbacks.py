"""The callbacks of quantization-aware training: one shows that the first step goes on, one stops a training as soon as it turns NaN."""

import keras
import numpy as np

from tfdistill.bridge.adopt.adopt import AdoptedModel
from tfdistill.bridge.adopt.trained_ranges import quantized_layers, require_finite
from tfdistill.graph.layers import all_layers
from tfdistill.utils.progress import progress


class ShowFirstStep(keras.callbacks.Callback):
    """Shows a progress bar on a terminal while the first step of `fit` is traced and optimized, if that takes over two seconds, as several recurrent layers do."""

    def on_train_begin(self, logs=None):
        model, run, waiting = self.model, self.model.train_function, [True]

        def first(*args):
            if model.train_function is first:
                model.train_function = run
            if not waiting:
                return run(*args)
            waiting.clear()
            with progress("tracing the first step of training"):
                return run(*args)

        if run is not None:  # which a model with a loop of its own has not
            model.train_function = first


class StopAtNaN(keras.callbacks.Callback):
    """Stops a quantization-aware training that has turned NaN or infinite, naming the first layer in which it has.

    A range that is NaN stays NaN, so every later batch is wasted. After each batch only the loss in the logs is checked, which costs little. Weights
    and ranges are checked when it is not finite, and after each epoch.

    The callback finds the quantization-aware models inside the model that is trained, so it works in `adopted.fit` and in a Distiller's `fit`.

    Raises:
        InvariantError: during training.
    """

    def __init__(self):
        super().__init__()
        self._epoch, self._adopted = 0, []

    def on_train_begin(self, logs=None):
        found = [layer for layer in all_layers(self.model) if isinstance(layer, AdoptedModel)]
        self._adopted = [model for model in found if quantized_layers(model.legacy)]

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        loss = (logs or {}).get("loss")
        if loss is not None and not np.isfinite(np.asarray(loss)).all():
            self._check(f" in epoch {self._epoch + 1}, at the latest in batch {batch + 1}")

    def on_epoch_end(self, epoch, logs=None):
        self._check(f" in epoch {epoch + 1}")

    def _check(self, when):
        for model in self._adopted:
            require_finite(model, when)
