"""A pruned model in training: the model that counts its steps, and the callback that keeps its zeros."""

import keras

from tfdistill.bridge.adopt import introspection
from tfdistill.bridge.adopt.adopt import AdoptedModel
from tfdistill.errors import ConfigurationError, ModelError
from tfdistill.graph.layers import all_layers


@keras.saving.register_keras_serializable(package="tfdistill")
class PrunedModel(AdoptedModel):
    """An adopted model with pruned layers.

    Each forward pass in training mode is one step of their schedules, however often a layer is called in it.
    """

    def call(self, inputs, training=None):
        if training:
            for layer in pruned_layers(self):
                layer.update_masks()
        return super().call(inputs, training=training)


def pruned_layers(model):
    """Lists the pruning wrappers in an `AdoptedModel`, nested ones too."""
    return [layer for layer in all_layers(model.legacy) if introspection.is_pruned(layer)]


def require_one_device(criterion):
    """Refuses a criterion by gradients where a strategy trains on several devices, each of which knows only its own gradients.

    Raises:
        ConfigurationError: naming the criterion.
    """
    import tensorflow as tf

    count = tf.distribute.get_strategy().num_replicas_in_sync
    if count > 1:
        raise ConfigurationError(
            f"criterion={criterion!r} under a strategy of {count} devices.",
            "one device",
            "prune by criterion='magnitude', or outside the strategy",
        )


class KeepPruned(keras.callbacks.Callback):
    """Sets pruned weights back to zero after every batch, so that what is saved or evaluated during training is as sparse as its masks.

    The callback finds the pruned models inside the model that is trained, so it works in `adopted.fit` and in a Distiller's `fit`.
    """

    def on_train_begin(self, logs=None):
        import tensorflow as tf

        adopted = [layer for layer in all_layers(self.model) if isinstance(layer, AdoptedModel)]
        pairs = [pair for model in adopted for layer in pruned_layers(model) for pair in introspection.masks_of(layer)]
        if not pairs:
            raise ModelError(f"The model '{self.model.name}' holds no pruned model.", "training of what Prune.apply returned")

        @tf.function
        def keep():
            for weight, mask in pairs:
                weight.assign(weight * tf.cast(mask, weight.dtype))

        self._keep = keep

    def on_epoch_begin(self, epoch, logs=None):
        self._keep()

    def on_train_batch_end(self, batch, logs=None):
        self._keep()

    def on_train_end(self, logs=None):
        # An optimizer with moving averages has just put those into the weights.
        self._keep()
