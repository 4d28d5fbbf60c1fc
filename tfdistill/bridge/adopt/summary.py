"""The summary of an adopted model: the layers as the user named them, without what wraps or hosts them."""

import math

from tfdistill.bridge.adopt import introspection
from tfdistill.bridge.adopt.layers import walk


def own_layers(legacy):
    """Lists the layers directly in a tf_keras model, taken out of their wrappers; quantizers of inputs are left out."""
    return [introspection.unwrap(layer) for path, layer in walk(legacy) if "/" not in path]


def summary_lines(legacy, name, nested=False, trainable=False, layer_range=None):
    """Returns the lines of a summary.

    Args:
        legacy: tf_keras model.
        name: Name of the adopted model.
        nested: Whether the layers of nested models are listed too.
        trainable: Whether it is said which layers are trained.
        layer_range: Names of the first and the last layer to list, or None.
    """
    rows = [("layer (type)", "output shape", "parameters", "trained")]
    shown = [(path, layer) for path, layer in walk(legacy) if nested or "/" not in path]
    if layer_range is not None:
        names = [path for path, _ in shown]
        shown = shown[names.index(layer_range[0]) : names.index(layer_range[1]) + 1]
    for path, layer in shown:
        count = sum(_size(weight) for weight in introspection.weights_of(layer))
        kind, wrapped = introspection.kind_of(layer), introspection.state_of(layer)
        kind = kind if wrapped is None else f"{kind}, {wrapped.step}"
        rows.append((f"{path} ({kind})", str(layer.output_shape), f"{count:,}", "yes" if layer.trainable else "no"))
    rows = rows if trainable else [row[:3] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [f"Model: {name}", *lines]


def _size(weight):
    return math.prod(weight.shape)
