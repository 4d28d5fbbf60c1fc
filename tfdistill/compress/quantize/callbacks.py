"""A quantization-aware model in training: what notices that it has turned NaN."""

import keras
import numpy as np

from tfdistill.bridge.adopt.adopt import AdoptedModel
from tfdistill.bridge.adopt.trained_ranges import quantized_layers, require_finite


class StopAtNaN(keras.callbacks.Callback):
    """Ends a quantization-aware training that has turned NaN or infinite, naming the layer at which that began.

    A range that is NaN stays so for ever, and every later batch is wasted. The loss in the logs is looked at after each batch, which costs one number; weights
    and ranges are looked at where it is not finite, and after each epoch.

    It finds the quantization-aware models inside the model that is trained, so it serves `adopted.fit` and a Distiller's `fit` alike.

    Raises:
        InvariantError: while training.
    """

    def __init__(self):
        super().__init__()
        self._epoch, self._adopted = 0, []

    def on_train_begin(self, logs=None):
        found = [layer for layer in self.model._flatten_layers() if isinstance(layer, AdoptedModel)]
        self._adopted = [model for model in found if quantized_layers(model.legacy)]

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        loss = (logs or {}).get("loss")
        if loss is not None and not np.isfinite(np.asarray(loss)).all():
            self._look(f" in epoch {self._epoch + 1}, at the latest in batch {batch + 1}")

    def on_epoch_end(self, epoch, logs=None):
        self._look(f" in epoch {epoch + 1}")

    def _look(self, when):
        for model in self._adopted:
            require_finite(model, when)
