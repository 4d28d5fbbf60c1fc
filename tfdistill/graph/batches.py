"""Graphs for batches of any size, from a run on a batch of one size.

Symbolic tensors have no size of the batch: what a layer computes from `ops.shape(x)[0]` fails. So a layer is run on symbolic tensors with a batch of `BATCH`
examples, and where a multiple of that number appears in the settings of an operation, the operation is made anew for each batch. What was made for each
example alike, such as a mask for what comes later, is kept once and repeated. Whether the result is right shows on data, with another size of the batch.

A layer inside may be called on several rows for each example, such as the windows of an image, and count on a multiple of that number: tensors keep it.
"""

import copy

import keras
import numpy as np

from tfdistill.errors import BridgeError
from tfdistill.graph.carriers import HeldConstant
from tfdistill.graph.functional import calls, filled, functional_model

# A prime number, of which no size in a model is likely to be a multiple.
BATCH = 211
_ROWS = "_rows_of_example"


def rows_of(tensor):
    """Returns how many rows of the first axis of a symbolic tensor belong to one example of the batch, as far as is known; 1 otherwise."""
    return getattr(tensor, _ROWS, 1)


def with_rows_of(tensor, other):
    """Returns a symbolic tensor that has as many rows for each example as another one."""
    if hasattr(other, _ROWS):
        vars(tensor)[_ROWS] = rows_of(other)
    return tensor


@keras.saving.register_keras_serializable(package="tfdistill")
class SizedOperation(keras.Operation):
    """An operation of `keras.ops` with the size of the batch among its settings, such as a reshape to `(batch, 4, 8)`.

    Args:
        operation: The serialized operation, with multiples of `BATCH` for those of the batch's size.
        outputs: List of `{"shape", "dtype"}` of its outputs.
        rows: How many rows of the tensor that says how large a batch is belong to one example.
        name: Name of the operation.
    """

    def __init__(self, operation, outputs, rows=1, name=None):
        super().__init__(name=name)
        self.operation, self.outputs, self.rows = operation, outputs, rows
        self.kind = type(keras.saving.deserialize_keras_object(copy.deepcopy(operation)))

    @property
    def inner_name(self):
        """Class name of the operation inside."""
        return self.operation["class_name"]

    def call(self, anchor, *args, **kwargs):
        batch = keras.ops.shape(anchor)[0]
        batch = batch if self.rows == 1 else batch // self.rows
        settings = {name: _resized(value, lambda size: size // BATCH * batch) for name, value in self.operation["config"].items()}
        return self.kind(**settings).call(*args, **kwargs)

    def compute_output_spec(self, anchor, *args, **kwargs):
        made = [keras.KerasTensor(tuple(spec["shape"]), dtype=spec["dtype"]) for spec in self.outputs]
        return made[0] if len(made) == 1 else made

    def get_config(self):
        return {"name": self.name, "operation": self.operation, "outputs": self.outputs, "rows": self.rows}


def name_of_operation(serialized):
    """Returns the class name of a serialized operation, of the operation inside where that is a `SizedOperation`."""
    inner = serialized["config"].get("operation") if serialized["class_name"] == SizedOperation.__name__ else None
    return (inner or serialized)["class_name"]


def _is_size(value):
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and value > 0 and value % BATCH == 0


def _resized(value, size):
    """Returns a setting with `size(n)` in place of every multiple n of `BATCH`."""
    if isinstance(value, (tuple, list)):
        return type(value)(_resized(item, size) for item in value)
    return size(value) if _is_size(value) else value


def with_free_batch(view, inputs):
    """Returns a functional model for batches of any size.

    Args:
        view: Functional model of inputs with a batch of `BATCH`.
        inputs: `keras.Input`s whose batch is free, in the order of its inputs; the first one says how large a batch is.

    Raises:
        BridgeError: if the view computes with the size of the batch in a way that is not known.
    """
    tensors, anchor = dict(zip(map(id, view.inputs), inputs, strict=True)), inputs[0]

    def repeated(value):
        """Replaces an array that is the same for each example of the batch."""
        if isinstance(value, keras.KerasTensor) or not hasattr(value, "__array__"):
            return value
        array = keras.ops.convert_to_numpy(value)
        if array.ndim == 0 or array.shape[0] != BATCH:
            return value
        if not (array == array[:1]).all():
            raise BridgeError("An array depends on the size of the batch.")
        dtype = keras.backend.standardize_dtype(value.dtype)
        return _sized(_broadcast(array.shape), [(array.shape, dtype)], rows_of(anchor))(anchor, HeldConstant(array[:1], dtype)(anchor))

    for call in calls(view):
        operation = call.operation
        if isinstance(operation, HeldConstant):
            outputs = repeated(operation.value)
            outputs = operation(anchor) if outputs is operation.value else outputs
        else:
            args, kwargs = keras.tree.map_structure(repeated, filled((call.args, call.kwargs), tensors))
            if not isinstance(operation, keras.layers.Layer):
                _refuse_sizes((args, kwargs))
                operation = _with_sizes(operation, call.outputs, rows_of(anchor))
                args = (anchor, *args) if isinstance(operation, SizedOperation) else args
            outputs = operation(*args, **kwargs)
        for kept, new in zip(call.outputs, keras.tree.flatten(outputs), strict=True):
            tensors[id(kept)] = new
            if kept.shape and _is_size(kept.shape[0]) and new.shape[0] is None:
                vars(new)[_ROWS] = kept.shape[0] // BATCH
    return functional_model(inputs, filled(view.output, tensors), view.name)


def _with_sizes(operation, outputs, rows):
    """Returns a `SizedOperation` for an operation with the size of the batch among its settings; any other operation itself."""
    try:
        config = operation.get_config()
    except (NotImplementedError, TypeError, ValueError):
        return operation
    found = []
    _resized([value for name, value in config.items() if name != "name"], found.append)
    return _sized(operation, [(x.shape, x.dtype) for x in outputs], rows) if found else operation


def _sized(operation, outputs, rows):
    specs = [{"shape": [None if _is_size(n) else n for n in shape], "dtype": dtype} for shape, dtype in outputs]
    serialized = keras.saving.serialize_keras_object(operation)
    serialized["config"] = {name: _unknown_once(value) for name, value in operation.get_config().items() if name != "name"}
    return SizedOperation(serialized, specs, rows)


def _unknown_once(value):
    """Returns a shape with -1 for its one unknown size."""
    shape = isinstance(value, (tuple, list)) and list(value).count(None) == 1 and -1 not in value
    return type(value)(-1 if n is None else n for n in value) if shape else value


def _refuse_sizes(arguments):
    if any(_is_size(value) for value in keras.tree.flatten(arguments)):
        raise BridgeError("An operation computes with the size of the batch as a number.")


def _broadcast(shape):
    """Returns the operation of `keras.ops.broadcast_to`, which has no public name."""
    return keras.ops.broadcast_to(keras.KerasTensor((1, *shape[1:])), shape)._keras_history.operation
