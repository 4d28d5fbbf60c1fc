"""Batches as structures of arrays: their length, their parts, and the inputs in them."""

import keras
import numpy as np


def rows_of(structure):
    """Returns the number of elements in a batch: the length of its first array."""
    return len(keras.tree.flatten(structure)[0])


def inputs_of(batch):
    """Returns the inputs of a batch `x`, `(x, y)` or `(x, y, sample_weight)`."""
    return keras.utils.unpack_x_y_sample_weight(batch)[0]


def slices(structure, size, first=0):
    """Yields the elements of a structure of arrays in batches; the last may be smaller.

    Args:
        structure: Structure of arrays `(n, ...)`.
        size: Number of elements in a batch.
        first: Number of the batch to begin with.
    """
    for start in range(first * size, rows_of(structure), size):
        yield keras.tree.map_structure(lambda a, start=start: a[start : start + size], structure)


def rechunked(batches, size):
    """Yields batches of any sizes as batches of `size` elements; the last may be smaller."""
    held, rows = [], 0
    for batch in batches:
        held.append(batch)
        rows += rows_of(batch)
        while rows >= size:
            whole = _concatenated(held)
            yield keras.tree.map_structure(lambda a: a[:size], whole)
            rows -= size
            held = [keras.tree.map_structure(lambda a: a[size:], whole)] if rows else []
    if rows:
        yield _concatenated(held)


def _concatenated(batches):
    return batches[0] if len(batches) == 1 else keras.tree.map_structure(lambda *parts: np.concatenate(parts), *batches)
