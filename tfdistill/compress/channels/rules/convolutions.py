"""Channels of convolutions: plain, grouped, transposed, depthwise and separable."""

import numpy as np

from tfdistill.compress.channels.call import repeated
from tfdistill.compress.channels.rules.activations import require_elementwise
from tfdistill.compress.channels.units import NONE


def channel_axis(layer, axes):
    """Returns the position of the channels among the axes of a tensor."""
    return 1 if getattr(layer, "data_format", None) == "channels_first" else len(axes) - 1


def _read(call):
    """Returns the labels of the channels that go in, and a function that makes the axes of the output of its own labels."""
    axes = call.inputs[0]
    place = channel_axis(call.layer, axes)
    labels = call.only(axes, place)[place]
    return labels, lambda made: [tuple(made if axis == place else None for axis in range(len(axes)))]


def _with_filters(call, made, outputs):
    """Says what depends on the filters that a layer makes beside its kernel; returns the axes of its output."""
    call.weight(call.layer.bias, {0: made})
    call.setting("filters", made)
    require_elementwise(call, call.layer.activation, made)
    return outputs(made)


def convolution(call):
    """Filters are made of their own; of grouped convolutions whole groups go."""
    layer = call.layer
    read, outputs = _read(call)
    made = call.new(layer.filters)
    if layer.groups == 1:
        call.weight(layer.kernel, {len(layer.kernel.shape) - 2: read, len(layer.kernel.shape) - 1: made}, kernel=True)
    else:
        # A group of channels that go in and the filters that read them are removed together.
        size = layer.filters // layer.groups
        if read is None:
            call.keep(made, "its groups of channels come from what stays as it is")
        else:
            for group, filters in zip(np.split(read, layer.groups), np.split(made, layer.groups), strict=True):
                columns = np.full((len(filters), group.shape[1] - 1), NONE)
                call.together(np.concatenate([group, np.concatenate([filters, columns], 1)]), "a group has channels that stay")
        call.weight(layer.kernel, {len(layer.kernel.shape) - 1: made}, kernel=True)
        call.setting("groups", made[::size])
    return _with_filters(call, made, outputs)


def transposed(call):
    """As a convolution, with the two last axes of the kernel the other way round."""
    layer = call.layer
    read, outputs = _read(call)
    made = call.new(layer.filters)
    rank = len(layer.kernel.shape)
    call.weight(layer.kernel, {rank - 2: made, rank - 1: read}, kernel=True)
    return _with_filters(call, made, outputs)


def depthwise(call):
    """Each channel goes with the one that it is made of, `depth_multiplier` times."""
    layer = call.layer
    read, outputs = _read(call)
    made = repeated(read, layer.depth_multiplier)
    call.weight(layer.kernel, {len(layer.kernel.shape) - 2: read}, kernel=True)
    call.weight(layer.bias, {0: made})
    require_elementwise(call, layer.activation, made)
    return outputs(made)


def separable(call):
    """A depthwise convolution, whose channels are read by one of size 1."""
    layer = call.layer
    read, outputs = _read(call)
    rank = len(layer.depthwise_kernel.shape)
    made = call.new(layer.filters)
    call.weight(layer.depthwise_kernel, {rank - 2: read}, kernel=True)
    call.weight(layer.pointwise_kernel, {rank - 2: repeated(read, layer.depth_multiplier), rank - 1: made}, kernel=True)
    return _with_filters(call, made, outputs)


RULES = {
    **dict.fromkeys(("Conv1D", "Conv2D", "Conv3D"), convolution),
    **dict.fromkeys(("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"), transposed),
    **dict.fromkeys(("DepthwiseConv1D", "DepthwiseConv2D"), depthwise),
    **dict.fromkeys(("SeparableConv1D", "SeparableConv2D"), separable),
}
