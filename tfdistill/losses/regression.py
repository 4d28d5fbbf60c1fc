"""Losses for regression."""

from typing import Literal

import keras
from keras import ops

from tfdistill.errors import DataError
from tfdistill.losses.base import KnowledgeLoss
from tfdistill.losses.reduction import at_least_float32, huber
from tfdistill.utils import validate
from tfdistill.utils.types import Tensor


def output_matching(teacher, student, loss="mse", delta=1.0):
    """Computes the distance of two outputs, averaged over their last dimension.

    Args:
        teacher: `(batch,)` or `(batch, ..., outputs)`.
        student: Of the same shape.
        loss: With d the difference: "mse" is d**2, "mae" is |d|, "huber" is d**2 / 2 up to `delta` and delta (|d| - delta / 2) above.
        delta: Difference at which Huber's parabola becomes a line; positive.

    Returns:
        `(batch,)` or `(batch, ...)`.
    """
    difference = student - teacher
    losses = ops.square(difference) if loss == "mse" else huber(difference, delta) if loss == "huber" else ops.abs(difference)
    return ops.mean(losses, axis=-1) if len(losses.shape) > 1 else losses


def teacher_bounded(teacher, student, labels, margin=0.0):
    """Computes the student's squared error where it is not smaller than the teacher's by a margin, else 0.

    Args:
        teacher: `(batch,)` or `(batch, ..., outputs)`.
        student: Of the same shape.
        labels: The truth, of the same shape.
        margin: At least 0, in the units of the squared error.

    Returns:
        `(batch,)` or `(batch, ...)`: squared errors are summed over the last dimension.
    """
    own, bound = ops.square(student - labels), ops.square(teacher - labels)
    if len(own.shape) > 1:
        own, bound = ops.sum(own, axis=-1), ops.sum(bound, axis=-1)
    return ops.where(own + margin > bound, own, ops.zeros_like(own))


@keras.saving.register_keras_serializable(package="tfdistill")
class OutputMatching(KnowledgeLoss):
    """Regression on the teacher's outputs.

    With d = student - teacher, the loss is the mean of d**2, of |d|, or of Huber's function over the outputs, the positions and the batch,
    as in Keras's own regression losses.

    Args:
        loss: "mse" is d**2; "mae" is |d|; "huber" is d**2 / 2 up to `delta` and delta * (|d| - delta / 2) above (Huber 1964, "Robust
            estimation of a location parameter").
        delta: Difference at which Huber's parabola becomes a line; positive, in the unit of the outputs.
        teacher_layer_name: The teacher's layer, `(batch,)` or `(batch, ..., outputs)`; None stands for its final output.
        student_layer_name: The student's layer, of the same shape; None stands for its final output.

    Raises:
        ConfigurationError: if the choice is unknown or `delta` is not positive.

    Example:
        >>> loss = tfdistill.losses.OutputMatching("huber", delta=1.0)
        >>> float(loss.compute_loss(np.array([[0.0, 0.0]]), np.array([[1.0, 3.0]])))
        1.5
    """

    def __init__(
        self,
        loss: Literal["mse", "mae", "huber"] = "mse",
        delta: float = 1.0,
        teacher_layer_name: str | None = None,
        student_layer_name: str | None = None,
    ):
        super().__init__(teacher_layer_name, student_layer_name)
        self.loss = validate.one_of("loss", loss, ("mse", "mae", "huber"), owner="OutputMatching")
        self.delta = validate.positive_number("delta", delta, owner="OutputMatching")

    def elementwise(self, teacher: Tensor, student: Tensor, step: Tensor | None = None, labels: Tensor | None = None) -> Tensor:
        return output_matching(teacher, student, self.loss, self.delta)


@keras.saving.register_keras_serializable(package="tfdistill")
class TeacherBounded(KnowledgeLoss):
    """Teacher-bounded regression: the student's squared error counts only until it is smaller than the teacher's by a margin.

    With labels y, the loss of a sample is |student - y|**2 where |student - y|**2 + margin > |teacher - y|**2, else 0. Squared errors are
    summed over the outputs and averaged over the batch (and over positions). It is added to the ordinary loss on the labels, and needs
    `tfdistill.Distiller`, which passes labels.

    Chen et al. 2017, "Learning efficient object detection models with knowledge distillation" (NIPS 2017).

    Args:
        margin: At least 0, in the units of the squared error.
        teacher_layer_name: The teacher's layer, `(batch,)` or `(batch, ..., outputs)`; None stands for its final output.
        student_layer_name: The student's layer, of the same shape; None stands for its final output.

    Raises:
        ConfigurationError: if the margin is negative.

    Example:
        >>> loss = tfdistill.losses.TeacherBounded(margin=0.0)
        >>> labels, teacher_outputs = np.array([[0.0], [0.0]]), np.array([[2.0], [2.0]])
        >>> float(loss.compute_loss(teacher_outputs, np.array([[1.0], [3.0]]), labels=labels))  # the first is better than the teacher
        4.5
    """

    @property
    def needs_labels(self) -> bool:
        """True: the loss compares both sides with the labels."""
        return True

    def __init__(self, margin: float = 0.0, teacher_layer_name: str | None = None, student_layer_name: str | None = None):
        super().__init__(teacher_layer_name, student_layer_name)
        self.margin = validate.number("margin", margin, at_least=0, owner="TeacherBounded")

    def elementwise(self, teacher: Tensor, student: Tensor, step: Tensor | None = None, labels: Tensor | None = None) -> Tensor:
        labels = ops.cast(at_least_float32(labels), student.dtype)
        # A column of labels against a vector of outputs (or the reverse) would broadcast to a square.
        if len(labels.shape) == len(student.shape) - 1 and student.shape[-1] == 1:
            labels = labels[..., None]
        elif len(labels.shape) == len(student.shape) + 1 and labels.shape[-1] == 1:
            labels = ops.squeeze(labels, -1)
        pairs = zip(labels.shape, student.shape, strict=False)
        if len(labels.shape) != len(student.shape) or any(None not in pair and pair[0] != pair[1] for pair in pairs):
            raise DataError(
                f"TeacherBounded: the labels have the shape {tuple(labels.shape)}, the student's outputs {tuple(student.shape)}.",
                "equal shapes",
            )
        return teacher_bounded(teacher, student, labels, self.margin)
