"""Soft targets in two parts: how sure the teacher is, and how the rest is shared out."""

import keras
from keras import ops

from tfdistill.errors import DataError
from tfdistill.losses import checks, schedules
from tfdistill.losses.logits import ClassOutputs

# Far below any logit, and small enough that sums of it stay finite in float32.
NEVER = -1e30


def class_indices(labels, logits_shape):
    """Labels as class numbers.

    Args:
        labels: Class numbers `(batch, ...)` or `(batch, ..., 1)`, or one-hot (or soft) rows `(batch, ..., classes)`, of which the largest counts.
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
    """Target-class and non-target-class divergence, weighted apart, times the temperature squared.

    Args:
        teacher_logits: `(batch, ..., classes)`.
        student_logits: `(batch, ..., classes)`.
        target: Class numbers `(batch, ...)`.
        temperature: Positive number or scalar tensor.
        alpha: Weight of the KL divergence between (target, all others) of both sides.
        beta: Weight of the KL divergence between the distributions over the other classes.

    Returns:
        `(batch, ...)`.
    """
    softness = 1.0 / temperature
    log_p, log_q = (ops.log_softmax(ops.multiply(x, softness)) for x in (teacher_logits, student_logits))
    hot = ops.one_hot(target, teacher_logits.shape[-1], dtype=log_p.dtype)
    cold = 1.0 - hot
    # Logarithms of the target's probability and of the others' sum; the latter from a sum of its own, since 1 - p is 0 for a sure teacher.
    log_pt, log_qt = (ops.sum(hot * x, axis=-1) for x in (log_p, log_q))
    others_p, others_q = (ops.where(hot > 0, NEVER, x) for x in (log_p, log_q))
    log_po, log_qo = (ops.logsumexp(x, axis=-1) for x in (others_p, others_q))
    target_part = ops.exp(log_pt) * (log_pt - log_qt) + ops.exp(log_po) * (log_po - log_qo)
    shared_p = ops.softmax(others_p)
    shared = cold * shared_p * (log_p - log_po[..., None] - log_q + log_qo[..., None])
    return (alpha * target_part + beta * ops.sum(shared, axis=-1)) * (temperature * temperature)


@keras.saving.register_keras_serializable(package="tfdistill")
class DecoupledKD(ClassOutputs):
    """Decoupled knowledge distillation: KL's two parts, with weights of their own.

    Zhao et al. 2022, "Decoupled knowledge distillation", arXiv 2203.08679. KL is the target-class part plus the non-target-class part times (1 - the teacher's
    probability of the target), so a sure teacher hardly teaches how the other classes compare; here that weight is `beta`, whatever the teacher. Multiplied
    by the temperature squared, averaged over the batch (and positions).

    Args:
        temperature: Positive number or schedule.
        alpha: Weight of the target-class part: number or schedule, at least 0.
        beta: Weight of the non-target-class part: number or schedule, at least 0. With two classes this part is always 0.
        target: Where the target class comes from: "labels" (as in the paper; needs a Distiller that passes them), or "teacher", the
            teacher's most probable class, for data without labels.
        teacher_outputs: The space of the teacher's outputs, `(batch, ..., classes)`: "logits", "log_probabilities" or "probabilities".
        student_outputs: The same of the student's.
        teacher_layer: The teacher's layer; None stands for its final output.
        student_layer: The student's layer; None stands for its final output.

    Raises:
        ConfigurationError: if a number is out of its range (at any step), or a choice is unknown.
    """

    schedulable = ("temperature", "alpha", "beta")

    def __init__(
        self,
        temperature=4.0,
        alpha=1.0,
        beta=8.0,
        target="labels",
        teacher_outputs="logits",
        student_outputs="logits",
        teacher_layer=None,
        student_layer=None,
    ):
        super().__init__(teacher_outputs, student_outputs, teacher_layer, student_layer)
        self.temperature = schedules.checked("DecoupledKD", "temperature", temperature)
        self.alpha = schedules.checked("DecoupledKD", "alpha", alpha, strict=False)
        self.beta = schedules.checked("DecoupledKD", "beta", beta, strict=False)
        self.target = checks.choice("DecoupledKD", "target", target, ("labels", "teacher"))

    @property
    def needs_labels(self):
        """Whether the target class comes from the labels."""
        return self.target == "labels"

    def check_informative(self, teacher_shape, student_shape):
        if self.alpha == 0.0 and 2 in (teacher_shape[-1], student_shape[-1]):
            raise self.mismatch(
                teacher_shape,
                student_shape,
                "at least three classes with alpha=0.0: beside the target one class is left, with all of what remains",
                "give `alpha` a positive weight",
            )

    def elementwise(self, teacher, student, step=None, labels=None):
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
