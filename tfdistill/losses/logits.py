"""Losses on the outputs over classes: soft targets, and the logits themselves."""

import math
import typing
from typing import Literal

import keras
import numpy as np
from keras import ops

from tfdistill.errors import ConfigurationError
from tfdistill.losses import schedules, spaces
from tfdistill.losses.base import KnowledgeLoss
from tfdistill.losses.class_outputs import ClassOutputs
from tfdistill.losses.schedules import Schedule
from tfdistill.losses.space_checks import SIDES, OutputSpaces, check_binary_spaces, check_logits
from tfdistill.losses.spaces import BinarySpace, Space
from tfdistill.losses.top_k import TopK, merged_logits
from tfdistill.utils import validate
from tfdistill.utils.types import Activations, Shape, Tensor

Divergence = Literal["kl", "reverse_kl", "js", "cross_entropy"]
DIVERGENCES = typing.get_args(Divergence)


def soft_targets(teacher_logits, student_logits, temperature=4.0, divergence="kl", standardize=False):
    """Computes the divergence of the softened distributions, times the temperature squared.

    Args:
        teacher_logits: `(batch, ..., classes)`. Log-probabilities are logits too.
        student_logits: `(batch, ..., classes)`.
        temperature: Positive number or scalar tensor.
        divergence: With p the teacher's and q the student's softened distribution: "kl" is KL(p || q), "reverse_kl" is KL(q || p), "js" the
            mean of KL(p || m) and KL(q || m) where m = (p + q) / 2, "cross_entropy" is -sum p log q (KL plus the entropy of p).
        standardize: Whether to scale the logits of both sides to mean 0 and standard deviation 1 over the classes first. The student's are
            divided by at least `spaces.least_deviation`.

    Returns:
        `(batch, ...)`: the sum over classes, times `temperature ** 2`, so that gradients keep their size as the temperature changes.
    """
    if standardize:
        least = spaces.least_deviation(teacher_logits)
        teacher_logits, student_logits = spaces.standardized(teacher_logits), spaces.standardized(student_logits, least)
    softness = 1.0 / temperature
    # Multiplying, even by one, keeps Keras from finding a student's softmax behind the tensor and warning about it.
    t, s = ops.multiply(teacher_logits, softness), ops.multiply(student_logits, softness)
    if divergence in ("kl", "cross_entropy"):
        # Keras's fused operation computes value and gradient at once; KL is the difference of two of them, exactly 0 for equal sides.
        p = ops.softmax(t)
        losses = ops.categorical_crossentropy(p, s, from_logits=True)
        if divergence == "kl":
            losses = losses - ops.stop_gradient(ops.categorical_crossentropy(p, t, from_logits=True))
    else:
        log_p, log_q = ops.log_softmax(t), ops.log_softmax(s)
        q = ops.exp(log_q)
        if divergence == "reverse_kl":
            losses = ops.sum(q * (log_q - log_p), axis=-1)
        else:
            # Written out, because the gradient of `logaddexp` is wrong where both are equal.
            larger = ops.stop_gradient(ops.maximum(log_p, log_q))
            log_m = larger + ops.log(ops.exp(log_p - larger) + ops.exp(log_q - larger)) - math.log(2.0)
            losses = 0.5 * ops.sum(ops.exp(log_p) * (log_p - log_m) + q * (log_q - log_m), axis=-1)
    return losses * (temperature * temperature)


def logit_matching(teacher_logits, student_logits, centered=False):
    """Computes the mean over the classes of the squared difference of logits.

    Args:
        teacher_logits: `(batch, ..., classes)`.
        student_logits: `(batch, ..., classes)`.
        centered: Whether to subtract each side's mean over the classes first, which no softmax depends on.

    Returns:
        `(batch, ...)`.
    """
    difference = student_logits - teacher_logits
    if centered:
        difference = difference - ops.mean(difference, axis=-1, keepdims=True)
    return ops.mean(ops.square(difference), axis=-1)


def binary_soft_targets(teacher_logits, student_logits, temperature=1.0):
    """Computes the KL divergence of independent Bernoulli distributions, summed over the labels, times the temperature squared.

    Args:
        teacher_logits: `(batch, ..., labels)`.
        student_logits: `(batch, ..., labels)`.
        temperature: Positive number or scalar tensor.

    Returns:
        `(batch, ...)`.
    """
    softness = 1.0 / temperature
    t, s = ops.multiply(teacher_logits, softness), ops.multiply(student_logits, softness)
    # KL of Bernoulli(sigmoid t) from Bernoulli(sigmoid s). Softplus never overflows. The two terms are computed apart, as large logits
    # would cancel in their sum.
    positive, negative = (ops.sigmoid(x) * (ops.softplus(-y) - ops.softplus(-x)) for x, y in ((t, s), (-t, -s)))
    return ops.sum(positive + negative, axis=-1) * (temperature * temperature)


@keras.saving.register_keras_serializable(package="tfdistill")
class SoftTargets(ClassOutputs):
    """Soft targets: the student learns the teacher's distribution over the classes, softened by a temperature.

    With p = softmax(teacher / T) and q = softmax(student / T), the loss is T**2 * KL(p || q) = T**2 * sum(p * log(p / q)) over the classes,
    averaged over the batch (and over positions). Every divergence has the factor T**2, which keeps the size of the gradients as T changes.

    Hinton, Vinyals and Dean 2015, "Distilling the knowledge in a neural network", arXiv 1503.02531.

    Args:
        temperature: The temperature T, a positive number or a schedule. 1 keeps the distributions as they are; 2 to 8 are usual.
        divergence: "kl" is KL(p || q), as in the paper; "reverse_kl" is KL(q || p); "js" is the Jensen-Shannon divergence, whose gradient
            is a quarter of KL's for similar p and q; "cross_entropy" is -sum(p * log(q)), which has the gradient of KL and is not 0 for
            equal sides.
        standardize: Whether to scale the logits of both sides to mean 0 and standard deviation 1 first, so that their shift and scale do
            not matter (Sun et al. 2024, "Logit standardization in knowledge distillation", arXiv 2403.01427, with temperatures of about 2).
            Needs at least three classes, none of them masked. The deviation is the population's, as in the paper's formula; the authors'
            code takes the sample's. A student's deviation below 0.1, or below a tenth of the teacher's where that is less than 1, is not
            scaled up to 1, which bounds the gradient.
        teacher_outputs: What the teacher's outputs, `(batch, ..., classes)`, are: "logits", "log_probabilities" or "probabilities".
        student_outputs: What the student's outputs are, of the same shape; None for what `from_logits` says, on either side.
        teacher_layer_name: The teacher's layer; None stands for its final output.
        student_layer_name: The student's layer; None stands for its final output.
        from_logits: As in Keras's losses: False for models that end in a softmax, and is then short for "probabilities" on both sides. None
            stands for True.

    Raises:
        ConfigurationError: if the temperature is not positive (at every step), or a choice is unknown.

    Example:
        >>> loss = tfdistill.losses.SoftTargets(temperature=4.0)
        >>> teacher_logits, student_logits = np.array([[8.0, 4.0, 0.0]]), np.array([[0.0, 4.0, 8.0]])
        >>> round(float(loss.compute_loss(teacher_logits, student_logits)), 3)
        18.407
        >>> distiller = tfdistill.Distiller(teacher, student, loss, student_loss_weight=0.1)
        >>> tfdistill.losses.SoftTargets(temperature=4.0, from_logits=False)  # for two models that end in a softmax
        SoftTargets(temperature=4.0, divergence='kl', standardize=False, teacher_outputs='probabilities', student_outputs='probabilities')
    """

    schedulable: tuple[str, ...] = ("temperature",)

    def __init__(
        self,
        temperature: float | Schedule = 4.0,
        divergence: Divergence = "kl",
        standardize: bool = False,
        teacher_outputs: Space | None = None,
        student_outputs: Space | None = None,
        teacher_layer_name: str | None = None,
        student_layer_name: str | None = None,
        from_logits: bool | None = None,
    ):
        super().__init__(teacher_outputs, student_outputs, teacher_layer_name, student_layer_name, from_logits)
        self.temperature = schedules.number_or_schedule("temperature", temperature, "SoftTargets")
        self.divergence = validate.one_of("divergence", divergence, DIVERGENCES, owner="SoftTargets")
        self.standardize = validate.boolean("standardize", standardize, owner="SoftTargets")

    def check_informative(self, teacher_shape: Shape, student_shape: Shape) -> None:
        if self.standardize and 2 in (teacher_shape[-1], student_shape[-1]):
            raise self.mismatch(
                teacher_shape,
                student_shape,
                "at least three classes with standardize=True: two standardized logits are always 1 and -1, whatever the student does",
                "set standardize=False",
            )

    def check_first_batch(self, teacher: np.ndarray, student: np.ndarray, activations: Activations = (None, None)) -> None:
        super().check_first_batch(teacher, student, activations)
        if self.standardize:
            spaces.check_unmasked("SoftTargets(standardize=True)", "teacher", teacher)
            spaces.check_unmasked("SoftTargets(standardize=True)", "student", student)

    def elementwise(self, teacher: Tensor, student: Tensor, step: Tensor | None = None, labels: Tensor | None = None) -> Tensor:
        teacher, student = self.as_logits(teacher, student)
        return soft_targets(teacher, student, self.value("temperature", step, student), self.divergence, self.standardize)

    def top_k_loss(self, teacher: TopK, student: Tensor, step: Tensor | None = None) -> Tensor:
        temperature = self.temperature
        if schedules.is_schedule(temperature) or temperature not in teacher.temperatures:
            raise ConfigurationError(
                f"SoftTargets has the temperature {temperature}, but with top_k the weight of the other classes was kept for {list(teacher.temperatures)} only.",
                "one of these temperatures: at another one that weight is not known",
                "use one of them, or write the cache again with top_k and this one among the temperatures",
            )
        if self.standardize:
            raise ConfigurationError(
                "SoftTargets(standardize=True) needs the mean and deviation of all logits, but only the largest were kept.",
                "standardize=False with top_k, or whole outputs (top_k=None)",
            )
        if self.teacher_outputs == "probabilities":
            raise ConfigurationError(
                "SoftTargets has teacher_outputs='probabilities', but with top_k logits are kept.",
                "teacher_outputs='logits'",
            )
        student = spaces.as_logits(student, self.student_outputs)
        teacher_merged, student_merged = merged_logits(teacher, student, float(temperature))
        # Divided by the temperature already.
        return soft_targets(teacher_merged, student_merged, 1.0, self.divergence) * temperature**2


@keras.saving.register_keras_serializable(package="tfdistill")
class LogitMatching(KnowledgeLoss):
    """Mean squared difference of the logits: mean((student - teacher)**2) over the classes, averaged over the batch and over positions.

    Both sides must be logits: probabilities do not determine the shift of their logits. `SoftTargets` tends to half of the centered form as
    its temperature grows.

    Ba and Caruana 2014, "Do deep nets really need to be deep?", arXiv 1312.6184.

    Args:
        centered: Whether to subtract each side's mean over the classes first, so that a shift common to all classes does not matter.
        teacher_layer_name: The teacher's layer, `(batch, ..., classes)`; None stands for its final output.
        student_layer_name: The student's layer, of the same shape; None stands for its final output.

    Raises:
        ConfigurationError: if `centered` is no boolean.

    Example:
        >>> teacher_logits, student_logits = np.array([[2.0, 0.0]]), np.array([[3.0, 1.0]])
        >>> float(tfdistill.losses.LogitMatching().compute_loss(teacher_logits, student_logits))
        1.0
        >>> float(tfdistill.losses.LogitMatching(centered=True).compute_loss(teacher_logits, student_logits))
        0.0
    """

    def __init__(self, centered: bool = False, teacher_layer_name: str | None = None, student_layer_name: str | None = None):
        super().__init__(teacher_layer_name, student_layer_name)
        self.centered = validate.boolean("centered", centered, owner="LogitMatching")

    def check_shapes(self, teacher_shape: Shape, student_shape: Shape) -> None:
        super().check_shapes(teacher_shape, student_shape)
        if len(student_shape) < 2:
            raise self.mismatch(teacher_shape, student_shape, "(batch, classes) or (batch, ..., classes)")

    def check_informative(self, teacher_shape: Shape, student_shape: Shape) -> None:
        if self.centered and 1 in (teacher_shape[-1], student_shape[-1]):
            raise self.mismatch(
                teacher_shape, student_shape, "at least two logits with centered=True: one logit less its mean is 0", "set centered=False"
            )

    def check_first_batch(self, teacher: np.ndarray, student: np.ndarray, activations: Activations = (None, None)) -> None:
        super().check_first_batch(teacher, student, activations)
        for side, values, activation in zip(SIDES, (teacher, student), activations, strict=True):
            if values.shape[-1] > 1:
                check_logits("LogitMatching", side, values, activation)

    def elementwise(self, teacher: Tensor, student: Tensor, step: Tensor | None = None, labels: Tensor | None = None) -> Tensor:
        return logit_matching(teacher, student, self.centered)


@keras.saving.register_keras_serializable(package="tfdistill")
class BinarySoftTargets(OutputSpaces, KnowledgeLoss):
    """Soft targets for sigmoid outputs: binary classification, or several labels that do not exclude one another.

    With p = sigmoid(teacher / T) and q = sigmoid(student / T), the loss is T**2 * sum(p * log(p / q) + (1 - p) * log((1 - p) / (1 - q)))
    over the labels, averaged over the batch (and over positions). It is the KL divergence of Hinton et al. 2015 (arXiv 1503.02531) for
    Bernoulli distributions.

    Args:
        temperature: The temperature T, a positive number or a schedule.
        teacher_outputs: What the teacher's outputs, `(batch, ..., labels)`, are: "logits" or "probabilities".
        student_outputs: What the student's outputs are, of the same shape; None for what `from_logits` says, on either side.
        teacher_layer_name: The teacher's layer; None stands for its final output.
        student_layer_name: The student's layer; None stands for its final output.
        from_logits: As in Keras's losses: False for models that end in a sigmoid, and is then short for "probabilities" on both sides. None
            stands for True.

    Raises:
        ConfigurationError: if the temperature is not positive (at every step), or a choice is unknown.

    Example:
        >>> loss = tfdistill.losses.BinarySoftTargets(temperature=2.0)
        >>> round(float(loss.compute_loss(np.array([[3.0, -1.0]]), np.array([[0.0, -1.0]]))), 3)
        0.872
    """

    schedulable: tuple[str, ...] = ("temperature",)

    def __init__(
        self,
        temperature: float | Schedule = 1.0,
        teacher_outputs: BinarySpace | None = None,
        student_outputs: BinarySpace | None = None,
        teacher_layer_name: str | None = None,
        student_layer_name: str | None = None,
        from_logits: bool | None = None,
    ):
        super().__init__(teacher_layer_name, student_layer_name)
        self.temperature = schedules.number_or_schedule("temperature", temperature, "BinarySoftTargets")
        self._set_spaces(teacher_outputs, student_outputs, from_logits, spaces.BINARY_SPACES)

    def check_shapes(self, teacher_shape: Shape, student_shape: Shape) -> None:
        super().check_shapes(teacher_shape, student_shape)
        if len(student_shape) < 2:
            raise self.mismatch(teacher_shape, student_shape, "(batch, labels) or (batch, ..., labels)")

    def check_first_batch(self, teacher: np.ndarray, student: np.ndarray, activations: Activations = (None, None)) -> None:
        super().check_first_batch(teacher, student, activations)
        check_binary_spaces(self, teacher, student, activations)

    def _prepared(self, teacher, student):
        ready = super()._prepared(teacher, student)
        return spaces.with_float16(ready, student) if self.student_outputs == "probabilities" else ready

    def elementwise(self, teacher: Tensor, student: Tensor, step: Tensor | None = None, labels: Tensor | None = None) -> Tensor:
        student = spaces.as_binary_logits(student, self.student_outputs)
        teacher = ops.cast(spaces.as_binary_logits(teacher, self.teacher_outputs), student.dtype)
        return binary_soft_targets(teacher, student, self.value("temperature", step, student))
