"""Other settings for quantized layers, for whoever measures what other bits would do."""

import contextlib
import contextvars

_instead = contextvars.ContextVar("_instead", default=None)


@contextlib.contextmanager
def other_settings(layer, quantization):
    """While open, one quantized layer computes with other settings: other bits for its weights, or wide activations. Its variables stay.

    Args:
        layer: `QuantizedLayer`.
        quantization: `Quantization` of the same ranges.
    """
    token = _instead.set((id(layer), quantization))
    try:
        yield
    finally:
        _instead.reset(token)


def settings_instead(layer):
    """Returns the `Quantization` that `other_settings` has for a layer; None if it has none."""
    found = _instead.get()
    return found[1] if found is not None and found[0] == id(layer) else None
