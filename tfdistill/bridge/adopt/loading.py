"""Makes the parts of an adopted model from a saved config, after every name in it is checked."""

import contextlib
import copy
import json

import keras

from tfdistill.bridge import imports
from tfdistill.bridge.adopt.check_config import check_config, in_safe_mode
from tfdistill.bridge.adopt.serialization import legacy_scope
from tfdistill.bridge.convert.activations import translate_activation
from tfdistill.bridge.recurrent_kernels import leave_out_cudnn
from tfdistill.errors import ModelError, TfdistillError
from tfdistill.graph.layers import all_layers

_KEYS = ("legacy", "name", "original", "trainable")


def parts(config, custom_objects=None, safe_mode=None):
    """Makes the tf_keras model and the original of an adopted model's config.

    Args:
        config: What `AdoptedModel.get_config` returned.
        custom_objects: Dict of name to class or function that the config may name, besides what is registered with Keras or tf_keras.
        safe_mode: See `check_config.in_safe_mode`.

    Returns:
        Pair of the `tf_keras.Model` with fresh weights, and the Keras 3 model that it was made from, or None.

    Raises:
        ModelError: if the config names what may not be loaded, or is damaged.
    """
    owner = "The adopted model"
    if not isinstance(config, dict) or set(_KEYS) - set(config):
        held = sorted(config, key=str) if isinstance(config, dict) else type(config).__name__
        raise ModelError(f"{owner} has a config that holds {held}.", f"a dict with {list(_KEYS)}")
    for key, kinds, expected in (("name", str, "a string"), ("trainable", bool, "true or false"), ("legacy", str, "JSON text")):
        if not isinstance(config[key], kinds):
            raise ModelError(f"{owner} has a config whose '{key}' is a {type(config[key]).__name__}: {config[key]!r:.80}.", expected)
    owner = f"The adopted model '{config['name']:.80}'"
    try:
        # Keras's scope replaces the one around it, so it is opened only where there are custom objects.
        with keras.saving.custom_object_scope(custom_objects) if custom_objects else contextlib.nullcontext():
            original = _original(config["original"], owner, safe_mode)
            legacy = checked_tf_keras_model(config["legacy"], owner, safe_mode)
            # What is no model is refused by the adopted model.
            for layer in all_layers(legacy) if isinstance(legacy, imports.tf_keras().Model) else ():
                leave_out_cudnn(layer)  # as in the model that was saved
            return legacy, original
    except TfdistillError:
        raise
    except Exception as error:  # whatever Keras, tf_keras and a user's own classes raise at a damaged config
        raise ModelError(
            f"{owner} cannot be made from its config: {type(error).__name__}: {error}", "the config of a model that was saved"
        ) from error


def _original(config, owner, safe_mode):
    if config is None:
        return None
    check_config(config, f"{owner}, in the Keras 3 model that it was made from,", safe_mode)
    original = keras.saving.deserialize_keras_object(copy.deepcopy(config), safe_mode=in_safe_mode(safe_mode))
    if not isinstance(original, keras.Model):
        raise ModelError(f"{owner} was made from a {type(original).__name__}, according to its config.", "a Keras 3 model")
    for layer in all_layers(original):
        translate_activation(getattr(layer, "activation", None))  # makes the user's own functions known to tf_keras
    return original


def checked_tf_keras_model(text, owner, safe_mode):
    """Makes a tf_keras model of the JSON text of its config, after every name in it is checked; its weights are fresh.

    Args:
        text: JSON text.
        owner: What it describes, for errors; see `check_config`.
        safe_mode: See `check_config.in_safe_mode`.

    Raises:
        ModelError: if the config names what may not be loaded.
    """
    config = json.loads(text)
    with legacy_scope():
        used = check_config(config, owner, safe_mode)
    # What was checked is what is read, and nothing else.
    with legacy_scope(used), imports.tf_keras_safe_mode(in_safe_mode(safe_mode)):
        return imports.tf_keras().models.model_from_json(json.dumps(config))
