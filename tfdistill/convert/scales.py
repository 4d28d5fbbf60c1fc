"""Finds what makes an integer file one that LiteRT refuses to open: sums of products that its kernels, XNNPACK, would have to multiply by too large a number."""

import numpy as np

from tfdistill.errors import ExportError
from tfdistill.runtime.schema import schema

# Operations that sum products of integers, with the places of what they multiply among their inputs.
_PRODUCTS = {"CONV_2D": (0, 1), "DEPTHWISE_CONV_2D": (0, 1), "FULLY_CONNECTED": (0, 1), "TRANSPOSE_CONV": (2, 1)}
# XNNPACK multiplies such a sum by the scales of both factors over that of the result, which has to be below this; one step of the sum is then larger than all of
# the result's range. It refuses the whole file otherwise, where for other operations it leaves them to TFLite's own kernels.
_BELOW = 256.0


def require_bounded_scales(content, name):
    """Refuses an int8 file that XNNPACK, and with it LiteRT, would not open.

    Args:
        content: The file as bytes.
        name: What the error calls it.

    Raises:
        ExportError: naming the tensors.
    """
    classes = schema()
    model = classes.ModelT.InitFromObj(classes.Model.GetRootAs(content, 0))
    kinds = {value: key for key, value in vars(classes.BuiltinOperator).items() if isinstance(value, int)}
    codes = [kinds[max(code.builtinCode or 0, code.deprecatedBuiltinCode or 0)] for code in model.operatorCodes]
    found = [
        f"{codes[operator.opcodeIndex]} -> '{graph.tensors[operator.outputs[0]].name.decode(errors='replace')}' by {factor:,.0f}"
        for graph in model.subgraphs
        for operator in graph.operators or []
        if (factor := _factor(graph.tensors, operator, codes[operator.opcodeIndex], classes)) >= _BELOW
    ]
    if found:
        raise ExportError(
            f"LiteRT would not open '{name}': XNNPACK multiplies no sum of products by {_BELOW:g} or more, but it would have to: {'; '.join(found)}.",
            "ranges of the results that hold at least one product of their inputs",
            "train with a smaller learning rate, from the weights as they were before: weights that have run away, next to an output that is bounded, do this",
        )


def _factor(tensors, operator, kind, classes):
    """Returns the largest number that a sum of products of an operation is multiplied by; 0 for operations and types that have none."""
    if kind not in _PRODUCTS:
        return 0.0
    factors = [tensors[operator.inputs[place]] for place in _PRODUCTS[kind]] + [tensors[operator.outputs[0]]]
    if any(tensor.type != classes.TensorType.INT8 for tensor in factors):
        return 0.0
    one, other, result = (float(np.max(tensor.quantization.scale)) for tensor in factors)
    return one * other / result
