"""What the constructors of layers take: of Keras 3's, of tf_keras's and of the user's."""

import functools
import inspect

import keras

from tfdistill.bridge import imports
from tfdistill.graph.keras_internals import is_keras_own

# What Keras itself puts into a config. A constructor without **kwargs does not take it, and then the config without it makes the layer.
_OF_KERAS = ("name", "trainable", "dtype")


@functools.cache
def constructor_arguments(kind):
    """Returns the set of the names that a layer class's constructor takes, those that it hands on to its bases included."""
    names = set()
    for base in kind.__mro__:
        if "__init__" in vars(base):
            parameters = inspect.signature(base.__init__).parameters.values()
            names |= {p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
            if not any(p.kind == p.VAR_KEYWORD for p in parameters):
                break
    if issubclass(kind, imports.tf_keras().layers.RNN):
        names.add("zero_output_for_mask")  # taken out of **kwargs there
    return names - {"self"}


def config_of(layer, kind=None):
    """Returns the config of a Keras 3 layer; also where Keras writes none, as it was given a dtype policy and its class has no arguments of its own.

    Args:
        layer: The layer.
        kind: Class among its bases whose config is asked for; its own if None.

    Raises:
        NotImplementedError: if its class, which is not Keras's own, has no config.
    """
    kind = kind or type(layer)
    try:
        return kind.get_config(layer)
    except NotImplementedError:
        if not is_keras_own(kind) or constructor_arguments(kind) - constructor_arguments(keras.layers.Layer):
            raise
        penalty = layer.activity_regularizer and keras.regularizers.serialize(layer.activity_regularizer)
        policy = keras.dtype_policies.serialize(layer.dtype_policy)
        return {"name": layer.name, "trainable": layer.trainable, "dtype": policy, "activity_regularizer": penalty}


def not_taken(kind, config):
    """Lists the entries of a layer's config that Keras has added and that its constructor does not take.

    Args:
        kind: Class of the layer. What a `from_config` of its own takes is its own affair.
        config: What its `get_config` returned.
    """
    return [] if _has_own(kind, "from_config") else [name for name in _OF_KERAS if name in config and not _takes(kind, name)]


def _takes(kind, name):
    parameters = inspect.signature(kind.__init__).parameters
    return name in parameters or any(p.kind == p.VAR_KEYWORD for p in parameters.values())


def _has_own(kind, method):
    return not is_keras_own(next(one for one in kind.__mro__ if method in vars(one)))
