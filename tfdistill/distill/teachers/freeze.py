"""Freezes a teacher while a student is trained, and gives its `trainable` flags back."""

import threading

import keras

from tfdistill.bridge.adopt.adopt import AdoptedModel

# One entry for each layer or variable that is frozen at the moment: id -> [number of holders, its own flag, the object itself].
# It is shared by all `Freeze` objects, because two of them may hold one teacher, or two teachers that share a layer.
_held = {}
_lock = threading.RLock()


class Freeze:
    """Holds a model's `trainable` flags at False inside a `with` block, and gives them back as they were.

    Blocks may be nested and may run in several threads, also for models that share layers: a flag comes back when the last block that holds
    it ends, whatever ends it.

    Args:
        model: A `keras.Model`. Nothing happens to it outside the block.
    """

    def __init__(self, model):
        self._model = model
        # One list of held objects for each block that is open.
        self._open = []

    def __enter__(self):
        with _lock:
            held = []
            self._open.append(held)
            try:
                for thing in _flagged(self._model):
                    entry = _held.setdefault(id(thing), [0, thing.trainable, thing])
                    entry[0] += 1
                    held.append(thing)
                self._model.trainable = False
            except BaseException:
                self._release(self._open.pop())
                raise
        return self

    def __exit__(self, *exception):
        with _lock:
            self._release(self._open.pop())

    @staticmethod
    def _release(things):
        free = []
        for thing in things:
            entry = _held[id(thing)]
            entry[0] -= 1
            if entry[0] == 0:
                free.append((thing, _held.pop(id(thing))[1]))
        # Outermost first: a layer hands its flag down to what is inside it, which gets its own back afterwards.
        for thing, flag in free:
            if thing.trainable != flag:
                thing.trainable = flag
        # What another block still holds was perhaps handed a flag, too.
        for thing in things:
            if id(thing) in _held and thing.trainable:
                thing.trainable = False


def _flagged(model):
    """Everything in a model that has a `trainable` flag: layers from the outermost in, then their variables."""
    layers, queue, seen = [], [model], set()
    while queue:
        layer = queue.pop(0)
        if id(layer) not in seen and isinstance(layer, keras.Layer):
            seen.add(id(layer))
            layers.append(layer)
            queue += list(layer._flatten_layers(include_self=False, recursive=False))
    # The layers of an adopted model have flags of their own.
    legacy = [inner for layer in layers if isinstance(layer, AdoptedModel) for inner in layer.legacy._flatten_layers()]
    variables = [v for layer in layers for v in layer.weights]
    return list({id(thing): thing for thing in [*layers, *legacy, *variables]}.values())
