"""Rounded weights that are given to quantized layers from outside, for whoever looks for better ones than the nearest."""

import contextlib
import contextvars

_given = contextvars.ContextVar("_given", default=None)


@contextlib.contextmanager
def given_weights(tensors):
    """While open, quantized layers compute with these tensors where they would round a weight of their own. In float, they keep to their own.

    Args:
        tensors: Dict of id of a quantized layer to a dict of a weight's path to a float32 tensor. What is put into it later counts, too.
    """
    token = _given.set(tensors)
    try:
        yield
    finally:
        _given.reset(token)


def given_weight(layer, path):
    """Returns the tensor that is given to a quantized layer for one of its weights; None if there is none."""
    tensors = _given.get()
    return None if tensors is None else tensors.get(id(layer), {}).get(path)
