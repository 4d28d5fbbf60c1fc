"""Multiply-accumulates of one call of a layer or operation, from shapes alone.

What is counted is products that are summed: convolutions, dense and recurrent layers, attention, products of matrices. A bias, an activation, a normalization,
pooling, resizing and arithmetic between tensors count nothing, as in the figures that papers give.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import keras

from tfdistill.graph.carriers import CARRIERS
from tfdistill.graph.keras_internals import is_keras_operation, is_keras_own
from tfdistill.graph.layers import attention_projections


@dataclasses.dataclass(frozen=True)
class Shapes:
    """Shapes at one call.

    Attributes:
        args: Positional arguments of the call with a shape in place of each tensor (with the batch in front) and array, flat; other arguments are left out.
        kwargs: Keyword arguments that are tensors: name -> shape.
        outputs: Shapes of the outputs.
        shape_of: Function of a variable that returns its shape.
    """

    args: list
    kwargs: dict
    outputs: list
    shape_of: Callable[[Any], tuple]

    def named(self, position, name):
        """Returns the shape of an argument that may be given by its position or its name; None where it is not given."""
        return self.args[position] if position < len(self.args) else self.kwargs.get(name)

    def size(self, variable):
        """Returns the number of elements of a variable."""
        return math.prod(self.shape_of(variable))


def macs_of(operation, shapes):
    """Counts the multiply-accumulates of one example in one call.

    Args:
        operation: Layer or operation.
        shapes: `Shapes`, without free sizes apart from the batch.

    Returns:
        An int; None where it is not known: of classes that are not Keras's, and operations of linear algebra that no table below has.
    """
    for kind in type(operation).__mro__:
        if kind in (keras.layers.Layer, object) or not is_keras_own(kind):
            break
        if kind in _LAYERS:
            return _LAYERS[kind](operation, shapes)
        if is_keras_operation(kind) and kind.__name__ in _OPERATIONS:
            return _OPERATIONS[kind.__name__](operation, shapes)
    known = isinstance(operation, CARRIERS) or is_keras_own(type(operation))
    return None if not known or type(operation).__name__ in _UNKNOWN else 0


def _positions(layer, shape):
    """Returns the number of places of a shape beside its channels."""
    return math.prod(shape[2:] if getattr(layer, "data_format", None) == "channels_first" else shape[1:-1])


def _convolution(layer, shapes):
    return _positions(layer, shapes.outputs[0]) * shapes.size(layer.kernel)


def _transposed(layer, shapes):
    return _positions(layer, shapes.args[0]) * shapes.size(layer.kernel)


def _separable(layer, shapes):
    return _positions(layer, shapes.outputs[0]) * (shapes.size(layer.depthwise_kernel) + shapes.size(layer.pointwise_kernel))


def _dense(layer, shapes):
    return math.prod(shapes.outputs[0][1:-1]) * shapes.size(layer.kernel)


def _einsum_dense(layer, shapes):
    return einsum_macs(layer.equation, [shapes.args[0], shapes.shape_of(layer.kernel)])


def einsum_macs(equation, operands):
    """Counts the multiply-accumulates of an einsum of two operands: the product of all its sizes, without the batch.

    Args:
        equation: Such as `"abc,cd->abd"`, with or without an ellipsis.
        operands: Shapes; the first axis of the first one is the batch.
    """
    sizes = {}
    for labels, shape in zip(equation.replace(" ", "").split("->")[0].split(","), operands, strict=True):
        before, dots, after = labels.partition("...")
        hidden = range(len(shape) - len(before) - len(after)) if dots else ()
        # An ellipsis stands for the last axes of its kind in every operand.
        names = [*before, *(f"...{len(hidden) - i}" for i in hidden), *after]
        sizes.update({name: n for name, n in zip(names, shape, strict=True) if n != 1 or name not in sizes})
        if operands[0] is shape:
            batch = names[0]
    return math.prod(n for name, n in sizes.items() if name != batch) if len(operands) > 1 else 0


def _attention(layer, shapes):
    query, value = shapes.named(0, "query"), shapes.named(1, "value")
    key = shapes.named(2, "key") or value
    dense = attention_projections(layer)
    reads = {"query": query, "key": key, "value": value, "gate": query, "output": query}
    projected = sum(math.prod(reads[name][1:-1]) * shapes.size(one.kernel) for name, one in dense.items())
    heads, width = shapes.shape_of(dense["query"].kernel)[-2:]
    axes = getattr(layer, "attention_axes", None) or range(1, len(query) - 1)
    attended = math.prod(value[axis] for axis in ((axes,) if isinstance(axes, int) else axes))
    return projected + math.prod(query[1:-1]) * attended * heads * (width + shapes.shape_of(dense["value"].kernel)[-1])


def _dot_attention(layer, shapes):
    query, value = shapes.args[0], shapes.args[1]
    return query[-2] * value[-2] * (query[-1] + value[-1])


def _dot_product_attention(operation, shapes):
    query, value = shapes.named(0, "query"), shapes.named(2, "value")
    return query[1] * value[1] * query[2] * (query[3] + value[3])


_CELLS = (keras.layers.SimpleRNNCell, keras.layers.LSTMCell, keras.layers.GRUCell)


def _recurrent(layer, shapes):
    cells = layer.cell.cells if isinstance(layer.cell, keras.layers.StackedRNNCells) else [layer.cell]
    if not all(type(cell) in _CELLS for cell in cells):
        return None
    return shapes.args[0][1] * sum(shapes.size(cell.kernel) + shapes.size(cell.recurrent_kernel) for cell in cells)


def _recurrent_convolution(layer, shapes):
    # The states have the size of the convolved inputs.
    cell, shape = layer.cell, shapes.outputs[0][1 if layer.return_sequences else 0 :]
    return shapes.args[0][1] * _positions(layer, (None, *shape[1:])) * (shapes.size(cell.kernel) + shapes.size(cell.recurrent_kernel))


def _bidirectional(layer, shapes):
    several = isinstance(layer.forward_layer, keras.layers.RNN) and [
        _recurrent(one, shapes) for one in (layer.forward_layer, layer.backward_layer)
    ]
    return sum(several) if several and None not in several else None


def _each_step(layer, shapes):
    inner = dataclasses.replace(
        shapes, args=[(x[0], *x[2:]) for x in shapes.args[:1]], kwargs={}, outputs=[(x[0], *x[2:]) for x in shapes.outputs]
    )
    once = None if isinstance(layer.layer, keras.Model) else macs_of(layer.layer, inner)
    return None if once is None else once * shapes.args[0][1]


def _wrapped(layer, shapes):
    return macs_of(layer.layer, shapes)


def _looked_up(layer, shapes):
    # Only where it maps back to the words its table is a matrix.
    width = shapes.shape_of(layer.embeddings)[0]
    return (
        math.prod(shapes.args[0][1:]) * width if shapes.outputs[0][-1] == width and shapes.outputs[0][1:-1] == shapes.args[0][1:-1] else 0
    )


def _batch_dot(layer, shapes):
    first, out = shapes.args[0], shapes.outputs[0]
    axes = layer.axes if isinstance(layer.axes, int) else layer.axes[0]
    return math.prod(out[1:]) * first[axes]


def _matrix_product(operation, shapes):
    first, second = shapes.args
    summed = first[-1]
    return math.prod(shapes.outputs[0][1:]) * summed if len(first) > 1 or len(second) > 1 else summed


def _einsum(operation, shapes):
    return einsum_macs(operation.subscripts, shapes.args) if len(shapes.args) < 3 and "->" in operation.subscripts else None


def _convolution_operation(operation, shapes):
    return _positions(operation, shapes.outputs[0]) * math.prod(shapes.args[1])


def _transposed_operation(operation, shapes):
    return _positions(operation, shapes.args[0]) * math.prod(shapes.args[1])


def _separable_operation(operation, shapes):
    return _positions(operation, shapes.outputs[0]) * (math.prod(shapes.args[1]) + math.prod(shapes.args[2]))


_layers = keras.layers
_LAYERS: dict[type, Callable[[Any, Shapes], int | None]] = {
    **dict.fromkeys((_layers.Conv1D, _layers.Conv2D, _layers.Conv3D, _layers.DepthwiseConv1D, _layers.DepthwiseConv2D), _convolution),
    **dict.fromkeys((_layers.Conv1DTranspose, _layers.Conv2DTranspose, _layers.Conv3DTranspose), _transposed),
    **dict.fromkeys((_layers.SeparableConv1D, _layers.SeparableConv2D), _separable),
    **dict.fromkeys((_layers.MultiHeadAttention, _layers.GroupQueryAttention), _attention),
    **dict.fromkeys((_layers.Attention, _layers.AdditiveAttention), _dot_attention),
    **dict.fromkeys((_layers.ConvLSTM1D, _layers.ConvLSTM2D, _layers.ConvLSTM3D), _recurrent_convolution),
    _layers.Dense: _dense,
    _layers.EinsumDense: _einsum_dense,
    _layers.RNN: _recurrent,
    _layers.Bidirectional: _bidirectional,
    _layers.TimeDistributed: _each_step,
    _layers.SpectralNormalization: _wrapped,
    _layers.Embedding: lambda layer, shapes: 0,
    _layers.Dot: _batch_dot,
}
if hasattr(_layers, "ReversibleEmbedding"):  # not in Keras 3.12
    _LAYERS[_layers.ReversibleEmbedding] = _looked_up
_OPERATIONS: dict[str, Callable[[Any, Shapes], int | None]] = {
    **dict.fromkeys(("Conv", "DepthwiseConv"), _convolution_operation),
    "ConvTranspose": _transposed_operation,
    "SeparableConv": _separable_operation,
    "Matmul": _matrix_product,
    "Einsum": _einsum,
    "DotProductAttention": _dot_product_attention,
}
# Operations that sum products and are not in the table.
_UNKNOWN = frozenset(
    [
        "Dot",
        "Tensordot",
        "Vdot",
        "Inner",
        "Outer",
        "Cross",
        "Kron",
        "Correlate",
        "FFT",
        "FFT2",
        "IFFT2",
        "RFFT",
        "IRFFT",
        "STFT",
        "ISTFT",
        "Det",
        "Inv",
        "Eig",
        "Eigh",
        "Lstsq",
        "LuFactor",
        "Norm",
        "QR",
        "Solve",
        "SolveTriangular",
        "SVD",
        "Cholesky",
        "CholeskyInverse",
        "Expm",
        "JVP",
        "Pinv",
        "Lambda",
        "CTCLoss",
        "CTCDecode",
        "Vectorize",
        "Map",
        "Scan",
        "AssociativeScan",
        "WhileLoop",
        "ForiLoop",
        "Cond",
    ]
)
