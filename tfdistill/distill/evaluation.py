"""A copy of a model that is compiled and evaluated without touching the original."""

import keras


class CompiledCopy(keras.Model):
    """Wraps a model with a compile state of its own: it is trained and evaluated on labels, and the model stays compiled as it is.

    Args:
        model: A `keras.Model`.
    """

    def __init__(self, model, **kwargs):
        super().__init__(**kwargs)
        self.model = model

    def call(self, inputs, training=None):
        return self.model(inputs, training=training)
