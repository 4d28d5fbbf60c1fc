"""Teachers, and how they are kept still while a student learns."""

import keras


class Freeze:
    """Holds a model's `trainable` flags at False, and gives them back as they were.

    Args:
        model: A `keras.Model`. Nothing happens to it until `hold()`.
    """

    def __init__(self, model):
        self._model = model
        self._flags = None

    def hold(self):
        """Freezes the model; does nothing if it is held already."""
        if self._flags is None:
            layers = _layers(self._model)
            variables = [v for layer in layers for v in layer.weights]
            self._flags = [(thing, thing.trainable) for thing in [*layers, *variables]]
            self._model.trainable = False

    def release(self):
        """Gives every layer and weight the flag that it had before `hold()`."""
        if self._flags is not None:
            # Outermost first: a layer's flag is handed down to what is inside it, which then gets its own back.
            for thing, flag in self._flags:
                if thing.trainable != flag:
                    thing.trainable = flag
            self._flags = None


def _layers(model):
    layers, queue, seen = [], [model], set()
    while queue:
        layer = queue.pop(0)
        if id(layer) not in seen and isinstance(layer, keras.Layer):
            seen.add(id(layer))
            layers.append(layer)
            queue += list(layer._flatten_layers(include_self=False, recursive=False))
    return layers
