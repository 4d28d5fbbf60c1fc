"""What layers give on data: the sums of outer products by which data-aware factorization weights directions."""

import keras
import numpy as np

from tfdistill.compress.low_rank.forms import EmbeddingForm, MatrixForm, Unfit, kernel_of
from tfdistill.compress.replay import batches_of, in_order, require_usable, run_calls
from tfdistill.errors import DataError
from tfdistill.utils.finite import is_finite

_BATCH_SIZE = 16


def responses(graph, forms, x):
    """Runs a model on data, and returns a dict of (id of layer, method) to the sum of outer products of what a form's matrix gives.

    Args:
        graph: `FlatGraph`.
        forms: List of `MatrixForm`s.
        x: Inputs: an array, or arrays in the structure that the model takes.

    Raises:
        DataError: if they cannot be used.
    """
    _require_inputs(graph, x)
    found, watched = {}, {}
    for form in forms:
        try:
            watched.setdefault(id(form.layer), []).append((form, *_linear(form)))
        except Unfit:
            continue

    def compute(call, args, kwargs):
        for form, linear, width in watched.get(id(call.operation), ()):
            given = next(tensor for tensor in keras.tree.flatten(args) if keras.ops.is_tensor(tensor))
            rows = keras.ops.convert_to_numpy(keras.ops.cast(linear(given), "float32")).reshape(-1, width)
            key = (id(form.layer), form.method)
            found[key] = found.get(key, 0.0) + (rows.T @ rows).astype("float64")
        with keras.StatelessScope():  # a layer of the user's may assign its weights at inference, too
            return keras.tree.flatten(call.operation(*args, **kwargs))

    for batch in batches_of(x, _BATCH_SIZE):
        run_calls(graph, in_order(graph, batch), compute)
    for form in forms:
        gram = found.get((id(form.layer), form.method))
        if gram is not None and not is_finite(gram):
            raise DataError(
                f"'{form.calls[0].path}' gives NaN or infinity on calibration=.", "examples on which the model computes finite numbers"
            )
    return found


def _linear(form: MatrixForm):
    """Returns a layer that computes the products of a form's matrix, and their number."""
    if isinstance(form, EmbeddingForm):
        return form.layer, form.shape[1]
    layer, kernel = form.linear()
    layer.build(form.calls[0].values()[0].shape)
    kernel_of(layer).assign(kernel)
    form.begin([layer])
    return layer, form.shape[1]


def _require_inputs(graph, x):
    require_usable(calibration=x)
    given, wanted = [np.shape(array) for array in in_order(graph, x)], [value.shape for value in graph.inputs.values()]
    fits = len(given) == len(wanted) and all(
        len(a) == len(b) and all(m in (None, n) for n, m in zip(a[1:], b[1:], strict=True)) for a, b in zip(given, wanted, strict=True)
    )
    if not fits:
        raise DataError(f"calibration= has arrays of the shapes {given}.", f"those of the model's inputs: {wanted}")
