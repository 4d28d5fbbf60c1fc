"""Rescaling folded into the kernel of the layer behind it, in the file alone: training computes the same numbers in the order that the user wrote."""

_SOURCE = "_tfdistill_rescaled"


def rescaling_folded(layer, quantize, args, kwargs):
    """A Rescaling by two numbers, whose result is left unrounded: the file computes the layer behind it on the input of this one."""
    outputs = layer(*args, **kwargs)
    if quantize.in_the_file:
        setattr(outputs, _SOURCE, (args[0], float(layer.scale), float(layer.offset)))
    return outputs


def source_of(args):
    """Returns (tensor, scale, offset) such that the first argument of a call is tensor * scale + offset; None if it was not rescaled so."""
    return getattr(args[0], _SOURCE, None) if args else None


def added_bias(kernel, depthwise, offset):
    """Returns what a layer's bias grows by, if `offset` is added to its whole input.

    Args:
        kernel: float32 tensor of a convolution or dense layer.
        depthwise: Whether it is that of a depthwise convolution.
        offset: Number.
    """
    import tensorflow as tf

    rank = kernel.shape.rank
    return offset * tf.reshape(tf.reduce_sum(kernel, list(range(rank - 2 if depthwise else rank - 1))), (-1,))
