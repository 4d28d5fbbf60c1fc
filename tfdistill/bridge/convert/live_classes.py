"""Makes layers again from their configs where their classes are not registered with Keras, as long as this process holds the classes."""

import copy
import weakref

import keras

from tfdistill.graph.layers import all_layers

# Name -> class, as Keras writes no module of a class that a script defines. In a notebook the last definition counts; the comparison of the copy with the
# model would show another one. Keras finds registered classes by itself, in any process.
_LIVE: weakref.WeakValueDictionary[str, type] = weakref.WeakValueDictionary()


def remember(layer):
    """Remembers the classes of a live layer and of the layers inside it."""
    for one in all_layers(layer):
        kind = type(one)
        if keras.saving.get_registered_object(keras.saving.get_registered_name(kind)) is None:
            _LIVE[kind.__name__] = kind


def made_again(config):
    """Returns a new layer from a serialized one. The config is not changed.

    Raises:
        TypeError: if a class is neither Keras's, nor registered, nor remembered.
    """
    with keras.saving.custom_object_scope(dict(_named(config))):
        return keras.saving.deserialize_keras_object(copy.deepcopy(config))


def _named(config):
    """Yields the names that a config has for remembered classes, with the classes."""
    if isinstance(config, dict):
        kind = _LIVE.get(config.get("class_name"))
        if kind is not None and config.get("module") in (None, kind.__module__):
            yield kind.__name__, kind
    for value in config.values() if isinstance(config, dict) else config if isinstance(config, (list, tuple)) else ():
        yield from _named(value)
