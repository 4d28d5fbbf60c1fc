"""Channels of what stands for the inside of an opened layer: weights that it owns, and operations with the size of the batch among their settings."""

import copy

import keras

from tfdistill.compress.channels.call import LeaveWhole
from tfdistill.compress.channels.rules import operations
from tfdistill.compress.channels.rules.shapes import sizes_setting
from tfdistill.graph.batches import BATCH


def held_weight(call):
    """A weight as a tensor: each of its axes has elements of its own, until it meets another tensor."""
    weight = call.layer.weight
    last = len(weight.shape) - 1
    # A vector scales or shifts channels that others make; a kernel makes those of its last axis.
    axes = [None if n == 1 else call.new(n) if place == last and last > 0 else call.units.new(n) for place, n in enumerate(weight.shape)]
    call.weight(weight, dict(enumerate(axes)), kernel=last > 0)
    sizes_setting(call, "shape", axes)
    return [tuple(axes)]


def held_constant(call):
    """An array, all of which stays."""
    return [(None,) * len(call.output_shapes[0])]


def with_mask(call):
    """A tensor and the mask that is put on it."""
    for labels in call.inputs[1]:
        call.keep(labels, "the mask depends on them")
    return [call.inputs[0]]


def sized(call):
    """An operation of `keras.ops`, behind the tensor that says how large the batch is."""
    operation = call.layer
    rule = operations.RULES.get(operation.inner_name)
    if rule is None:
        raise LeaveWhole(f"no rule is known for a {operation.inner_name}")
    if operation.rows != 1:
        raise LeaveWhole("it computes with the size of the batch")
    inner = keras.saving.deserialize_keras_object(copy.deepcopy(operation.operation))
    sizes = getattr(inner, "newshape", getattr(inner, "shape", None))
    if sizes is None or sizes[0] != BATCH:
        raise LeaveWhole("it computes with the size of the batch")
    found = rule(call.inside(inner, ("operation", "config"), skip=1))

    def changed(removal, outputs):
        return [{**spec, "shape": [*removal.shape(axes, spec["shape"])]} for spec, axes in zip(outputs, found, strict=True)]

    call.set_config("outputs", changed)
    return found


RULES = {"HeldWeight": held_weight, "HeldConstant": held_constant, "WithMask": with_mask, "SizedOperation": sized}
