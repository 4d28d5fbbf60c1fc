"""The state that recurrent layers keep from one call to the next, in Keras 3 and tf_keras."""

import contextlib

import keras
import numpy as np

from tfdistill.bridge.adopt.adopt import AdoptedModel
from tfdistill.graph.layers import all_layers


def stateful_layers(model):
    """Lists the layers of a model that keep state between calls: those with `reset_state` or `reset_states`, unless they have `stateful=False`.

    Args:
        model: A built Keras model, or an adopted tf_keras model.
    """
    source = model.legacy if isinstance(model, AdoptedModel) else model
    layers = all_layers(source)[1:]
    return [layer for layer in layers if _reset_of(layer) and getattr(layer, "stateful", True) and not _is_model(layer)]


def reset_states(layers):
    """Resets the state of layers that keep it."""
    for layer in layers:
        states = keras.tree.flatten(getattr(layer, "states", None))
        if len(states) > 1 and all(hasattr(state, "assign") for state in states):
            for state in states:  # Keras cannot reset those of stacked cells, which are nested
                state.assign(keras.ops.zeros_like(state))
        else:
            _reset_of(layer)()


@contextlib.contextmanager
def initial_states(model):
    """Resets the state of a model's layers, and restores it at the end.

    Args:
        model: A built Keras model, or an adopted tf_keras model.

    Yields:
        The layers that keep state, for `reset_states`.
    """
    layers = stateful_layers(model)
    kept = [(variable, np.array(variable)) for layer in layers for variable in _state_of(layer)]
    try:
        reset_states(layers)
        yield layers
    finally:
        for variable, value in kept:
            variable.assign(value)


def _state_of(layer):
    # A recurrent layer lists its states; what another layer resets is among its variables that are not trained.
    states = [state for state in keras.tree.flatten(getattr(layer, "states", None)) if hasattr(state, "assign")]
    return states or layer.non_trainable_variables


def _reset_of(layer):
    return getattr(layer, "reset_state", None) or getattr(layer, "reset_states", None)


def _is_model(layer):
    return isinstance(layer, keras.Model) or hasattr(layer, "compile")
