"""The task of a model's output (classes, binary decisions or numbers), and the metric of each task."""

import math
import re

import numpy as np

from tfdistill.errors import ConfigurationError, DataError, nearest
from tfdistill.utils.finite import non_finite

TASKS = ("multiclass", "binary", "multilabel", "regression", "segmentation")
CLASS_TASKS = ("multiclass", "segmentation")
METRICS = {
    "multiclass": "accuracy",
    "binary": "binary_accuracy",
    "multilabel": "binary_accuracy",
    "regression": "mean_absolute_error",
    "segmentation": "mean_iou",
}

# Kinds of losses, by Keras's snake_case names. The task depends on the width of the output too.
_CLASS_LOSSES = {
    "categorical_crossentropy",
    "sparse_categorical_crossentropy",
    "categorical_focal_crossentropy",
    "categorical_hinge",
    "categorical_generalized_cross_entropy",
    "kl_divergence",
    "kld",
}
_BINARY_LOSSES = {"binary_crossentropy", "bce", "binary_focal_crossentropy", "hinge", "squared_hinge"}
_MASK_LOSSES = {"dice", "tversky"}
_NUMBER_LOSSES = {
    "mean_squared_error",
    "mse",
    "mean_absolute_error",
    "mae",
    "mean_absolute_percentage_error",
    "mape",
    "mean_squared_logarithmic_error",
    "msle",
    "huber",
    "log_cosh",
    "logcosh",
    "poisson",
    "cosine_similarity",
}
_NUMBER_ACTIVATIONS = {"relu", "relu6", "leaky_relu", "elu", "selu", "gelu", "silu", "swish", "softplus", "exponential", "tanh"}


def infer_task(output_shape, labels=None, loss=None, last_activation=None):
    """Infers the task of an output.

    The most certain evidence comes first: labels that are class indices, then a softmax, the loss, a sigmoid, and last the values of the
    labels. Shapes and types suffice, so it can be called with symbolic tensors inside a metric. The values are used only of labels that are
    NumPy arrays.

    Args:
        output_shape: Shape of the output with its batch axis, for example `(None, 10)`.
        labels: Anything with `shape` and `dtype`, or None.
        loss: The loss of this output as `compile` takes it (a name, a function, a `keras.losses.Loss`), or None. Unknown losses are
            ignored.
        last_activation: Name of the activation that makes the output, for example `"softmax"`, or None where it is unknown.

    Returns:
        One of `TASKS`, or None if there is no evidence.

    Example:
        >>> infer_task((None, 10), loss="sparse_categorical_crossentropy")
        'multiclass'
        >>> infer_task((None, 3), loss="mse")
        'regression'
        >>> infer_task((None, 32, 32, 21), last_activation="softmax")
        'segmentation'
    """
    shape, loss = tuple(output_shape), loss_name(loss)
    width = shape[-1] if len(shape) > 1 else 1
    several = width is None or width > 1
    dense = len(shape) >= 4
    classes = "segmentation" if dense else "multiclass"
    decisions = "multilabel" if several else "segmentation" if dense else "binary"
    label_kind = _describe_labels(labels, shape)
    if several and (label_kind in ("indices", "one_hot") or last_activation == "softmax" or loss in _CLASS_LOSSES):
        return classes
    if loss in _MASK_LOSSES:
        return "segmentation"
    if label_kind == "fractions" or loss in _NUMBER_LOSSES:
        return "regression"
    if loss in _BINARY_LOSSES or last_activation == "sigmoid":
        return decisions
    if label_kind == "zeros_and_ones":
        return decisions
    if label_kind == "whole_numbers" or last_activation in _NUMBER_ACTIVATIONS:
        return "regression"
    return None


def loss_name(loss):
    """Returns the snake_case name of a loss: `"mean_squared_error"` for `keras.losses.MeanSquaredError()`; None for None."""
    if loss is None or isinstance(loss, str):
        words = loss or ""
    else:
        function = getattr(loss, "fn", loss)  # the function that Keras's wrappers apply
        words = getattr(function, "__name__", None) or type(function).__name__
    # As Keras does it; the name of a class, such as "BinaryCrossentropy", may be given as text too.
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", words).lower()
    return words or None


def _describe_labels(labels, shape):
    """Returns the kind of labels: indices, one_hot, zeros_and_ones, whole_numbers or fractions; None if it cannot be determined."""
    if labels is None or not hasattr(labels, "shape") or not hasattr(labels, "dtype"):
        return None
    given, wide = tuple(labels.shape), len(shape) > 1 and shape[-1] != 1
    same = len(given) == len(shape) and _may_equal(given, shape)
    if wide and not same and (len(given) == len(shape) - 1 or (len(given) == len(shape) and given[-1] == 1)):
        return "indices"
    if not isinstance(labels, np.ndarray):
        return "zeros_and_ones" if "bool" in str(labels.dtype) else None
    if not labels.size or labels.dtype.kind not in "biuf":
        return None
    if ((labels == 0) | (labels == 1)).all():
        rows = same and wide and (labels.sum(-1) == 1).all()
        return "one_hot" if rows else "zeros_and_ones"
    return "whole_numbers" if np.array_equal(labels, np.round(labels)) else "fractions"


def _may_equal(shape, other):
    return all(a is None or b is None or a == b for a, b in zip(shape, other, strict=True))


def check_task(task, output_shape, name="output"):
    """Checks that a task is known and fits the shape of an output.

    Args:
        task: One of `TASKS`.
        output_shape: Shape of the output with its batch axis.
        name: The output's name, for errors.

    Raises:
        ConfigurationError: for an unknown task, one class for `"multiclass"`, or several outputs for `"binary"`.
    """
    if task not in TASKS:
        raise ConfigurationError(f"task={task!r} of output '{name}' is unknown.", f"one of {TASKS}", nearest(str(task), TASKS))
    shape = tuple(output_shape)
    width = shape[-1] if len(shape) > 1 else 1
    if task == "multiclass" and width == 1:
        raise ConfigurationError(
            f"task='multiclass', but output '{name}' has the shape {shape}: one score for each sample.",
            "at least two scores on the last axis",
            "task='binary' for one binary score, task='regression' for a number",
        )
    if task == "binary" and width not in (None, 1):
        raise ConfigurationError(
            f"task='binary', but output '{name}' has the shape {shape}: {width} scores for each sample.",
            "one score on the last axis",
            "task='multilabel' for independent binary scores, task='multiclass' for classes that exclude each other",
        )
    if task == "segmentation" and len(shape) < 3:
        raise ConfigurationError(
            f"task='segmentation', but output '{name}' has the shape {shape}: no positions to label.",
            "(batch, positions..., classes)",
            "task='multiclass' for one class per sample",
        )


def targets(task, labels, output_shape, name="output"):
    """Converts labels to the form that the metric of a task compares.

    Args:
        task: One of `TASKS`.
        labels: For classes, indices `(samples, ...)` or `(samples, ..., 1)`, or one-hot or soft rows `(samples, ..., classes)`. For binary
            decisions, zeros and ones (or -1 and 1, as for the hinge losses) of the output's shape. For regression, numbers of the output's
            shape. A last axis of 1 may be missing.
        output_shape: Shape of the output with its batch axis.
        name: The output's name, for errors.

    Returns:
        Class indices `(samples, ...)`, booleans, or float64 numbers, of the output's shape.

    Raises:
        DataError: if the labels do not fit.
    """
    labels, shape = np.asarray(labels), tuple(output_shape)
    if labels.dtype.kind not in "biuf":
        raise DataError(f"The labels of output '{name}' have the type {labels.dtype}.", "numbers")
    if (found := non_finite(labels)) is not None:
        raise DataError(f"The labels of output '{name}' are NaN or infinite in {found.number} places.", "finite labels")
    if by_class(task, shape):
        return _indices(labels, shape, name)
    if labels.shape != shape and math.prod(labels.shape) == math.prod(shape) and 1 in (*shape[-1:], *labels.shape[-1:]):
        short, long = sorted((labels.shape, shape), key=len)
        labels = labels.reshape(shape) if (*short, 1) == long else labels
    if labels.shape != shape:
        raise DataError(f"The labels of output '{name}' have the shape {labels.shape}.", f"{shape}, for task='{task}'")
    if task == "regression":
        return labels.astype(np.float64)
    if not (((labels == 0) | (labels == 1)).all() or ((labels == -1) | (labels == 1)).all()):
        raise DataError(
            f"The labels of output '{name}' run from {labels.min()} to {labels.max()}.",
            f"zeros and ones, for task='{task}'",
            "task='regression' if they are numbers",
        )
    return labels > 0


def by_class(task, output_shape):
    """Whether the last axis of an output has the scores of classes that exclude each other."""
    return task in CLASS_TASKS and len(output_shape) > 1 and output_shape[-1] != 1


def _indices(labels, shape, name):
    if labels.shape == shape:
        return labels.argmax(-1)
    if labels.shape == (*shape[:-1], 1):
        labels = labels[..., 0]
    if labels.shape != shape[:-1]:
        raise DataError(
            f"The labels of output '{name}' have the shape {labels.shape}.", f"{shape[:-1]} (class indices) or {shape} (one-hot)"
        )
    if labels.min() < 0 or labels.max() >= shape[-1]:
        raise DataError(
            f"The labels of output '{name}' run from {labels.min()} to {labels.max()}.", f"class indices from 0 to {shape[-1] - 1}"
        )
    if not np.array_equal(labels, np.round(labels)):
        raise DataError(
            f"The labels of output '{name}' hold fractions.",
            "class indices",
            "use task='regression' for numbers, with labels of the output's shape",
        )
    return labels.astype(np.int64)


def predictions(task, outputs, threshold=0.5):
    """Converts outputs to the form that is compared with `targets`.

    Args:
        task: One of `TASKS`.
        outputs: Array `(samples, ...)` of scores, probabilities or numbers.
        threshold: Outputs above it count as positive: 0.5 for probabilities, 0 for logits. For binary decisions only.

    Returns:
        Class indices, booleans or float64 numbers.
    """
    outputs = np.asarray(outputs)
    if by_class(task, outputs.shape):
        return outputs.argmax(-1)
    return outputs.astype(np.float64) if task == "regression" else outputs > threshold


def score(task, true, predicted, classes=2):
    """Computes the metric of a task, `METRICS[task]`.

    Args:
        task: One of `TASKS`.
        true: What `targets` returned.
        predicted: What `predictions` returned.
        classes: Number of classes, for `"segmentation"`.

    Returns:
        The share (0 to 1) of correct classes or decisions, the mean absolute error in the labels' unit, or the mean intersection over union
        (0 to 1).
    """
    if task == "regression":
        return mean_absolute_error(true, predicted)
    return mean_iou(true, predicted, classes) if task == "segmentation" else accuracy(true, predicted)


def accuracy(true, predicted):
    """Returns the share (0 to 1) of positions at which two arrays of classes or decisions are equal."""
    return float(np.mean(np.asarray(true) == np.asarray(predicted)))


def mean_absolute_error(true, predicted):
    """Returns the mean of `abs(true - predicted)`, in their unit."""
    return float(np.abs(np.asarray(true, np.float64) - np.asarray(predicted, np.float64)).mean())


def r_squared(true, predicted):
    """Computes R^2 = 1 - sum((true - predicted)^2) / sum((true - mean(true))^2) for each index of the last axis.

    Args:
        true: Array `(samples, ...)`; an array of one axis is one index.
        predicted: Array of the same shape.

    Returns:
        Array `(indices,)`: 1 for equal arrays, 0 for the best constant; NaN where `true` does not vary.
    """
    true, predicted = (columns(np.asarray(a, np.float64)) for a in (true, predicted))
    variation = np.square(true - true.mean(0)).sum(0)
    residual = np.square(true - predicted).sum(0)
    # Equal values differ from their mean by rounding.
    varies = variation > len(true) * np.square(1e-12 * np.abs(true).max(0))
    return np.where(varies, 1.0 - residual / np.where(varies, variation, 1.0), np.nan)


def columns(values):
    """Reshapes `(samples, ..., indices)` to `(samples * positions, indices)`; an array of one axis is one index."""
    return values.reshape(-1, values.shape[-1] if values.ndim > 1 else 1)


def mean_iou(true, predicted, classes=2):
    """Computes the mean of intersection / union over the classes that either array has, as `keras.metrics.MeanIoU` does.

    Args:
        true: Class indices, or booleans for two classes, of any shape.
        predicted: Of the same shape.
        classes: Number of classes.
    """
    true, predicted = np.asarray(true).reshape(-1).astype(np.int64), np.asarray(predicted).reshape(-1).astype(np.int64)
    confusion = np.bincount(true * classes + predicted, minlength=classes**2).reshape(classes, classes)
    intersection = np.diag(confusion)
    union = confusion.sum(0) + confusion.sum(1) - intersection
    return float((intersection[union > 0] / union[union > 0]).mean())
