"""Operations of `keras.ops` that are a plain tf_keras layer: pruning and quantization know those."""

import keras

from tfdistill.bridge import imports
from tfdistill.graph.functional import implicit_mask
from tfdistill.graph.keras_internals import is_keras_operation

_MERGE = {"Add": "Add", "Subtract": "Subtract", "Multiply": "Multiply", "Maximum": "Maximum", "Minimum": "Minimum"}
_ACTIVATION = {"Relu": "relu", "Sigmoid": "sigmoid", "Tanh": "tanh"}


def native_layer(call):
    """Finds the tf_keras layer for a call of an operation.

    Args:
        call: `graph.Call` of a `keras.Operation` that is not a layer.

    Returns:
        Pair of the layer and the symbolic tensor, or list of them, to call it on; None where no layer computes exactly the same.
    """
    operation = call.operation
    kind = type(operation)
    if not is_keras_operation(kind):
        return None
    layers = imports.tf_keras().layers
    base = {"name": operation.name}
    tensors = call.tensors()
    # Operations of Keras 3 drop the padding mask that the layers of tf_keras pass on.
    if any(implicit_mask(tensor) is not None for tensor in tensors):
        return None
    if kind.__name__ in _MERGE and len(tensors) == 2 and len(call.args) == 2 and not call.kwargs and _alike(*tensors):
        return getattr(layers, _MERGE[kind.__name__])(dtype=tensors[0].dtype, **base), tensors
    if len(tensors) == 1 and len(call.args) == 1 and not call.kwargs and tensors[0].dtype in ("float32", "float16", "bfloat16"):
        if kind.__name__ in _ACTIVATION:
            return layers.Activation(_ACTIVATION[kind.__name__], dtype=tensors[0].dtype, **base), tensors[0]
        if kind.__name__ == "Relu6":
            return layers.ReLU(max_value=6.0, dtype=tensors[0].dtype, **base), tensors[0]
    return None


def _alike(one, other):
    # With equal shapes and dtypes there is neither broadcasting nor promotion, in which the two Keras differ.
    floats = ("float32", "float16", "bfloat16")
    return one.shape == other.shape and one.dtype == other.dtype and one.dtype in floats and isinstance(one, keras.KerasTensor)
