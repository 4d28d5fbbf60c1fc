"""Finds what softmaxes alone read: numbers that are added to hide scores, such as -1e9, may be others there that do and leave a range for the scores."""

import dataclasses

from tfdistill.bridge import layer_facts
from tfdistill.bridge.adopt.introspection import computing_layer, kind_of
from tfdistill.bridge.integer import traced
from tfdistill.compress.quantize.consumers import activation_of, operation_of
from tfdistill.compress.quantize.layer_table import passes

# What scores go through on their way to a softmax.
_ADDING = {
    *("Add", "Subtract", "Where", "Select", "Concatenate"),
    *("__operators__.add", "__operators__.sub", "math.add", "math.subtract", "where", "concat"),
}


def with_scores(places):
    """Returns places with `scores` and `hides` as they are.

    Args:
        places: Dict of path to `Place`.
    """
    known = {id(place.layer): place for place in places.values()}
    found = {path: dataclasses.replace(place, scores=_is_read_as_scores(place, known)) for path, place in places.items()}
    known = {id(place.layer): place for place in found.values() if place.scores}
    return {path: dataclasses.replace(place, hides=place.scores and _hides(place, known)) for path, place in found.items()}


def _hides(place, known, passed=()):
    """Whether numbers that hide scores may be in the output of a layer: it computes with such constants, or reads them from another layer or from an input."""
    layer, passed = place.layer, {*passed, id(place.layer)}
    if operation_of(layer) is not None or kind_of(layer) == "Lambda" or computing_layer(layer) is not layer:
        function, specs, _ = layer_facts.as_function(layer)
        if traced.hides_scores(function, specs):
            return True
    adds = kind_of(layer) in _ADDING or operation_of(layer) in _ADDING or passes(layer, kind_of(layer))
    return adds and any(
        source is None or (id(source) in known and id(source) not in passed and _hides(known[id(source)], known, passed))
        for source in place.sources
    )


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
