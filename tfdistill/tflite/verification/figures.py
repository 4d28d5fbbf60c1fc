"""What a comparison of one output is recorded as."""

import dataclasses
from typing import Any

from tfdistill.records import Record


@dataclasses.dataclass(frozen=True)
class IndexComparison(Record):
    """One index of an output's last axis.

    Attributes:
        index: The index.
        spread: Range of the Keras output at the index over the samples, in the output's unit.
        max_abs_error: Largest absolute difference.
        mean_abs_error: Mean absolute difference.
        r_squared: Coefficient of determination of the file's values against Keras's: 1 is equal, 0 is no better than a constant.

    Example:
        >>> record = tfdistill.verify("student.tflite", keras.models.load_model("student.keras"), x, variant="int8")
        >>> worst = record.outputs["logits"].worst_indices[0]
        >>> 0 <= worst.index < 10, worst.mean_abs_error < worst.spread
        (True, True)
    """

    index: int
    spread: float
    max_abs_error: float
    mean_abs_error: float
    r_squared: float


@dataclasses.dataclass(frozen=True)
class OutputComparison(Record):
    """One output of a file compared with the same output of its Keras model.

    Attributes:
        max_abs_error: Largest absolute difference, in the output's unit, dequantized.
        mean_abs_error: Mean absolute difference.
        scale: The larger of the Keras output's range and its largest magnitude over the samples.
        argmax_agreement: Share (0 to 1) of samples (or positions) for which both predict the same class; None for an output without
            classes.
        decided: Number of samples whose first and second Keras score are clearly apart (see `Tolerances`); None without classes.
        decided_agreement: Share of the decided samples for which both predict the same class; None if there are none.
        accuracy: Share (0 to 1) of samples (or of their labels or positions) that the file predicts correctly; None without labels and for
            regression.
        keras_accuracy: The same of the Keras model.
        task: Task of the output, one of `tfdistill.tasks.TASKS`; None if it is unknown.
        metric: Name of the task's metric; None without labels.
        metric_value: The metric of the file on the labels.
        keras_metric_value: The metric of the Keras model on the labels.
        loss_interval: Lower and upper end of the 95 % interval of the loss of accuracy, paired on the same samples; for regression, of the
            rise of the mean absolute error in the labels' unit, at the index where it rises most relative to `constant_error`. Positive if
            the file is worse; None without labels.
        constant_error: Mean absolute error of the best constant at that index; for regression with labels.
        r_squared: Lowest coefficient of determination of the file against the labels over the indices; for regression only.
        keras_r_squared: The same of the Keras model.
        equal_share: Share (0 to 1) of elements that are equal; for integer outputs only.
        judged_indices: Number of indices of the last axis that were compared with their own range.
        lowest_r_squared: Lowest coefficient of determination against Keras over the judged indices; None if there are none.
        max_error_of_spread: Largest error divided by the range of its index, over the judged indices, less float rounding; None for scores
            of classes and decisions.
        mean_error_of_spread: The same of the mean errors.
        changes_r_squared: Lowest coefficient of determination of the changes from one sample to the next, over the judged indices: about
            `lowest_r_squared` for samples in random order, less for a series whose changes are small compared with its trend. None for
            classes and decisions.
        worst_indices: The judged indices with the lowest coefficients, at most five, lowest first.
        lost_indices: Indices that are constant in the file, but vary in Keras by less than a twentieth of the output's unit; at most five.
            None are listed for classes and decisions.
        worst_samples: Positions of the samples with the largest errors, at most five, largest first.
        extreme_samples: Positions of the samples that stretch the range of the Keras output to at least five times that of all others.
        box_iou: Mean intersection over union (0 to 1) of the file's boxes with those of the Keras model; for the tasks of boxes only.
        lowest_box_iou: The lowest of these.
        labels_box_iou: Mean intersection over union of the file's boxes with the labels; None without labels.
        keras_labels_box_iou: The same of the Keras model.

    Example:
        >>> record = tfdistill.verify("student.tflite", keras.models.load_model("student.keras"), x, y, variant="int8")
        >>> output = record.outputs["logits"]
        >>> output.task, output.metric, output.judged_indices
        ('multiclass', 'accuracy', 10)
        >>> output.max_abs_error < 0.1 * output.scale
        True
    """

    max_abs_error: float
    mean_abs_error: float
    scale: float
    argmax_agreement: float | None = None
    decided: int | None = None
    decided_agreement: float | None = None
    accuracy: float | None = None
    keras_accuracy: float | None = None
    task: str | None = None
    metric: str | None = None
    metric_value: float | None = None
    keras_metric_value: float | None = None
    loss_interval: tuple[float, ...] | None = None
    constant_error: float | None = None
    r_squared: float | None = None
    keras_r_squared: float | None = None
    equal_share: float | None = None
    judged_indices: int = 0
    lowest_r_squared: float | None = None
    max_error_of_spread: float | None = None
    mean_error_of_spread: float | None = None
    changes_r_squared: float | None = None
    worst_indices: tuple[IndexComparison, ...] = ()
    lost_indices: tuple[IndexComparison, ...] = ()
    worst_samples: tuple[int, ...] = ()
    extreme_samples: tuple[int, ...] = ()
    box_iou: float | None = None
    lowest_box_iou: float | None = None
    labels_box_iou: float | None = None
    keras_labels_box_iou: float | None = None

    def summary(self) -> dict[str, Any]:
        """Returns the figures that a table of outputs shows."""
        names = (
            "task",
            "accuracy",
            "keras_accuracy",
            "argmax_agreement",
            "equal_share",
            "max_abs_error",
            "mean_abs_error",
            "scale",
            "lowest_r_squared",
            *("box_iou", "labels_box_iou", "keras_labels_box_iou"),
        )
        return {name: getattr(self, name) for name in names} | metrics_of({"": self})


def metrics_of(outputs):
    """Returns the metrics of file and Keras model that are no accuracy, as a table shows them.

    Args:
        outputs: Output name -> `OutputComparison`.
    """
    found = {}
    for name, output in outputs.items():
        if output.metric is not None and output.accuracy is None:
            metric = output.metric if len(outputs) == 1 else f"{output.metric} of {name}"
            found |= {metric: output.metric_value, f"keras {metric}": output.keras_metric_value}
    return found
