"""What TFLite's operations need to compute with activations of 16 bits."""

import math

from tfdistill.runtime.operations import operation_table

# Operations whose version rises with activations of 16 bits, to this. The converter gives the others the same in int8 and in int16x8 files.
VERSIONS = {"DEQUANTIZE": 3, "LEAKY_RELU": 2, "QUANTIZE": 2, "TRANSPOSE_CONV": 3}
# Operations with constants of their own beside activations, whose type an edit would have to change with them.
_NOT_EDITED = frozenset(["PRELU"])
# Operations with a kernel of int8 -> the places of the kernel and of the bias among their inputs.
WEIGHTS = {"CONV_2D": (1, 2), "DEPTHWISE_CONV_2D": (1, 2), "FULLY_CONNECTED": (1, 2), "TRANSPOSE_CONV": (1, 3)}
# Those of them that compute rightly with weights of 4 bits beside activations of 16; DEPTHWISE_CONV_2D takes the packed bytes for weights of 8.
WITH_FOUR_BITS = frozenset(["CONV_2D", "FULLY_CONNECTED"])
# Operations that move elements, or choose among them: what they give has the steps of what they read.
MOVING = frozenset(
    [
        *("CONCATENATION", "EXPAND_DIMS", "GATHER", "MAX_POOL_2D", "MIRROR_PAD", "PACK", "PAD", "REDUCE_MAX", "REDUCE_MIN", "RESHAPE"),
        *("BATCH_TO_SPACE_ND", "BROADCAST_TO", "RESIZE_NEAREST_NEIGHBOR", "REVERSE_V2", "SLICE", "SPACE_TO_BATCH_ND", "SPLIT", "SQUEEZE"),
        *("STRIDED_SLICE", "TILE", "TRANSPOSE", "UNPACK"),
    ]
)
# Operations whose kernels clip what they give to 0 and above, where they are asked to.
CLIPPING = frozenset(["ADD", "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "MUL", "SUB"])
# Scale and zero point that TFLite fixes for int8 outputs of softmax and sigmoid, and of tanh; those of int16 have the scale below.
_FIXED = {(1 / 256, -128), (1 / 128, 0)}
_FIXED_SCALE = 1 / 32768


def is_widened(name):
    """Whether an operation of an int8 file can compute with activations of 16 bits instead.

    Args:
        name: Its name in the .tflite schema.
    """
    return name not in _NOT_EDITED and bool(operation_table("builtin").takes(name, "int16"))


def wide_scale(scale, zero_point):
    """Returns the scale of the int16 tensor that holds what an int8 tensor holds, around 0: the larger end of its range is the last step.

    Args:
        scale: Of the int8 tensor, like the following.
        zero_point: An integer.
    """
    scale, zero_point = float(scale), int(zero_point)
    if any(zero_point == zero and math.isclose(scale, fixed, rel_tol=1e-6) for fixed, zero in _FIXED):
        return _FIXED_SCALE
    return max(127 - zero_point, 128 + zero_point) * scale / 32767
