"""Reads and checks the first batch before any training: an error now is cheaper than a useless student later."""

import keras
import numpy as np

from tfdistill.distill.objective import one_shot
from tfdistill.errors import DataError
from tfdistill.utils import data
from tfdistill.utils.finite import non_finite


def peek(x, y=None, sample_weight=None, batch_size=None, put_back=True):
    """Reads one batch of the data of a `fit`, which training still sees.

    Arrays are indexed. The first batch of a generator, a `keras.utils.PyDataset`, or a `tf.data.Dataset` that Python feeds is taken and put
    back; of any other `tf.data.Dataset` a second iterator reads one element. Other kinds of data (a distributed dataset, a DataFrame) are
    not read.

    Args:
        x: As in `keras.Model.fit`.
        y: As in `keras.Model.fit`.
        sample_weight: As in `keras.Model.fit`.
        batch_size: Number of rows to read of arrays. Defaults to Keras's 32.
        put_back: Whether the batch is put back. A dataset that a distribution strategy divides allows no replacement: it must be one that
            can be read again.

    Returns:
        `x` to train on (data that can be read once is replaced by an object that gives the same elements), and the batch as `(x, y,
        sample_weight)`, or None where it cannot be read.

    Raises:
        DataError: if there is no first batch.
    """
    form = data.form_of(x)
    if form == data.DATASET and put_back and one_shot.reads_once(x):
        batch, x = one_shot.read_ahead(x)
    elif form != data.ARRAYS:
        batch = data.first_element(x)
        if form == data.ITERATOR:
            x = _put_back(batch, x)
        elif form == data.PYDATASET and put_back and batch is not None and not getattr(x, "rereadable", False):
            x = one_shot.FirstBatchKept(x, batch)
    else:
        if not data.are_arrays((x, y, sample_weight)):
            return x, None
        rows = batch_size or 32
        batch = (
            keras.tree.map_structure(lambda a: None if a is None else a[:rows], (x, y, sample_weight), none_is_leaf=True)
            if _rows(x)
            else None
        )
    if batch is None:
        raise DataError("The training data is empty.", "at least one batch")
    return x, keras.utils.unpack_x_y_sample_weight(batch)


def _put_back(first, rest):
    # A generator, as Keras takes no other kind of iterator.
    yield first
    yield from rest


def _rows(x):
    flat = keras.tree.flatten(x)
    return flat[0].shape[0] if flat and len(flat[0].shape) else 0


def require_as_many(arrays, what):
    """Refuses arrays of inputs, labels and weights of unequal numbers of samples.

    Args:
        arrays: `(x, y, sample_weight)` as `fit` takes them, in any form; nothing but arrays is looked at.
        what: Name of the data, for the message.

    Raises:
        DataError: naming the numbers.
    """
    if not data.are_arrays(arrays):
        return
    numbers = {}
    for name, structure in zip(("x", "y", "sample_weight"), arrays, strict=False):
        for path, leaf in _named(structure):
            numbers[name + path] = leaf.shape[0] if len(leaf.shape) else 0
    if len(set(numbers.values())) > 1:
        shown = ", ".join(f"{name} has {number}" for name, number in numbers.items())
        raise DataError(
            f"The {what} data has unequal numbers of samples: {shown}.",
            "a label for each input",
            "give the inputs and labels of one and the same data set, cut alike: x[:n], y[:n]",
        )


def check_shapes(x, student):
    """Refuses inputs of another shape than a functional student takes, where Keras would name a layer inside it.

    Args:
        x: Inputs of a batch.
        student: The student.

    Raises:
        DataError: naming the input and both shapes.
    """
    taken = getattr(student, "inputs", None) or []
    arrays = [x.get(tensor.name) for tensor in taken] if isinstance(x, dict) else keras.tree.flatten(x)
    if len(arrays) != len(taken) or any(array is None for array in arrays):
        return
    for tensor, array in zip(taken, arrays, strict=True):
        have, want = tuple(array.shape[1:]), tuple(tensor.shape[1:])
        # Keras adds and takes away axes of one element.
        if len(have) == len(want) and any(b is not None and a is not None and a != b for a, b in zip(have, want, strict=True)):
            raise DataError(
                f"The input '{tensor.name}' has the shape {(len(array), *have)}, and the student '{student.name}' takes {tuple(tensor.shape)}.",
                "inputs of that shape",
                "resize the data in its pipeline, or make a model on a keras.Input of the data's shape",
            )


def check_finite(batch):
    """Refuses a batch that holds NaN or infinity.

    Args:
        batch: `(x, y, sample_weight)`, each a structure of arrays or None.

    Raises:
        DataError: naming the input, the number of such values and the place of the first.
    """
    fix = "clean the data, or mask such samples with sample_weight=0 and a finite value"
    for what, structure in zip(("input", "target", "sample weight"), batch, strict=True):
        refuse_nonfinite_inputs(structure, "in the first batch", fix, what)


def refuse_nonfinite_inputs(structure, where, fix, what="input"):
    """Raises a `DataError` if an array of a structure holds NaN or infinity, with its name, `what` it is and `where` it was found."""
    for path, value in _named(structure):
        refuse_nonfinite(value, f"The {what}{path} has %s {where}.", fix)


def refuse_nonfinite(value, sentence, fix):
    """Raises a `DataError` if `value` holds NaN or infinity; `sentence` has a %s for which of them."""
    value = np.asarray(value)
    if value.dtype.kind not in "fc" and "float" not in value.dtype.name:
        return
    if (found := non_finite(value)) is not None:
        amount = f" {found.number} of {value.size} values; the first at index {list(found.first)}."
        raise DataError(sentence % found.kind + amount, "finite numbers", fix)


def _named(structure):
    """Yields (" 'name'", value) for every array in a nested structure; a single array has no name."""
    if structure is None:
        return
    for path, value in keras.tree.flatten_with_path(structure):
        if value is not None:
            yield (f" '{'/'.join(str(p) for p in path)}'" if path else ""), value
