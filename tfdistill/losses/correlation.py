"""Correlation instead of equality: the student need only order and space its predictions as the teacher does."""

import math

import keras
from keras import ops

from tfdistill.losses import checks, scaling, schedules, spaces
from tfdistill.losses.logits import ClassOutputs
from tfdistill.losses.reduction import flat_weights, weighted_mean

# Logarithm below which no sample's probability of a class is told from zero.
NEVER_LIKELY = math.log(scaling.SMALLEST)


def pearson_distance(teacher, student, axis=-1, weights=None, least=0.0):
    """One minus Pearson's correlation: 0 where one side is a positive scale and a shift of the other, up to 2 where the scale is negative.

    Args:
        teacher: `(..., n, ...)`.
        student: Of the same shape.
        axis: Along which to correlate.
        weights: None, or non-negative weights that broadcast to the shape, for the means and (co)variances. Their common scale does not matter.
        least: Standard deviation of the student below which it counts as constant: its correlation shrinks from there to 0, and the gradient is at most
            about 1 / least. A number, or a tensor without gradient that broadcasts to the shape with `axis` of size 1.

    Returns:
        The shape without `axis`. Where a side is constant (to rounding: about 1e-5 of its largest value in float32) the correlation counts as 0, and the distance is 1.
    """
    shares = _shares(teacher, axis, weights)
    sides = []
    for x, floor in ((teacher, 0.0), (student, least)):
        floor = ops.maximum(scaling.rounding(x) * scaling.magnitude(x, axis), floor)
        sides.append(scaling.normalized((x - _mean(x, axis, shares)) * ops.sqrt(shares), floor, axis))
    return 1.0 - ops.sum(sides[0] * sides[1], axis=axis)


def _shares(x, axis, weights):
    """Weights along `axis` that sum to one, without gradient."""
    if weights is None:
        return 1.0 / ops.cast(ops.shape(x)[axis], x.dtype)
    weights = ops.stop_gradient(weights)
    return weights / ops.maximum(ops.sum(weights, axis=axis, keepdims=True), scaling.SMALLEST)


def _mean(x, axis, shares):
    return ops.sum(shares * x, axis=axis, keepdims=True)


def correlation_of_excess(teacher, student, axis=-1, weights=None):
    """`pearson_distance` of positive numbers that are given less one, which keeps the digits of numbers that are all nearly equal.

    A student whose numbers are all equal (one whose last layer starts at zero) has no correlation, and near that point its gradient is one over the deviation:
    one step of SGD along it throws the weights so far that later steps, whose gradient is then as small, do not bring them back. So the student counts as
    constant where its deviation is below a tenth of its mean, or of its mean times the teacher's relative deviation where that is smaller than one.

    Args:
        teacher: `(..., n, ...)`, above -1: numbers less one. Their scale does not matter.
        student: Of the same shape.
        axis: As in `pearson_distance`.
        weights: As in `pearson_distance`.

    Returns:
        The shape without `axis`.
    """
    shares = _shares(teacher, axis, weights)
    told, own = (ops.stop_gradient(x) for x in (teacher, student))
    centred = told - _mean(told, axis, shares)
    relative = scaling.length(centred * ops.sqrt(shares), axis) / (1.0 + _mean(told, axis, shares))
    constant = scaling.magnitude(centred, axis) <= scaling.rounding(told) * scaling.magnitude(told, axis)
    relative = ops.minimum(ops.where(constant, 1.0, relative), 1.0)
    return pearson_distance(teacher, student, axis, weights, spaces.FLAT * relative * (1.0 + _mean(own, axis, shares)))


def _between_classes(logits):
    """Softmax of each row over its largest value, less one: what correlations within the row see of it."""
    return ops.expm1(logits - ops.stop_gradient(ops.max(logits, axis=-1, keepdims=True)))


def _between_samples(logits, weights=None):
    """Softmax of each class over its largest value in the batch, less one: what correlations within the class see of it.

    Args:
        logits: `(samples, classes)`.
        weights: None, or `(samples, 1)`; samples of weight 0 do not count.

    Returns:
        `(samples, classes)`; zeros for a class that has a probability below 1e-30 in all samples, as a masked one does.
    """
    logits = logits - ops.stop_gradient(ops.max(logits, axis=-1, keepdims=True))
    # Log-probabilities, but for the logarithm of the number of classes, which would cost the digits of small logits.
    logits = logits - ops.log1p(ops.mean(ops.expm1(logits), axis=-1, keepdims=True))
    seen = ops.stop_gradient(logits)
    if weights is not None:
        seen = ops.where(weights > 0, seen, spaces.NO_CHANCE)
    largest = ops.max(seen, axis=0, keepdims=True)
    return ops.where(largest > NEVER_LIKELY, ops.expm1(ops.minimum(logits - largest, 0.0)), 0.0)


@keras.saving.register_keras_serializable(package="tfdistill")
class DIST(ClassOutputs):
    """DIST: Pearson correlation of predictions, within each sample and within each class.

    Huang et al. 2022, "Knowledge distillation from a stronger teacher", arXiv 2205.10536. The distance is unmoved when a row of probabilities is shifted
    and scaled, so a student need not copy the confidence of a much larger teacher. The loss is the temperature squared times
    (beta x mean over samples of the inter-class distance + gamma x mean over classes of the intra-class distance). Correlations do not shrink as the
    temperature grows, so with that factor, which is the paper's, a high temperature weighs the loss up.

    A student whose softened predictions are nearly equal (a last layer that starts at zero) has no correlation yet. Where they vary by less than a tenth of
    their mean (or of what the teacher's vary by, where that is less than their mean) the correlation is scaled down, so the gradient stays bounded; see
    `correlation_of_excess`.

    Between two classes a correlation is 1 or -1, so beta must be 0 there. The intra-class part relates the samples of a batch: it needs at least three, and
    small batches say little. In a last, smaller batch of one or two samples it has hardly any gradient. A sample weight multiplies its inter-class distance; in the
    intra-class part it weights the sample within the correlations, whose mean is multiplied by the mean weight.

    Args:
        temperature: Positive number or schedule; 1 in the paper on ImageNet, 4 on CIFAR-100.
        beta: Weight of the inter-class part: number or schedule, at least 0.
        gamma: Weight of the intra-class part: number or schedule, at least 0.
        teacher_outputs: The space of the teacher's outputs, `(batch, ..., classes)`: "logits", "log_probabilities" or "probabilities". Every position counts
            as a sample.
        student_outputs: The same of the student's.
        teacher_layer: The teacher's layer; None stands for its final output.
        student_layer: The student's layer; None stands for its final output.

    Raises:
        ConfigurationError: if a number is out of its range (at any step), or a choice is unknown.
    """

    schedulable = ("temperature", "beta", "gamma")

    def __init__(
        self,
        temperature=1.0,
        beta=1.0,
        gamma=1.0,
        teacher_outputs="logits",
        student_outputs="logits",
        teacher_layer=None,
        student_layer=None,
    ):
        super().__init__(teacher_outputs, student_outputs, teacher_layer, student_layer)
        self.temperature = schedules.checked("DIST", "temperature", temperature)
        self.beta = schedules.checked("DIST", "beta", beta, strict=False)
        self.gamma = schedules.checked("DIST", "gamma", gamma, strict=False)

    def check_informative(self, teacher_shape, student_shape):
        if self.beta != 0.0 and 2 in (teacher_shape[-1], student_shape[-1]):
            raise self.mismatch(
                teacher_shape,
                student_shape,
                "at least three classes: between two classes a correlation is 1 or -1, whatever the student says",
                "set beta=0.0, which leaves the correlation within each class, or use SoftTargets",
            )

    def check_first_batch(self, teacher, student):
        super().check_first_batch(teacher, student)
        if self.gamma != 0.0:
            checks.enough_samples("DIST", student[..., 0].size, 3, "set gamma=0.0")

    def batch_loss(self, teacher, student, sample_weight=None, step=None, labels=None):
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
        rows = (_between_samples(ops.reshape(x, (-1, x.shape[-1])), weights) for x in (teacher, student))
        intra = correlation_of_excess(*rows, axis=0, weights=weights)
        loss = (
            self.value("beta", step, student) * weighted_mean(inter, sample_weight)
            + self.value("gamma", step, student) * ops.mean(intra) * scale
        )
        return loss * (temperature * temperature)
