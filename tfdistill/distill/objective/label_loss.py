"""Checks whether the student's loss on the labels takes what the student's outputs are: logits or probabilities."""

import collections.abc
import functools
import warnings

import keras
import numpy as np

from tfdistill.errors import DataError
from tfdistill.losses import spaces

# Functions of Keras's losses that take probabilities unless from_logits=True -> the class to write, and whether the classes exclude one
# another.
_LOSSES = {
    "categorical_crossentropy": ("CategoricalCrossentropy", True),
    "sparse_categorical_crossentropy": ("SparseCategoricalCrossentropy", True),
    "categorical_focal_crossentropy": ("CategoricalFocalCrossentropy", True),
    "binary_crossentropy": ("BinaryCrossentropy", False),
    "binary_focal_crossentropy": ("BinaryFocalCrossentropy", False),
}
_CLASSES = {name: (name, exclusive) for name, exclusive in _LOSSES.values()}


def warn_of_wrong_space(loss, outputs, student, activations=None):
    """Warns where `from_logits` of a loss does not fit the student's outputs, with the line to write.

    Keras trains either way, and wrongly: logits are clipped as if they were probabilities, or a second softmax flattens probabilities.
    The last activation decides where it is known. Elsewhere outputs are logits where one is negative or above 1; they are taken for
    probabilities where all rows sum to one, or where at least 16 different yes-no outputs lie between 0 and 1.

    Args:
        loss: The loss as `compile` takes it: a name, a function, a `keras.losses.Loss`, or a list or dict of these.
        outputs: The student's outputs for a batch: an array, or a list or dict of arrays.
        student: The student, for its name and output names.
        activations: Dict of output name, None for the only output, to the name of its last activation; None where it is unknown.
    """
    for name, one, values in losses_by_output(loss, outputs, student):
        known = _known(one)
        if known is None or values.ndim < 2 or values.size == 0:
            continue
        (cls, exclusive), from_logits = known
        found = _space(values, exclusive, (activations or {}).get(name))
        if found is None or (found == "logits") == from_logits:
            continue
        where = f"output '{name}' of the student '{student.name}'" if name else f"the student '{student.name}'"
        setting = f"from_logits={from_logits}" + ("" if from_logits else ", the default")
        last = "softmax" if exclusive else "sigmoid"
        other = f"end the student without its {last}" if from_logits else f"end the student with a {last}"
        warnings.warn(
            f"The student's loss {cls} ({setting}) takes {'logits' if from_logits else 'probabilities'}, but {where} answers {found}: from {values.min():.4g} to "
            f"{values.max():.4g} in the first batch. It would learn little or nothing from the labels. Write loss=keras.losses.{cls}(from_logits={not from_logits}), or "
            f"{other}.",
            stacklevel=4,
        )


def refuse_other_labels(loss, labels, outputs, student):
    """Refuses labels of classes of which a loss of Keras takes another form, where TensorFlow would name one of its operations.

    Args:
        loss: As in `warn_of_wrong_space`.
        labels: Labels of a batch: of the only output, or a dict of output name to labels.
        outputs: As in `warn_of_wrong_space`.
        student: The student, for its output names.

    Raises:
        DataError: if they are one number for each class in place of an index, or the other way round, or indices of classes that are not there.
    """
    for name, one, values in losses_by_output(loss, outputs, student):
        known, y = _known(one), labels.get(name) if isinstance(labels, collections.abc.Mapping) else labels
        if known is None or y is None or not hasattr(y, "dtype") or values.ndim < 2 or values.shape[-1] < 2:
            continue
        (cls, _), from_logits = known
        y, classes = np.asarray(keras.ops.convert_to_numpy(y)), values.shape[-1]
        indices = y.shape == values.shape[:-1] or y.shape == (*values.shape[:-1], 1)
        if cls == "SparseCategoricalCrossentropy" and y.shape == values.shape:
            raise DataError(
                f"The labels have the shape {y.shape}, a number for each class, and the loss {cls} takes the index of a class.",
                f"labels of the shape {values.shape[:-1]}",
                f"write loss=keras.losses.CategoricalCrossentropy(from_logits={from_logits}), or give y.argmax(-1)",
            )
        if cls == "CategoricalCrossentropy" and indices:
            raise DataError(
                f"The labels have the shape {y.shape}, the index of a class, and the loss {cls} takes a number for each class.",
                f"labels of the shape {values.shape}",
                f"write loss=keras.losses.SparseCategoricalCrossentropy(from_logits={from_logits}), or give keras.utils.to_categorical(y, {classes})",
            )
        numbered = cls == "SparseCategoricalCrossentropy" and indices and getattr(one, "ignore_class", None) is None
        if numbered and y.size and (y.min() < 0 or y.max() >= classes):
            raise DataError(
                f"The labels are from {y.min():g} to {y.max():g} in the first batch, and the student '{student.name}' has {classes} classes.",
                f"indices from 0 to {classes - 1}",
                "number the classes from 0, as np.unique(y, return_inverse=True)[1] does, or give both models as many classes as there are",
            )


def losses_by_output(loss, outputs, student):
    """Yields (name of the output or None, its loss, its values)."""
    if isinstance(outputs, collections.abc.Mapping):
        named = dict(outputs)
    elif isinstance(outputs, (list, tuple)):
        names = getattr(student, "output_names", None) or []
        named = dict(zip(names if len(names) == len(outputs) else range(len(outputs)), outputs, strict=True))
    else:
        named = {(getattr(student, "output_names", None) or [None])[0]: outputs}
    for index, (name, values) in enumerate(named.items()):
        if isinstance(loss, collections.abc.Mapping):
            one = loss.get(name)
        elif isinstance(loss, (list, tuple)):
            one = loss[index] if len(loss) == len(named) else None
        else:
            one = loss
        if hasattr(values, "dtype"):
            yield name if len(named) > 1 else None, one, np.asarray(keras.ops.convert_to_numpy(values), "float64")


def _known(loss):
    """The row of `_LOSSES` for a loss of Keras that has `from_logits`, and that setting; None for any other loss."""
    if isinstance(loss, str):
        try:
            loss = keras.losses.get(loss)
        except ValueError:
            return None
    if isinstance(loss, functools.partial):
        row = _LOSSES.get(getattr(loss.func, "__name__", None)) if _of_keras(loss.func) else None
        return row and (row, bool(loss.keywords.get("from_logits", False)))
    if isinstance(loss, keras.losses.Loss):
        row = _CLASSES.get(type(loss).__name__) if _of_keras(type(loss)) else None
        return row and (row, bool(loss.get_config().get("from_logits", False)))
    row = _LOSSES.get(getattr(loss, "__name__", None)) if _of_keras(loss) else None
    return row and (row, False)


def _of_keras(thing):
    return str(getattr(thing, "__module__", "")).partition(".")[0] == "keras"


def _space(values, exclusive, activation):
    """Returns "logits", "probabilities", or None where the outputs could be either."""
    if exclusive and values.shape[-1] == 1:
        return None
    if activation == "linear":
        return "logits"
    if activation == ("softmax" if exclusive else "sigmoid"):
        return "probabilities"
    if (values < 0).any() or (values > 1 + spaces.SUM_TOLERANCE).any():
        return "logits"
    if exclusive:
        # A last layer that starts at zero gives zeros, and no probabilities are all zero.
        return "probabilities" if spaces.class_space(values) == "probabilities" else None if values.any() else "logits"
    return "probabilities" if spaces.looks_binary(values) else None
