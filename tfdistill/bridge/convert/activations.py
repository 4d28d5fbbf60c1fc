"""Translates activations of Keras 3 into those that tf_keras can serialize and clone."""

import functools
import hashlib
import json
import types

import keras

from tfdistill.bridge import imports

# Activations that are the same function in Keras 3 and tf_keras, to the bit. Equal names do not imply that: `hard_sigmoid` is min(max(0.2 x + 0.5, 0), 1) in tf_keras and
# relu6(x + 3) / 6 in Keras 3.
SAME = {
    "elu",
    "exponential",
    "gelu",
    "linear",
    "mish",
    "relu",
    "selu",
    "sigmoid",
    "softmax",
    "softplus",
    "softsign",
    "tanh",
}


def translate_activation(activation):
    """Returns what to give a tf_keras layer for an activation of a Keras 3 layer.

    Args:
        activation: None, or a callable: a function of `keras.activations`, a function of the user's, or a Keras 3 layer.

    Returns:
        None, a name that tf_keras knows, or a function registered with tf_keras so that the layer can be cloned and saved.
    """
    if activation is None:
        return None
    name = getattr(activation, "__name__", None)
    own = name is not None and getattr(keras.activations, name, None) is activation
    if own and name in SAME:
        return name
    if own and name in ("silu", "swish"):
        return "swish"
    if own:
        return _of_keras(name)
    return _of_user(activation)


def _register(name, call):
    def activation(x):
        return call(x)

    activation.__name__ = activation.__qualname__ = name
    return imports.tf_keras().utils.register_keras_serializable("tfdistill", name)(activation)


@functools.cache
def _of_keras(name):
    return _register(name, getattr(keras.activations, name))


# Registered name -> (the user's callable, the function registered for it). A second callable of the same name gets a number.
_USER: dict[str, tuple] = {}


def _of_user(activation):
    if isinstance(activation, types.FunctionType):
        name = f"{activation.__module__}.{activation.__qualname__}"
    else:
        text = json.dumps(keras.saving.serialize_keras_object(activation), sort_keys=True, default=str)
        name = f"{type(activation).__name__}_{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    base, number = name, 1
    while name in _USER and _USER[name][0] is not activation:
        number += 1
        name = f"{base}_{number}"
    if name not in _USER:
        _USER[name] = (activation, _register(name, activation))
    return _USER[name][1]
