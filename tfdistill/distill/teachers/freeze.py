"""Freezes a teacher while a student is trained, and restores its `trainable` flags."""

import contextlib
import threading

import keras

from tfdistill.bridge.adopt.adopt import AdoptedModel
from tfdistill.graph.layers import all_layers, child_layers

# One entry for each layer or variable that is frozen: id -> [number of open blocks, its own flag, the object itself].
# All `Freeze` objects share it, as two of them may freeze one teacher, or two teachers that share a layer.
_held: dict[int, list] = {}
_lock = threading.RLock()


class Freeze:
    """Sets a model's `trainable` flags to False inside a `with` block, and restores them.

    Blocks may be nested and may run in several threads, also for models that share layers: a flag is restored when the last block that
    holds it ends, normally or by an exception.

    Args:
        model: A `keras.Model`. Nothing happens to it outside the block.
    """

    def __init__(self, model):
        self._model = model
        # One list of frozen objects for each open block.
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

    @contextlib.contextmanager
    def lifted(self):
        """While the block runs, the flags are as they were before every open `Freeze`: for a config that is written in the meantime."""
        with _lock:
            held = [thing for thing in _flagged(self._model) if id(thing) in _held]
            try:
                for thing in held:
                    thing.trainable = _held[id(thing)][1]
                yield
            finally:
                for thing in held:
                    thing.trainable = False

    @staticmethod
    def _release(things):
        free = []
        for thing in things:
            entry = _held[id(thing)]
            entry[0] -= 1
            if entry[0] == 0:
                free.append((thing, _held.pop(id(thing))[1]))
        # Outermost first: a layer passes its flag on to the layers inside it, whose own are restored afterwards.
        for thing, flag in free:
            if thing.trainable != flag:
                thing.trainable = flag
        # That may have reached objects which another block still holds.
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
            queue += child_layers(layer)
    # The layers of an adopted model have flags of their own.
    legacy = [inner for layer in layers if isinstance(layer, AdoptedModel) for inner in all_layers(layer.legacy)]
    variables = [v for layer in layers for v in layer.weights]
    return list({id(thing): thing for thing in [*layers, *legacy, *variables]}.values())
