"""Losses on the correlation of predictions: their scale and shift may differ from the teacher's."""

import math

import keras
import numpy as np
from keras import ops

from tfdistill.losses import checks, scaling, schedules, spaces
from tfdistill.losses.class_outputs import ClassOutputs
from tfdistill.losses.reduction import flat_weights, weighted_mean
from tfdistill.losses.schedules import Schedule
from tfdistill.losses.spaces import Space
from tfdistill.utils.types import Activations, Shape, Tensor

# Log-probabilities below this count as those of a probability of zero.
SMALLEST_LOG = math.log(scaling.SMALLEST)


def pearson_distance(teacher, student, axis=-1, weights=None, least=0.0):
    """Computes one minus Pearson's correlation: 0 where one side is the other, scaled and shifted; 2 where that scale is negative.

    Args:
        teacher: `(..., n, ...)`.
        student: Of the same shape.
        axis: The axis along which to correlate.
        weights: None, or non-negative weights that broadcast to the shape, for the means and (co)variances. Their common scale does not
            matter.
        least: Standard deviation of the student below which its correlation is scaled down, to 0 for a constant, so that the gradient is at
            most about 1 / least. A number, or a tensor without gradient that broadcasts to the shape with `axis` of size 1.

    Returns:
        The shape without `axis`. Where a side is constant (to about 1e-5 of its largest value in float32) the correlation counts as 0, and
        the distance is 1.
    """
    shares = _shares(teacher, axis, weights)
    sides = []
    for x, floor in ((teacher, 0.0), (student, least)):
        floor = ops.maximum(scaling.rounding(x) * scaling.magnitude(x, axis), floor)
        sides.append(scaling.normalized((x - _mean(x, axis, shares)) * ops.sqrt(shares), floor, axis))
    return 1.0 - ops.sum(sides[0] * sides[1], axis=axis)


def _shares(x, axis, weights):
    """Returns weights along `axis` that sum to one, without gradient."""
    if weights is None:
        return 1.0 / ops.cast(ops.shape(x)[axis], x.dtype)
    weights = ops.stop_gradient(weights)
    return weights / ops.maximum(ops.sum(weights, axis=axis, keepdims=True), scaling.SMALLEST)


def _mean(x, axis, shares):
    return ops.sum(shares * x, axis=axis, keepdims=True)


def correlation_of_excess(teacher, student, axis=-1, weights=None):
    """Computes `pearson_distance` of positive numbers x from x - 1, which keeps the digits of numbers that are all nearly equal.

    A student whose numbers are all equal, as with a last layer that starts at zero, has no correlation. Near that point the gradient is one
    over the deviation: one step of SGD moves the weights so far that later steps, whose gradients are then small, do not bring them back.
    So the student's correlation is scaled down where its deviation is below a tenth of its mean, or below that times the teacher's relative
    deviation where this is less than one.

    Args:
        teacher: x - 1, above -1, of shape `(..., n, ...)`. The scale of x does not matter.
        student: Of the same shape.
        axis: As in `pearson_distance`.
        weights: As in `pearson_distance`.

    Returns:
        The shape without `axis`.
    """
    shares = _shares(teacher, axis, weights)
    target, own = (ops.stop_gradient(x) for x in (teacher, student))
    centred = target - _mean(target, axis, shares)
    relative = scaling.length(centred * ops.sqrt(shares), axis) / (1.0 + _mean(target, axis, shares))
    constant = scaling.magnitude(centred, axis) <= scaling.rounding(target) * scaling.magnitude(target, axis)
    relative = ops.minimum(ops.where(constant, 1.0, relative), 1.0)
    return pearson_distance(teacher, student, axis, weights, spaces.FLAT * relative * (1.0 + _mean(own, axis, shares)))


def _between_classes(logits):
    """Returns the softmax of each row divided by its largest value, minus one: correlations within a row do not depend on that scale."""
    return ops.expm1(logits - ops.stop_gradient(ops.max(logits, axis=-1, keepdims=True)))


def _between_samples(logits, weights=None):
    """Returns the softmax of each class divided by its largest value in the batch, minus one. Correlations do not depend on that scale.

    Args:
        logits: `(samples, classes)`.
        weights: None, or `(samples, 1)`; samples of weight 0 are left out of the largest value.

    Returns:
        `(samples, classes)`; zeros for a class that has a probability below 1e-30 in all samples, as a masked one does.
    """
    logits = logits - ops.stop_gradient(ops.max(logits, axis=-1, keepdims=True))
    # Log-probabilities plus the logarithm of the number of classes, whose subtraction would cost digits of small logits.
    logits = logits - ops.log1p(ops.mean(ops.expm1(logits), axis=-1, keepdims=True))
    present = ops.stop_gradient(logits)
    if weights is not None:
        present = ops.where(weights > 0, present, spaces.LOG_OF_ZERO)
    largest = ops.max(present, axis=0, keepdims=True)
    return ops.where(largest > SMALLEST_LOG, ops.expm1(ops.minimum(logits - largest, 0.0)), 0.0)


@keras.saving.register_keras_serializable(package="tfdistill")
class DIST(ClassOutputs):
    """DIST: Pearson correlation of predictions, within each sample and within each class.

    With p = softmax(teacher / T), q = softmax(student / T) and the distance d = 1 - Pearson's correlation, the loss is
    T**2 * (beta * mean over samples of d(p, q) along the classes + gamma * mean over classes of d(p, q) along the samples). A correlation
    does not depend on scale and shift, so the student need not copy the confidence of a much larger teacher. Nor does it shrink as T grows,
    so the paper's factor T**2 gives the loss a larger weight at high temperatures.

    Huang et al. 2022, "Knowledge distillation from a stronger teacher", arXiv 2205.10536. The paper's formula has no bound for a student
    whose predictions are nearly equal, as with a last layer that starts at zero. Here, where the student's predictions deviate by less than
    a tenth of their mean (or of the teacher's deviation, where that is less than the mean), their correlation is scaled down, so the
    gradient is bounded: by about 10 * T**2 / (deviation of the teacher's logits). From T = 50 on this may leave the range of float16.

    Between two classes a correlation is 1 or -1, so beta must be 0 there. The intra-class part relates the samples of a batch: the first
    batch must have at least three, more are better, and a last batch of one or two adds hardly any gradient. A sample's weight multiplies
    its inter-class distance. In the intra-class part it weights the sample within the correlations, whose mean is multiplied by the mean
    weight.

    Args:
        temperature: The temperature T, a positive number or a schedule; 1 in the paper on ImageNet, 4 on CIFAR-100.
        beta: Weight of the inter-class part: a number or a schedule, at least 0.
        gamma: Weight of the intra-class part: a number or a schedule, at least 0.
        teacher_outputs: What the teacher's outputs, `(batch, ..., classes)`, are: "logits", "log_probabilities" or "probabilities". Every
            position counts as a sample.
        student_outputs: What the student's outputs are, of the same shape; None for what `from_logits` says, on either side.
        teacher_layer_name: The teacher's layer; None stands for its final output.
        student_layer_name: The student's layer; None stands for its final output.
        from_logits: As in Keras's losses: False for models that end in a softmax, and is then short for "probabilities" on both sides. None
            stands for True.

    Raises:
        ConfigurationError: if a number is out of its range (at any step), or a choice is unknown.

    Example:
        >>> loss = tfdistill.losses.DIST(beta=1.0, gamma=0.0)
        >>> probabilities = np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.2, 0.2, 0.6]])
        >>> less_sure = (probabilities + 1.0) / 4.0  # scaled and shifted, so fully correlated
        >>> abs(round(float(loss.compute_loss(np.log(probabilities), np.log(less_sure))), 5))
        0.0
    """

    schedulable: tuple[str, ...] = ("temperature", "beta", "gamma")

    def __init__(
        self,
        temperature: float | Schedule = 1.0,
        beta: float | Schedule = 1.0,
        gamma: float | Schedule = 1.0,
        teacher_outputs: Space | None = None,
        student_outputs: Space | None = None,
        teacher_layer_name: str | None = None,
        student_layer_name: str | None = None,
        from_logits: bool | None = None,
    ):
        super().__init__(teacher_outputs, student_outputs, teacher_layer_name, student_layer_name, from_logits)
        self.temperature = schedules.number_or_schedule("temperature", temperature, "DIST")
        self.beta = schedules.number_or_schedule("beta", beta, "DIST", zero=True)
        self.gamma = schedules.number_or_schedule("gamma", gamma, "DIST", zero=True)

    def check_informative(self, teacher_shape: Shape, student_shape: Shape) -> None:
        if self.beta != 0.0 and 2 in (teacher_shape[-1], student_shape[-1]):
            raise self.mismatch(
                teacher_shape,
                student_shape,
                "at least three classes: between two classes a correlation is 1 or -1, whatever the student does",
                "set beta=0.0, which leaves the correlation within each class, or use SoftTargets",
            )

    def check_first_batch(self, teacher: np.ndarray, student: np.ndarray, activations: Activations = (None, None)) -> None:
        super().check_first_batch(teacher, student, activations)
        if self.gamma != 0.0:
            checks.enough_samples("DIST", student[..., 0].size, 3, "set gamma=0.0")

    def batch_loss(
        self,
        teacher: Tensor,
        student: Tensor,
        sample_weight: Tensor | None = None,
        step: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> Tensor:
        temperature = self.value("temperature", step, student)
        teacher, student = self.as_logits(teacher, student)
        teacher, student = (ops.multiply(x, 1.0 / temperature) for x in (teacher, student))
        inter = correlation_of_excess(_between_classes(teacher), _between_classes(student))
        weights, scale = None, 1.0
        if sample_weight is not None:
            weights = flat_weights(sample_weight, student.dtype, len(inter.shape))
            scale = ops.mean(weights)
            for _ in range(len(inter.shape) - len(weights.shape)):
                weights = weights[..., None]
            weights = ops.reshape(weights * ops.ones_like(inter), (-1, 1))
        teacher, student = (_between_samples(ops.reshape(x, (-1, x.shape[-1])), weights) for x in (teacher, student))
        intra = correlation_of_excess(teacher, student, axis=0, weights=weights)
        loss = (
            self.value("beta", step, student) * weighted_mean(inter, sample_weight)
            + self.value("gamma", step, student) * ops.mean(intra) * scale
        )
        return loss * (temperature * temperature)
