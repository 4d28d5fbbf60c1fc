"""What the teacher says about every class: soft targets and logits."""

import math

import keras
from keras import ops

from tfdistill.errors import ConfigurationError
from tfdistill.losses import checks, schedules, spaces
from tfdistill.losses.base import KnowledgeLoss
from tfdistill.losses.top_k import merged_logits

DIVERGENCES = ("kl", "reverse_kl", "js", "cross_entropy")


def soft_targets(teacher_logits, student_logits, temperature=4.0, divergence="kl", standardize=False):
    """Divergence of the softened distributions, times the temperature squared.

    Args:
        teacher_logits: `(batch, ..., classes)`. Log-probabilities are logits too.
        student_logits: `(batch, ..., classes)`.
        temperature: Positive number or scalar tensor.
        divergence: With p the teacher's and q the student's softened distribution: "kl" is KL(p || q), "reverse_kl" is KL(q || p), "js" the mean of
            KL(p || m) and KL(q || m) where m = (p + q) / 2, "cross_entropy" is -sum p log q (KL plus the entropy of p).
        standardize: Whether to give both sides mean 0 and standard deviation 1 over the classes before the temperature. A student's deviation counts as
            at least `spaces.least_deviation`.

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
    """Mean squared difference of logits over the classes.

    Args:
        teacher_logits: `(batch, ..., classes)`.
        student_logits: `(batch, ..., classes)`.
        centered: Whether to take each side's mean over the classes away first, which no softmax notices.

    Returns:
        `(batch, ...)`.
    """
    difference = student_logits - teacher_logits
    if centered:
        difference = difference - ops.mean(difference, axis=-1, keepdims=True)
    return ops.mean(ops.square(difference), axis=-1)


def binary_soft_targets(teacher_logits, student_logits, temperature=1.0):
    """KL divergence between independent yes-no answers, summed over the labels, times the temperature squared.

    Args:
        teacher_logits: `(batch, ..., labels)`.
        student_logits: `(batch, ..., labels)`.
        temperature: Positive number or scalar tensor.

    Returns:
        `(batch, ...)`.
    """
    softness = 1.0 / temperature
    t, s = ops.multiply(teacher_logits, softness), ops.multiply(student_logits, softness)
    # KL of Bernoulli(sigmoid t) from Bernoulli(sigmoid s); softplus never overflows. Each answer's part by itself, as large logits would cancel in their sum.
    yes, no = (ops.sigmoid(x) * (ops.softplus(-y) - ops.softplus(-x)) for x, y in ((t, s), (-t, -s)))
    losses = yes + no
    return ops.sum(losses, axis=-1) * (temperature * temperature)


class ClassOutputs(KnowledgeLoss):
    """Base of the losses that compare outputs over classes, which say the space that each side is in.

    Args:
        teacher_outputs: "logits", "log_probabilities" or "probabilities".
        student_outputs: The same of the student. Logits are best: they lose nothing.
        teacher_layer: The teacher's layer; None stands for its final output.
        student_layer: The student's layer; None stands for its final output.

    Raises:
        ConfigurationError: if a space is unknown.
    """

    def __init__(self, teacher_outputs="logits", student_outputs="logits", teacher_layer=None, student_layer=None):
        super().__init__(teacher_layer, student_layer)
        owner = type(self).__name__
        self.teacher_outputs = checks.choice(owner, "teacher_outputs", teacher_outputs, spaces.SPACES)
        self.student_outputs = checks.choice(owner, "student_outputs", student_outputs, spaces.SPACES)

    def check_shapes(self, teacher_shape, student_shape):
        super().check_shapes(teacher_shape, student_shape)
        if len(student_shape) < 2:
            raise self.mismatch(teacher_shape, student_shape, "(batch, classes) or (batch, ..., classes)")
        if 1 in (teacher_shape[-1], student_shape[-1]):
            raise self.mismatch(
                teacher_shape,
                student_shape,
                "at least two classes: a softmax over one is always 1",
                "use BinarySoftTargets for one yes-no output, or OutputMatching for regression",
            )

    def check_first_batch(self, teacher, student):
        super().check_first_batch(teacher, student)
        spaces.check_class_space(type(self).__name__, "teacher", teacher, self.teacher_outputs)
        spaces.check_class_space(type(self).__name__, "student", student, self.student_outputs)

    def _prepared(self, teacher, student):
        ready = super()._prepared(teacher, student)
        return spaces.with_float16(ready, student) if self.student_outputs == "probabilities" else ready

    def as_logits(self, teacher, student):
        """Both sides as logits."""
        student = spaces.as_logits(student, self.student_outputs)
        return ops.cast(spaces.as_logits(teacher, self.teacher_outputs), student.dtype), student


@keras.saving.register_keras_serializable(package="tfdistill")
class SoftTargets(ClassOutputs):
    """Soft targets: the student learns the teacher's whole distribution, softened by a temperature.

    Hinton, Vinyals and Dean 2015, "Distilling the knowledge in a neural network", arXiv 1503.02531. Whatever the divergence, the loss is
    multiplied by the temperature squared, summed over the classes, and averaged over the batch (and over positions).

    Args:
        temperature: Positive number or schedule. 1 keeps the distributions as they are; 2 to 8 are usual.
        divergence: "kl" (teacher from student, as in the paper), "reverse_kl", "js" (Jensen-Shannon; its gradient is a quarter of KL's) or
            "cross_entropy" (KL plus a constant: the same gradient, but not 0 for equal sides).
        standardize: Whether to standardize both sides' logits first (Sun et al. 2024, arXiv 2403.01427): then the shift and scale of
            logits do not matter. Their temperature is about 2. Needs at least three classes, none of them masked. A student's logits that deviate by less
            than a tenth (of one, or of the teacher's deviation where that is smaller) are not scaled up in full: see `spaces.least_deviation`. The
            deviation is the population's, as in their formula; their code takes the sample's.
        teacher_outputs: The space of the teacher's outputs, `(batch, ..., classes)`: "logits", "log_probabilities" or "probabilities".
        student_outputs: The same of the student's.
        teacher_layer: The teacher's layer; None stands for its final output.
        student_layer: The student's layer; None stands for its final output.

    Raises:
        ConfigurationError: if the temperature is not positive (at every step), or a choice is unknown.
    """

    schedulable = ("temperature",)

    def __init__(
        self,
        temperature=4.0,
        divergence="kl",
        standardize=False,
        teacher_outputs="logits",
        student_outputs="logits",
        teacher_layer=None,
        student_layer=None,
    ):
        super().__init__(teacher_outputs, student_outputs, teacher_layer, student_layer)
        self.temperature = schedules.checked("SoftTargets", "temperature", temperature)
        self.divergence = checks.choice("SoftTargets", "divergence", divergence, DIVERGENCES)
        self.standardize = checks.switch("SoftTargets", "standardize", standardize)

    def check_informative(self, teacher_shape, student_shape):
        if self.standardize and 2 in (teacher_shape[-1], student_shape[-1]):
            raise self.mismatch(
                teacher_shape,
                student_shape,
                "at least three classes with standardize=True: two standardized logits are always 1 and -1, whatever the student says",
                "set standardize=False",
            )

    def check_first_batch(self, teacher, student):
        super().check_first_batch(teacher, student)
        if self.standardize:
            spaces.check_unmasked("SoftTargets(standardize=True)", "teacher", teacher)
            spaces.check_unmasked("SoftTargets(standardize=True)", "student", student)

    def elementwise(self, teacher, student, step=None, labels=None):
        teacher, student = self.as_logits(teacher, student)
        return soft_targets(teacher, student, self.value("temperature", step, student), self.divergence, self.standardize)

    def top_k_loss(self, teacher, student, step=None):
        temperature = self.temperature
        if schedules.is_schedule(temperature) or temperature not in teacher.temperatures:
            raise ConfigurationError(
                f"SoftTargets has the temperature {temperature}, but with top_k the weight of the other classes was kept for {list(teacher.temperatures)} only.",
                "one of these temperatures: at another one that weight is not known",
                "use one of them, or label again with top_k and this one among the temperatures",
            )
        if self.standardize:
            raise ConfigurationError(
                "SoftTargets(standardize=True) needs the mean and deviation of all logits, but only the largest were kept.",
                "standardize=False with top_k, or whole outputs (top_k=None)",
            )
        if self.teacher_outputs == "probabilities":
            raise ConfigurationError(
                "SoftTargets was told that the teacher's outputs are probabilities, but with top_k logits are kept.",
                "teacher_outputs='logits'",
            )
        student = spaces.as_logits(student, self.student_outputs)
        theirs, own = merged_logits(teacher, student, float(temperature))
        # Divided by the temperature already.
        return soft_targets(theirs, own, 1.0, self.divergence) * temperature**2


@keras.saving.register_keras_serializable(package="tfdistill")
class LogitMatching(KnowledgeLoss):
    """Mean squared difference of the logits themselves.

    Ba and Caruana 2014, "Do deep nets really need to be deep?", arXiv 1312.6184. Half of the centered form is what `SoftTargets` tends to as
    its temperature grows. Probabilities have no logits of their own (their shift is lost), so logits are asked for on both sides.

    Args:
        centered: Whether to ignore a shift common to all classes.
        teacher_layer: The teacher's layer, `(batch, ..., classes)`; None stands for its final output.
        student_layer: The student's layer, of the same shape; None stands for its final output.

    Raises:
        ConfigurationError: if `centered` is no boolean.
    """

    def __init__(self, centered=False, teacher_layer=None, student_layer=None):
        super().__init__(teacher_layer, student_layer)
        self.centered = checks.switch("LogitMatching", "centered", centered)

    def check_shapes(self, teacher_shape, student_shape):
        super().check_shapes(teacher_shape, student_shape)
        if len(student_shape) < 2:
            raise self.mismatch(teacher_shape, student_shape, "(batch, classes) or (batch, ..., classes)")

    def check_informative(self, teacher_shape, student_shape):
        if self.centered and 1 in (teacher_shape[-1], student_shape[-1]):
            raise self.mismatch(
                teacher_shape, student_shape, "at least two logits with centered=True: one logit less its mean is 0", "set centered=False"
            )

    def check_first_batch(self, teacher, student):
        super().check_first_batch(teacher, student)
        for side, values in (("teacher", teacher), ("student", student)):
            if values.shape[-1] > 1:
                spaces.check_class_space("LogitMatching", side, values, "logits")

    def elementwise(self, teacher, student, step=None, labels=None):
        return logit_matching(teacher, student, self.centered)


@keras.saving.register_keras_serializable(package="tfdistill")
class BinarySoftTargets(KnowledgeLoss):
    """Soft targets for sigmoid outputs: one yes-no question, or many that do not exclude one another (multi-label).

    The KL divergence of Bernoulli distributions, summed over the labels, times the temperature squared; averaged over the batch.

    Args:
        temperature: Positive number or schedule.
        teacher_outputs: The space of the teacher's outputs, `(batch, ..., labels)`: "logits" or "probabilities".
        student_outputs: The same of the student's.
        teacher_layer: The teacher's layer; None stands for its final output.
        student_layer: The student's layer; None stands for its final output.

    Raises:
        ConfigurationError: if the temperature is not positive (at every step), or a choice is unknown.
    """

    schedulable = ("temperature",)

    def __init__(self, temperature=1.0, teacher_outputs="logits", student_outputs="logits", teacher_layer=None, student_layer=None):
        super().__init__(teacher_layer, student_layer)
        self.temperature = schedules.checked("BinarySoftTargets", "temperature", temperature)
        self.teacher_outputs = checks.choice("BinarySoftTargets", "teacher_outputs", teacher_outputs, ("logits", "probabilities"))
        self.student_outputs = checks.choice("BinarySoftTargets", "student_outputs", student_outputs, ("logits", "probabilities"))

    def check_shapes(self, teacher_shape, student_shape):
        super().check_shapes(teacher_shape, student_shape)
        if len(student_shape) < 2:
            raise self.mismatch(teacher_shape, student_shape, "(batch, labels) or (batch, ..., labels)")

    def check_first_batch(self, teacher, student):
        super().check_first_batch(teacher, student)
        spaces.check_binary_space("BinarySoftTargets", "teacher", teacher, self.teacher_outputs)
        spaces.check_binary_space("BinarySoftTargets", "student", student, self.student_outputs)

    def _prepared(self, teacher, student):
        ready = super()._prepared(teacher, student)
        return spaces.with_float16(ready, student) if self.student_outputs == "probabilities" else ready

    def elementwise(self, teacher, student, step=None, labels=None):
        student = spaces.as_binary_logits(student, self.student_outputs)
        teacher = ops.cast(spaces.as_binary_logits(teacher, self.teacher_outputs), student.dtype)
        return binary_soft_targets(teacher, student, self.value("temperature", step, student))
