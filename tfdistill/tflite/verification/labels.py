"""Figures of one output on the labels: metric, accuracy, and what the file loses against its Keras model."""

import numpy as np

from tfdistill import tasks
from tfdistill.errors import DataError
from tfdistill.tflite.verification.paired import accuracy_drop_interval, mean_interval


def compare_integers(expected, actual, labels, name):
    """Compares an integer output of the file with that of the Keras model, and both with the labels, element by element.

    Args:
        expected: Output of Keras, (samples, ...).
        actual: Output of the file, of the same shape.
        labels: Labels of the same shape, or None.
        name: Name of the output, for errors.

    Returns:
        Dict of fields of `OutputComparison`.

    Raises:
        DataError: if the labels have another shape.
    """
    same = expected == actual
    found = {"equal_share": float(same.mean())}
    if labels is None:
        return found
    labels = np.asarray(labels)
    if labels.shape == (*expected.shape, 1):
        labels = labels[..., 0]
    if labels.shape != expected.shape:
        raise DataError(f"The labels of output '{name}' have the shape {labels.shape}.", f"{expected.shape}: one for each whole number")
    keras_right, right = expected == labels, actual == labels
    interval = accuracy_drop_interval(keras_right, right)
    return found | {
        "accuracy": float(right.mean()),
        "keras_accuracy": float(keras_right.mean()),
        "metric": "accuracy",
        "metric_value": float(right.mean()),
        "keras_metric_value": float(keras_right.mean()),
        "loss_interval": interval,
    }


def against_labels(expected, actual, labels, name, task, threshold):
    """Computes the metric of the file and of the Keras model on the labels, and what the file loses.

    Args:
        expected: Output of Keras, (samples, ...).
        actual: Output of the file, of the same shape.
        labels: Labels as `tfdistill.tasks.targets` takes them.
        name: Name of the output, for errors.
        task: One of `tfdistill.tasks.TASKS`.
        threshold: Score above which a decision is yes.

    Returns:
        Dict of fields of `OutputComparison`.
    """
    true = tasks.targets(task, labels, expected.shape, name)
    ours, keras = (tasks.predictions(task, a, threshold) for a in (actual, expected))
    classes = expected.shape[-1] if tasks.by_class(task, expected.shape) else 2
    found = {
        "metric": tasks.METRICS[task],
        "metric_value": tasks.score(task, true, ours, classes),
        "keras_metric_value": tasks.score(task, true, keras, classes),
    }
    if task != "regression":
        right, keras_right = true == ours, true == keras
        found |= {"accuracy": float(right.mean()), "keras_accuracy": float(keras_right.mean())}
        return found | {"loss_interval": accuracy_drop_interval(keras_right, right)}
    for field, values in (("r_squared", actual), ("keras_r_squared", expected)):
        per_index = tasks.r_squared(true, values)
        found[field] = None if np.isnan(per_index).all() else float(np.nanmin(per_index))
    rise = np.abs(true - actual) - np.abs(true - expected)
    constant = np.abs(tasks.columns(true) - np.median(tasks.columns(true), axis=0)).mean(0)
    share = tasks.columns(rise).mean(0) / np.where(constant > 0, constant, np.inf)
    worst = int(np.argmax(share))
    by_sample = rise.reshape(len(rise), -1, len(constant))[..., worst].mean(1)
    return found | {"loss_interval": mean_interval(by_sample), "constant_error": float(constant[worst])}
