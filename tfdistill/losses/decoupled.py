"""Decoupled soft targets: the divergence on the target class and the divergence over the other classes."""

from typing import Literal

import keras
from keras import ops

from tfdistill.errors import DataError
from tfdistill.losses import schedules
from tfdistill.losses.class_outputs import ClassOutputs
from tfdistill.losses.schedules import Schedule
from tfdistill.losses.spaces import LOG_OF_ZERO, Space
from tfdistill.utils import validate
from tfdistill.utils.types import Shape, Tensor


def class_indices(labels, logits_shape):
    """Returns labels as class numbers.

    Args:
        labels: Class numbers `(batch, ...)` or `(batch, ..., 1)`, or one-hot (or soft) rows `(batch, ..., classes)`, whose largest value is
            taken.
        logits_shape: Shape of the outputs, `(batch, ..., classes)`, at least two classes.

    Returns:
        int32 of shape `(batch, ...)`.

    Raises:
        DataError: if the labels have neither form.
    """
    labels = ops.convert_to_tensor(labels)
    rank = len(logits_shape)
    if len(labels.shape) == rank and labels.shape[-1] == 1:
        labels = ops.squeeze(labels, -1)
    if len(labels.shape) == rank and labels.shape[-1] in (logits_shape[-1], None):
        return ops.cast(ops.argmax(labels, axis=-1), "int32")
    if len(labels.shape) != rank - 1:
        raise DataError(
            f"The labels have the shape {tuple(labels.shape)}, the outputs over classes {tuple(logits_shape)}.",
            "class numbers (batch, ...) or one-hot rows (batch, ..., classes)",
        )
    return ops.cast(labels, "int32")


def decoupled_kd(teacher_logits, student_logits, target, temperature=4.0, alpha=1.0, beta=8.0):
    """Computes the weighted sum of the target-class and the non-target-class divergence, times the temperature squared.

    Args:
        teacher_logits: `(batch, ..., classes)`.
        student_logits: `(batch, ..., classes)`.
        target: Class numbers `(batch, ...)`.
        temperature: Positive number or scalar tensor.
        alpha: Weight of the KL divergence of the two probabilities (target class, all others together).
        beta: Weight of the KL divergence of the distributions over the other classes.

    Returns:
        `(batch, ...)`.
    """
    softness = 1.0 / temperature
    log_p, log_q = (ops.log_softmax(ops.multiply(x, softness)) for x in (teacher_logits, student_logits))
    is_target = ops.one_hot(target, teacher_logits.shape[-1], dtype=log_p.dtype)
    # Logarithms of the target's probability, and of the sum over the others. That sum is computed by itself, as 1 - p is 0 for a confident
    # teacher.
    log_pt, log_qt = (ops.sum(is_target * x, axis=-1) for x in (log_p, log_q))
    others_p, others_q = (ops.where(is_target > 0, LOG_OF_ZERO, x) for x in (log_p, log_q))
    log_po, log_qo = (ops.logsumexp(x, axis=-1) for x in (others_p, others_q))
    target_part = ops.exp(log_pt) * (log_pt - log_qt) + ops.exp(log_po) * (log_po - log_qo)
    others_part = (1.0 - is_target) * ops.softmax(others_p) * (log_p - log_po[..., None] - log_q + log_qo[..., None])
    return (alpha * target_part + beta * ops.sum(others_part, axis=-1)) * (temperature * temperature)


@keras.saving.register_keras_serializable(package="tfdistill")
class DecoupledKD(ClassOutputs):
    """Decoupled knowledge distillation: the two parts of the KL divergence, each with its own weight.

    With p = softmax(teacher / T), q = softmax(student / T) and the target class t, the loss is T**2 * (alpha * TCKD + beta * NCKD),
    averaged over the batch (and over positions). TCKD is KL((p_t, 1 - p_t) || (q_t, 1 - q_t)). NCKD is KL(p || q) over the other classes,
    where each side is divided by its sum over them. The divergence of `SoftTargets` is TCKD + (1 - p_t) * NCKD, in which a confident
    teacher gives little weight to the other classes.

    Zhao et al. 2022, "Decoupled knowledge distillation", arXiv 2203.08679.

    Args:
        temperature: The temperature T, a positive number or a schedule.
        alpha: Weight of the target-class part: a number or a schedule, at least 0.
        beta: Weight of the non-target-class part: a number or a schedule, at least 0. With two classes this part is always 0.
        target: Source of the target class: "labels", as in the paper, which needs `tfdistill.Distiller`, as it passes labels; or "teacher",
            the teacher's most probable class, for data without labels.
        teacher_outputs: What the teacher's outputs, `(batch, ..., classes)`, are: "logits", "log_probabilities" or "probabilities".
        student_outputs: What the student's outputs are, of the same shape; None for what `from_logits` says, on either side.
        teacher_layer_name: The teacher's layer; None stands for its final output.
        student_layer_name: The student's layer; None stands for its final output.
        from_logits: As in Keras's losses: False for models that end in a softmax, and is then short for "probabilities" on both sides. None
            stands for True.

    Raises:
        ConfigurationError: if a number is out of its range (at any step), or a choice is unknown.

    Example:
        >>> loss = tfdistill.losses.DecoupledKD(temperature=4.0, alpha=1.0, beta=8.0)
        >>> teacher_logits, student_logits = np.array([[9.0, 3.0, 1.0]]), np.array([[3.0, 1.0, 3.0]])
        >>> round(float(loss.compute_loss(teacher_logits, student_logits, labels=np.array([0]))), 3)
        19.768
    """

    schedulable: tuple[str, ...] = ("temperature", "alpha", "beta")

    def __init__(
        self,
        temperature: float | Schedule = 4.0,
        alpha: float | Schedule = 1.0,
        beta: float | Schedule = 8.0,
        target: Literal["labels", "teacher"] = "labels",
        teacher_outputs: Space | None = None,
        student_outputs: Space | None = None,
        teacher_layer_name: str | None = None,
        student_layer_name: str | None = None,
        from_logits: bool | None = None,
    ):
        super().__init__(teacher_outputs, student_outputs, teacher_layer_name, student_layer_name, from_logits)
        self.temperature = schedules.number_or_schedule("temperature", temperature, "DecoupledKD")
        self.alpha = schedules.number_or_schedule("alpha", alpha, "DecoupledKD", zero=True)
        self.beta = schedules.number_or_schedule("beta", beta, "DecoupledKD", zero=True)
        self.target = validate.one_of("target", target, ("labels", "teacher"), owner="DecoupledKD")

    @property
    def needs_labels(self) -> bool:
        """Whether the target class comes from the labels."""
        return self.target == "labels"

    def check_informative(self, teacher_shape: Shape, student_shape: Shape) -> None:
        if self.alpha == 0.0 and 2 in (teacher_shape[-1], student_shape[-1]):
            raise self.mismatch(
                teacher_shape,
                student_shape,
                "at least three classes with alpha=0.0: beside the target one class is left, whose share of the rest is always 1",
                "give `alpha` a positive weight",
            )

    def elementwise(self, teacher: Tensor, student: Tensor, step: Tensor | None = None, labels: Tensor | None = None) -> Tensor:
        teacher, student = self.as_logits(teacher, student)
        target = class_indices(labels, student.shape) if self.needs_labels else ops.argmax(teacher, axis=-1)
        return decoupled_kd(
            teacher,
            student,
            target,
            self.value("temperature", step, student),
            self.value("alpha", step, student),
            self.value("beta", step, student),
        )
