"""A copy of a model that is compiled and evaluated without touching the original."""

import keras


class CompiledCopy(keras.Model):
    """A model behind a compile state of its own: trained and evaluated on labels, while the caller's model keeps how it was compiled.

    Args:
        model: A `keras.Model`.
    """

    def __init__(self, model, **kwargs):
        super().__init__(**kwargs)
        self.model = model

    def call(self, inputs, training=None):
        return self.model(inputs, training=training)
