"""Builds a model anew with the channels that stay."""

import math

import numpy as np

from tfdistill.compress.remake import Remade


def remaining(axes, removal, value, scale=None):
    """Returns what remains of the value of a weight.

    Args:
        axes: Labels or None for each axis.
        removal: `Removal`.
        value: Array.
        scale: Labels of an axis that the layer divides by the square root of the size of; None for none.
    """
    for axis, labels in enumerate(axes):
        if labels is not None:
            value = np.take(value, removal.stay(labels), axis)
    if scale is not None:
        value = value * np.asarray(math.sqrt(removal.size(scale, len(scale)) / len(scale)), value.dtype)
    return value


class Resized(Remade):
    """A model and its layers made anew without some channels.

    Args:
        model: The original, which is not changed.
        trace: Its `ChannelTrace`.
        removal: `Removal`.
    """

    def __init__(self, model, trace, removal):
        self._trace, self._removal = trace, removal
        super().__init__(model, trace.graph)

    def _sizes(self, view, values):
        shapes = super()._sizes(view, values)
        if values is None:
            return shapes
        axes = [self._trace.axes[id(value)] for value in values]
        # What is free in the nested model stays free: it may be called on tensors of several sizes.
        return [
            tuple(n and self._removal.size(labels, n) for labels, n in zip(a, shape, strict=True))
            for a, shape in zip(axes, shapes, strict=True)
        ]

    def _settings(self, operation):
        return {
            path: lambda old, function=function: function(self._removal, old)
            for path, function in self._trace.settings.get(id(operation), {}).items()
        }

    def _value(self, variable):
        value, known = super()._value(variable), self._trace.weights.get(id(variable))
        return value if known is None else remaining(known.axes, self._removal, value, known.scale)
