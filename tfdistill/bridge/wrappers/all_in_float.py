"""Switches the rounding of quantized layers off, for whoever measures what it does."""

import contextlib
import contextvars

_unrounded = contextvars.ContextVar("_unrounded", default=False)


@contextlib.contextmanager
def left_in_float():
    """While open, quantized layers compute in float, as if they rounded nothing: to see what the rounding of one layer, or of all others, does."""
    token = _unrounded.set(True)
    try:
        yield
    finally:
        _unrounded.reset(token)


def is_left_in_float():
    """Whether `left_in_float` is open."""
    return _unrounded.get()
