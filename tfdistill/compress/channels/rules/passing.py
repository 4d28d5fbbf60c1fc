"""What passes channels on one by one: activations, dropout, pooling, sums of tensors."""

import functools

from tfdistill.compress.channels.call import LeaveWhole
from tfdistill.compress.channels.rules.activations import require_elementwise
from tfdistill.compress.channels.rules.convolutions import channel_axis
from tfdistill.graph.layers import IDLE


def same(call):
    """Each element is computed of one element of the input."""
    return [call.inputs[0]]


def activation(call):
    """Element by element, or over channels that stay then, as the function says."""
    for labels in call.inputs[0]:
        require_elementwise(call, call.layer.activation, labels)
    return [call.inputs[0]]


def prelu(call):
    """Slopes go with the channels that they are for."""
    axes, alpha = call.inputs[0], call.layer.alpha
    # An axis of size 1 is shared.
    call.weight(
        alpha, {axis: axes[axis + 1] for axis, n in enumerate(alpha.shape) if axes[axis + 1] is not None and n == len(axes[axis + 1])}
    )
    return [axes]


def softmax(call):
    """A softmax over channels depends on all of them."""
    axes = call.inputs[0]
    for axis in [call.layer.axis] if isinstance(call.layer.axis, int) else call.layer.axis:
        call.keep(axes[axis], "a softmax over them")
    return [axes]


def spatial(call):
    """Pooling, padding, cropping and enlarging: of each channel its own."""
    axes = call.inputs[0]
    return [call.only(axes, channel_axis(call.layer, axes))]


def pooled(call):
    """Of each channel one number, or one in each place where sizes are kept as 1."""
    axes = call.inputs[0]
    place = channel_axis(call.layer, axes)
    labels = call.only(axes, place)[place]
    rank = len(call.output_shapes[0])
    return [(None, labels) if rank == 2 else tuple(labels if axis == place else None for axis in range(rank))]


def broadcast(call, tensors):
    """Returns the axes of what is computed of several tensors element by element, and couples their channels.

    Args:
        call: `ChannelCall`.
        tensors: List of pairs (axes, shape).
    """
    rank = max(len(shape) for _, shape in tensors)
    found = []
    for place in range(-rank, 0):
        present = [(axes[place], shape[place]) for axes, shape in tensors if -place <= len(shape)]
        size = max((n for _, n in present if n is not None), default=None)
        if any(n is None for _, n in present):
            size = None
        wide = [labels for labels, n in present if n == size]
        for labels, n in present:
            if n != size:
                call.keep(labels, "an axis of size 1 that is repeated")
        found.append(functools.reduce(call.join, wide))
    return tuple(found)


def merged(call):
    """Tensors computed element by element: their channels are coupled."""
    if len({len(shape) for shape in call.input_shapes}) > 1:
        raise LeaveWhole("its inputs have different numbers of axes")
    return [broadcast(call, list(zip(call.inputs, call.input_shapes, strict=True)))]


def masking(call):
    """A step is masked by all of its channels."""
    for labels in call.inputs[0]:
        call.keep(labels, "the mask depends on them")
    return [call.inputs[0]]


_POOLS = [f"{kind}Pooling{n}D" for kind in ("Max", "Average") for n in (1, 2, 3)]
_ADAPTIVE = [f"Adaptive{kind}Pooling{n}D" for kind in ("Max", "Average") for n in (1, 2, 3)]
_GLOBAL = [f"Global{kind}Pooling{n}D" for kind in ("Max", "Average") for n in (1, 2, 3)]
_SPATIAL = [f"{kind}{n}D" for kind in ("ZeroPadding", "Cropping", "UpSampling") for n in (1, 2, 3)]
_SAME = ["ReLU", "LeakyReLU", "ELU", *IDLE]
RULES = {
    **dict.fromkeys(_SAME, same),
    **dict.fromkeys([*_POOLS, *_ADAPTIVE, *_SPATIAL], spatial),
    **dict.fromkeys(_GLOBAL, pooled),
    **dict.fromkeys(("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "CustomScaleLayer"), merged),
    "Activation": activation,
    "PReLU": prelu,
    "Softmax": softmax,
    "Masking": masking,
}
