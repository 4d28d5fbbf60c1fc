"""Makes a second layer like a Keras 3 layer."""

import inspect

from tfdistill.errors import BridgeError

# What Keras itself puts into a config. A constructor without **kwargs does not take it, and then the config without it makes the layer.
_OF_KERAS = ("name", "trainable", "dtype")


def again(layer):
    """Makes a layer like another one from its `get_config()`, with new weights.

    Args:
        layer: Keras 3 layer.

    Raises:
        BridgeError: if Keras cannot make one.
    """
    kind = type(layer)
    try:
        config = layer.get_config()
        left_out = [name for name in _OF_KERAS if name in config and not _takes(kind, name)] if "from_config" not in _own(kind) else []
        made = kind.from_config({name: value for name, value in config.items() if name not in left_out})
    except (NotImplementedError, TypeError, ValueError) as error:
        raise BridgeError(
            f"A second layer like '{layer.name}' ({kind.__name__}) cannot be made from its get_config(): {error}",
            "a layer that Keras can save and load",
            "give the class a get_config that holds its constructor's arguments, and decorate classes and functions of your own with "
            "@keras.saving.register_keras_serializable()",
        ) from error
    if "name" in left_out:
        made.name = layer.name
    if "dtype" in left_out:
        made.dtype_policy = layer.dtype_policy
    made.trainable = layer.trainable
    return made


def _takes(kind, name):
    parameters = inspect.signature(kind.__init__).parameters
    return name in parameters or any(p.kind == p.VAR_KEYWORD for p in parameters.values())


def _own(kind):
    """Names of what a class and its bases of the user's define."""
    return {name for one in kind.__mro__ if not one.__module__.startswith(("keras.", "builtins")) for name in vars(one)}
