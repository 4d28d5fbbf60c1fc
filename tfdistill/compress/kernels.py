"""What in a layer is a kernel, and what a layer costs."""

import math

import numpy as np

from tfdistill.legacy import adopt_scope as scope

_RECURRENT = ("cell.kernel", "cell.recurrent_kernel")

# Class name -> attributes of the weights that TFMOT prunes. Keras 3 and tf_keras use the same names.
PRUNABLE = {
    "Dense": ("kernel",),
    "Conv1D": ("kernel",),
    "Conv2D": ("kernel",),
    "Conv3D": ("kernel",),
    "Conv2DTranspose": ("kernel",),
    "Conv3DTranspose": ("kernel",),
    "SeparableConv1D": ("pointwise_kernel",),
    "SeparableConv2D": ("pointwise_kernel",),
    "Embedding": ("embeddings",),
    "SimpleRNN": _RECURRENT,
    "LSTM": _RECURRENT,
    "GRU": _RECURRENT,
}

DEPTHWISE = ("DepthwiseConv1D", "DepthwiseConv2D")
NORMALIZATIONS = (
    "BatchNormalization",
    "LayerNormalization",
    "GroupNormalization",
    "UnitNormalization",
    "Normalization",
    "SyncBatchNormalization",
)

_PER_OUTPUT_POSITION = ("Dense", "Conv1D", "Conv2D", "Conv3D", "SeparableConv1D", "SeparableConv2D", *DEPTHWISE)


def prunable_attributes(layer):
    """Returns the attribute names of the weights of `layer` that can be pruned; empty if there are none."""
    return PRUNABLE.get(type(scope.unwrap(layer)).__name__, ())


def parameters(layer):
    """Counts the parameters of the user's layer, without what TFMOT added."""
    own = {id(variable) for variable in scope.own_variables(layer)}
    return sum(math.prod(weight.shape) for weight in layer.weights if id(weight) not in own)


def macs(layer):
    """Counts the multiply-accumulates of a tf_keras layer per example.

    Returns:
        An int; None for layers whose count is not known: other classes, unknown sizes, several calls with different shapes.
    """
    inner = scope.unwrap(layer)
    if type(inner).__name__ not in _PER_OUTPUT_POSITION or len(layer.inbound_nodes) != 1:
        return None
    shape = layer.output_shape
    channels_first = getattr(inner, "data_format", None) == "channels_first"
    positions = shape[2:] if channels_first else shape[1:-1]
    if None in positions:
        return None
    kernels = sum(math.prod(weight.shape) for weight in inner.weights if "kernel" in weight.name)
    return math.prod(positions) * kernels


def zeros(value):
    """Counts the exact zeros of an array."""
    return int(value.size - np.count_nonzero(value))
