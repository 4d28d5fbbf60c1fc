"""Checks that a teacher is finite: its weights, and NaN that its outputs do not show.

A compiled graph may fuse an activation into the operation before it; ReLU then turns NaN into zero, and the outputs of a broken teacher
look right.
"""

import keras
import numpy as np

from tfdistill.distill.objective.first_batch import refuse_nonfinite
from tfdistill.errors import DataError

# Rows of the first batch that are computed once more, operation by operation.
ROWS = 32


def check_finite_weights(teacher):
    """Refuses a teacher with NaN or infinity in its weights.

    Args:
        teacher: A `keras.Model`. Of a SavedModel the variables are checked; other black boxes have none.

    Raises:
        DataError: naming the weight, and the place of the first such value in it.
    """
    function = getattr(getattr(teacher, "_box", None), "function", None)
    for weight in (*teacher.weights, *getattr(function, "variables", ())):
        name = getattr(weight, "path", None) or weight.name
        fix = "load earlier weights; if this is a mask, write it with a large finite number such as -1e9"
        if keras.backend.is_float_dtype(keras.backend.standardize_dtype(weight.dtype)):
            refuse_nonfinite(keras.ops.convert_to_numpy(weight), f"The weight '{name}' of the teacher '{teacher.name}' has %s:", fix)


def refuse_hidden_nan(compute, inputs, names):
    """Refuses a teacher whose outputs are NaN when it is computed operation by operation.

    Args:
        compute: Function that takes inputs and returns a flat list of eager tensors `(rows, ...)`.
        inputs: Structure of arrays: the first batch.
        names: What each tensor is, for the error.

    Raises:
        DataError: naming the output and the element.
    """
    outputs = compute(keras.tree.map_structure(lambda a: a[:ROWS], inputs))
    for name, value in zip(names, outputs, strict=True):
        value = keras.ops.convert_to_numpy(value)
        bad = np.isnan(value.astype("float32")) if value.dtype.kind in "fV" or "float" in value.dtype.name else np.zeros(1, bool)
        if bad.any():
            row, *place = (int(i) for i in np.argwhere(bad)[0])
            raise DataError(
                f"The teacher's {name} is nan at {place} of element {row}, when it is computed operation by operation; a fused activation hides it.",
                "finite numbers",
                "look at the teacher's layers for what they do with this element: a logarithm, a division, an overflow",
            )
