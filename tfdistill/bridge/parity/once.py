"""Compares a model with its tf_keras copy once, and again only when either has changed.

A comparison is not repeated where it would have to end as before: where all that decides it is equal. That is known of models that consist of Keras's own
code alone. Any class, function or replaced method of a user's may read what cannot be seen from here; such a model is compared every time.
"""

import hashlib
import json
import weakref

import keras
import numpy as np

from tfdistill.bridge.convert.layers import is_registered
from tfdistill.bridge.parity.check import check_parity
from tfdistill.graph.keras_internals import is_keras_own
from tfdistill.graph.layers import all_layers

# Model -> digest of all that its last comparison without a disagreement depended on.
_AGREED: "weakref.WeakKeyDictionary[keras.Model, str]" = weakref.WeakKeyDictionary()
_PLAIN = (bool, int, float, str, type(None))


def check_parity_once(model, tf_keras_model, seed):
    """Calls `check_parity`, unless the two models agreed before and nothing has changed since.

    Args:
        model: Functional or Sequential `keras.Model`.
        tf_keras_model: Its tf_keras copy, made anew each time.
        seed: Seed of the random input.

    Raises:
        BridgeError: as `check_parity`.
    """
    digest = _digest(model, tf_keras_model, seed)
    if digest is None or _AGREED.get(model) != digest:
        check_parity(model, tf_keras_model, seed=seed)
        if digest is not None:
            _AGREED[model] = digest


def _digest(model, tf_keras_model, seed):
    """Returns a digest of what both models compute and of the seed; None where code of a user's has a part in it."""
    layers = all_layers(model)
    if not all(map(_is_known, layers)) or not all(map(_is_known_copy, all_layers(tf_keras_model))):
        return None
    try:
        ours = json.dumps([model.get_config(), [_plain_attributes(layer) for layer in layers]], sort_keys=True)
        theirs = tf_keras_model.to_json()
    except (NotImplementedError, TypeError, ValueError):
        return None
    digest = hashlib.sha256(json.dumps([seed, ours, theirs]).encode())
    for variable in [*model.weights, *tf_keras_model.weights]:
        digest.update(f"{tuple(variable.shape)} {keras.backend.standardize_dtype(variable.dtype)}".encode())
        digest.update(np.ravel(variable.numpy()).view("uint8"))
    return digest.hexdigest()


def _is_known(layer):
    """Whether a Keras 3 layer computes what its class, a class of Keras's, its settings and its weights say."""
    kind = type(layer)
    # A model is trained by functions that are kept in it; only those that replace its methods count.
    own = vars(layer).items()
    functions = [value for name, value in own if callable(value) and (hasattr(kind, name) or not isinstance(layer, keras.Model))]
    return is_keras_own(kind) and not is_registered(kind) and all(map(_is_keras_function, functions))


def _is_keras_function(value):
    return isinstance(getattr(value, "__module__", None), str) and is_keras_own(value)


def _is_known_copy(layer):
    return type(layer).__module__.partition(".")[0] in ("tf_keras", "tfdistill")


def _plain_attributes(layer):
    """Returns a dict of the attributes of a layer that are numbers, strings, None, or lists, tuples and dicts of these."""
    return {name: _copied(value) for name, value in vars(layer).items() if _is_plain(value)}


def _is_plain(value):
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(item) for key, item in value.items())
    return isinstance(value, _PLAIN) or (isinstance(value, (list, tuple)) and all(map(_is_plain, value)))


def _copied(value):
    # TensorFlow wraps the lists and dicts that are attributes of a layer; json does not know its wrappers.
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, (list, tuple)) else value
