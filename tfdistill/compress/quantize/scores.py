"""Finds what softmaxes alone read: numbers that are added to hide scores, such as -1e9, may be others there that do and leave a range for the scores."""

import dataclasses

from tfdistill.bridge.adopt.introspection import kind_of
from tfdistill.compress.quantize.consumers import activation_of, operation_of
from tfdistill.compress.quantize.layer_table import passes

# What scores go through on their way to a softmax.
_ADDING = {
    *("Add", "Subtract", "Where", "Select", "Concatenate"),
    *("__operators__.add", "__operators__.sub", "math.add", "math.subtract", "where", "concat"),
}


def with_scores(places):
    """Returns places with `scores` as it is.

    Args:
        places: Dict of path to `Place`.
    """
    known = {id(place.layer): place for place in places.values()}
    return {path: dataclasses.replace(place, scores=_is_read_as_scores(place, known)) for path, place in places.items()}


def _is_read_as_scores(place, known, passed=()):
    passed = {*passed, id(place.layer)}
    return bool(place.readers) and all(
        reader is not None and id(reader) not in passed and _reads_scores(reader, known, passed) for reader in place.readers
    )


def _reads_scores(layer, known, passed):
    place, kind = known.get(id(layer)), kind_of(layer)
    if place is None:
        return False
    if activation_of(layer) == "softmax" and (kind in ("Softmax", "Activation") or operation_of(layer) is not None):
        return True
    adds = kind in _ADDING or operation_of(layer) in _ADDING or passes(layer, kind)
    return adds and _is_read_as_scores(place, known, passed)
