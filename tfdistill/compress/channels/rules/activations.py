"""Activations: what computes each channel of its own, and what does not."""

import keras

from tfdistill.compress.channels.call import is_elementwise

_LINEAR = keras.activations.get("linear")


def name_of(function):
    """Returns a name of an activation for a reason."""
    return getattr(function, "__name__", type(function).__name__)


def require_elementwise(call, activation, labels):
    """Leaves channels whole if an activation, or one of a list, computes over them, as a softmax does.

    Args:
        call: `ChannelCall`.
        activation: Function or layer, or None.
        labels: Labels of the axis that it may compute over.
    """
    if labels is not None and activation is not None and activation is not _LINEAR and not is_elementwise(activation):
        call.keep(labels, f"its activation {name_of(activation)} does not compute each channel of its own, or has weights")
