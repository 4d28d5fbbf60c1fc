"""Regression: outputs that are numbers, not classes."""

import keras
from keras import ops

from tfdistill.errors import DataError
from tfdistill.losses import checks
from tfdistill.losses.base import KnowledgeLoss
from tfdistill.losses.reduction import at_least_float32, huber


def output_matching(teacher, student, loss="mse", delta=1.0):
    """Distance of two outputs, averaged over their last dimension.

    Args:
        teacher: `(batch,)` or `(batch, ..., outputs)`.
        student: Of the same shape.
        loss: With d the difference: "mse" is d**2, "mae" is |d|, "huber" is d**2 / 2 up to `delta` and delta (|d| - delta / 2) above.
        delta: Where Huber's parabola becomes a line; positive.

    Returns:
        `(batch,)` or `(batch, ...)`.
    """
    difference = student - teacher
    losses = ops.square(difference) if loss == "mse" else huber(difference, delta) if loss == "huber" else ops.abs(difference)
    return ops.mean(losses, axis=-1) if len(losses.shape) > 1 else losses


def teacher_bounded(teacher, student, labels, margin=0.0):
    """The student's squared error, where it is not better than the teacher's by a margin; else 0.

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
    """The student's numbers against the teacher's: plain regression on the teacher's answers.

    Averaged over the outputs, the positions and the batch, as Keras's own regression losses are.

    Args:
        loss: "mse", "mae" or "huber" (Huber 1964).
        delta: Where Huber's parabola becomes a line; positive, in the unit of the outputs.
        teacher_layer: The teacher's layer, `(batch,)` or `(batch, ..., outputs)`; None stands for its final output.
        student_layer: The student's layer, of the same shape; None stands for its final output.

    Raises:
        ConfigurationError: if the choice is unknown or `delta` is not positive.
    """

    def __init__(self, loss="mse", delta=1.0, teacher_layer=None, student_layer=None):
        super().__init__(teacher_layer, student_layer)
        self.loss = checks.choice("OutputMatching", "loss", loss, ("mse", "mae", "huber"))
        self.delta = checks.number("OutputMatching", "delta", delta, 0.0, strict=True)

    def elementwise(self, teacher, student, step=None, labels=None):
        return output_matching(teacher, student, self.loss, self.delta)


@keras.saving.register_keras_serializable(package="tfdistill")
class TeacherBounded(KnowledgeLoss):
    """The teacher as a bound, not a target: the student pays its squared error only until it is better than the teacher by a margin.

    Chen et al. 2017, "Learning efficient object detection models with knowledge distillation" (NIPS 2017), equation of the teacher-bounded regression
    loss: |student - truth|**2 where |student - truth|**2 + margin > |teacher - truth|**2, else 0; squared errors are summed over the outputs. It goes
    beside the ordinary loss on the labels, and needs a Distiller that passes labels.

    Args:
        margin: At least 0, in the units of the squared error.
        teacher_layer: The teacher's layer, `(batch,)` or `(batch, ..., outputs)`; None stands for its final output.
        student_layer: The student's layer, of the same shape; None stands for its final output.

    Raises:
        ConfigurationError: if the margin is negative.
    """

    needs_labels = True

    def __init__(self, margin=0.0, teacher_layer=None, student_layer=None):
        super().__init__(teacher_layer, student_layer)
        self.margin = checks.number("TeacherBounded", "margin", margin, 0.0)

    def elementwise(self, teacher, student, step=None, labels=None):
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
