"""Arguments of a Keras operation as plain JSON, tensors and variables replaced by their numbers, and back.

Keras's own serialization turns tuples into lists; an index such as `x[:, 0]` needs them kept.
"""

import keras
import numpy as np

from tfdistill.errors import BridgeError

_PLAIN = (str, int, float, bool, type(None))


def encode(value, tensors, variables):
    """Encodes `value`; symbolic tensors and variables met on the way are appended to the two lists and replaced by their positions.

    Args:
        value: Any nesting of tuples, lists and dicts around tensors, variables, arrays, slices, dtypes and plain values.
        tensors: List that receives the symbolic tensors.
        variables: List that receives the `keras.Variable`s.

    Returns:
        Dicts, lists and plain values only.

    Raises:
        BridgeError: for a value of another kind.
    """

    def inner(x):
        return encode(x, tensors, variables)

    if isinstance(value, keras.KerasTensor):
        tensors.append(value)
        return {"tensor": len(tensors) - 1}
    if isinstance(value, keras.Variable):
        variables.append(value)
        return {"variable": len(variables) - 1}
    if isinstance(value, (tuple, list)):
        return {type(value).__name__ if type(value) in (tuple, list) else "tuple": [inner(x) for x in value]}
    if isinstance(value, dict):
        return {"dict": [[k, inner(x)] for k, x in value.items()]}
    if isinstance(value, slice):
        return {"slice": [inner(value.start), inner(value.stop), inner(value.step)]}
    if value is Ellipsis:
        return {"ellipsis": True}
    if isinstance(value, np.generic):
        return {"array": [str(value.dtype), value.item()]}
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, (type, np.dtype)) or type(value).__name__ == "DType":
        return keras.backend.standardize_dtype(value)
    if hasattr(value, "__array__"):
        array = np.asarray(value)
        return {"array": [str(array.dtype), array.astype("float32").tolist() if array.dtype.name == "bfloat16" else array.tolist()]}
    raise BridgeError(
        f"An argument of type {type(value).__name__} cannot be carried over: {value!r:.200}.",
        "tensors, arrays, numbers, strings, slices and nestings of them",
    )


def decode(value, tensors, variables):
    """Turns what `encode` gave back into arguments.

    Args:
        value: The encoded form.
        tensors: What to put in place of the symbolic tensors, by position.
        variables: What to put in place of the variables, by position.
    """

    def inner(x):
        return decode(x, tensors, variables)

    if not isinstance(value, dict):
        return value
    ((kind, held),) = value.items()
    if kind == "tensor":
        return tensors[held]
    if kind == "variable":
        return variables[held]
    if kind == "tuple":
        return tuple(inner(x) for x in held)
    if kind == "list":
        return [inner(x) for x in held]
    if kind == "dict":
        return {k: inner(x) for k, x in held}
    if kind == "slice":
        return slice(*(inner(x) for x in held))
    if kind == "ellipsis":
        return Ellipsis
    dtype, items = held
    return keras.ops.convert_to_tensor(items, dtype=dtype) if dtype == "bfloat16" else np.asarray(items, dtype=dtype)


def tensor_positions(value):
    """Returns the set of the positions of all tensors in an encoded form."""
    if isinstance(value, dict):
        ((kind, held),) = value.items()
        return {held} if kind == "tensor" else tensor_positions(held)
    return set().union(*map(tensor_positions, value)) if isinstance(value, list) else set()
