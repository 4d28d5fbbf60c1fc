"""Channels of normalizations."""

import numpy as np

from tfdistill.compress.channels.call import LeaveWhole


def batch(call):
    """All four weights go with the channels that they normalize."""
    layer, axes = call.layer, call.inputs[0]
    labels = axes[layer.axis]
    call.weight(layer.gamma, {0: labels}, gate=True)
    for weight in (layer.beta, layer.moving_mean, layer.moving_variance):
        call.weight(weight, {0: labels})
    return [axes]


def layer_normalization(call):
    """Statistics over some axes: over what is left of them, when channels are removed."""
    layer, axes = call.layer, call.inputs[0]
    places = [layer.axis] if isinstance(layer.axis, int) else list(layer.axis)
    labels = [axes[place] for place in places]
    for name in ("gamma", "beta", "scale"):
        weight = getattr(layer, name, None)
        if hasattr(weight, "shape"):
            call.weight(weight, dict(enumerate(labels)))
    if any(one is not None for one in labels):
        call.normalizes_over()
    return [axes]


def group(call):
    """Whole groups go, so that statistics stay what they are; a single group has those of what is left."""
    layer, axes = call.layer, call.inputs[0]
    place = layer.axis % len(axes)
    axes = call.only(axes, place)
    labels = axes[place]
    call.weight(layer.gamma, {0: labels})
    call.weight(layer.beta, {0: labels})
    if labels is None:
        call.setting("groups", None)
        return [axes]
    if layer.groups == 1:
        call.normalizes_over()
    else:
        size = len(labels) // layer.groups
        for one in np.split(labels, layer.groups):
            call.together(one, "a group has channels that stay")
        call.setting("groups", labels[::size])
    return [axes]


def unit(call):
    """A norm over an axis is the same without what is zero."""
    return [call.inputs[0]]


def rescaling(call):
    """One number for all channels changes nothing."""
    if any(getattr(value, "shape", ()) or isinstance(value, (list, tuple)) for value in (call.layer.scale, call.layer.offset)):
        raise LeaveWhole("a number for each channel, which is no weight")
    return [call.inputs[0]]


def of_data(call):
    """Statistics that were adapted to data are those of all channels."""
    for labels in call.inputs[0]:
        call.keep(labels, "its statistics are those of data")
    return [call.inputs[0]]


def layer_scale(call):
    """A factor for each channel goes with it."""
    call.weight(call.layer.gamma, {0: call.inputs[0][-1]})
    call.setting("projection_dim", call.inputs[0][-1])
    return [call.inputs[0]]


RULES = {
    **dict.fromkeys(("BatchNormalization",), batch),
    **dict.fromkeys(("LayerNormalization", "RMSNormalization"), layer_normalization),
    "GroupNormalization": group,
    "UnitNormalization": unit,
    "Rescaling": rescaling,
    "Normalization": of_data,
    "LayerScale": layer_scale,  # of keras.applications.ConvNeXt
}
