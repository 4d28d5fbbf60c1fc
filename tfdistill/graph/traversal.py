"""Walks over the layers of a model."""

from tfdistill.graph.layers import child_layers


def sublayers(layer):
    """Lists the layers directly inside a layer that have weights, in order: of a functional model from input to output, else as they were made."""
    found = {id(child): child for child in child_layers(layer) if child.weights}
    return list(found.values())


def own_weights(layer):
    """Lists the weights of a layer itself, without those of layers inside it."""
    inside = {id(w) for child in sublayers(layer) for w in child.weights}
    return [w for w in layer.weights if id(w) not in inside]


def units(layer):
    """Lists the layers in a layer, itself included, that have weights of their own; outer ones first."""
    found = {}
    for unit in [*([layer] if own_weights(layer) else []), *(u for child in sublayers(layer) for u in units(child))]:
        found.setdefault(id(unit), unit)
    return list(found.values())


def kind(layer):
    """Returns a description of a layer without sizes and names. A layer that only holds others (a nested model, a block's class) counts as those layers."""
    own = own_weights(layer)
    itself = (type(layer).__name__, tuple(len(w.shape) for w in own)) if own else ()
    return itself, tuple(kind(child) for child in sublayers(layer))
