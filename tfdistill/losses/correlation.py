"""Correlation instead of equality: the student need only order and space its predictions as the teacher does."""

import keras
from keras import ops

from tfdistill.losses import schedules
from tfdistill.losses.logits import ClassOutputs
from tfdistill.losses.reduction import flat_weights, weighted_mean

# Variance below which a row is constant, and correlates with nothing.
TINY = 1e-16


def pearson_distance(teacher, student, axis=-1, weights=None):
    """One minus Pearson's correlation: 0 where one side is a positive scale and a shift of the other, up to 2 where the scale is negative.

    Args:
        teacher: `(..., n, ...)`.
        student: Of the same shape.
        axis: Along which to correlate.
        weights: None, or non-negative weights that broadcast to the shape, for the means and (co)variances. Their common scale does not matter.

    Returns:
        The shape without `axis`. Where a side is constant the correlation counts as 0, and the distance is 1.
    """
    total = None if weights is None else ops.maximum(ops.sum(weights, axis=axis, keepdims=True), 1e-30)

    def mean(x):
        return ops.mean(x, axis=axis, keepdims=True) if weights is None else ops.sum(weights * x, axis=axis, keepdims=True) / total

    teacher, student = teacher - mean(teacher), student - mean(student)
    spread = ops.maximum(mean(ops.square(teacher)), TINY) * ops.maximum(mean(ops.square(student)), TINY)
    return 1.0 - ops.squeeze(mean(teacher * student) * ops.rsqrt(spread), axis)


@keras.saving.register_keras_serializable(package="tfdistill")
class DIST(ClassOutputs):
    """DIST: Pearson correlation of predictions, within each sample and within each class.

    Huang et al. 2022, "Knowledge distillation from a stronger teacher", arXiv 2205.10536. The distance is unmoved when a row of probabilities is shifted
    and scaled, so a student need not copy the confidence of a much larger teacher. The loss is the temperature squared times
    (beta x mean over samples of the inter-class distance + gamma x mean over classes of the intra-class distance). Correlations do not shrink as the
    temperature grows, so with that factor, which is the paper's, a high temperature weighs the loss up.

    The intra-class part relates the samples of a batch: small batches say little. A sample weight multiplies its inter-class distance; in the
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

    def batch_loss(self, teacher, student, sample_weight=None, step=None, labels=None):
        temperature = self.value("temperature", step, student)
        teacher, student = self.as_logits(teacher, student)
        p, q = (ops.softmax(ops.multiply(x, 1.0 / temperature)) for x in (teacher, student))
        inter = pearson_distance(p, q)
        weights, scale = None, 1.0
        if sample_weight is not None:
            weights = flat_weights(sample_weight, p.dtype, len(inter.shape))
            scale = ops.mean(weights)
            for _ in range(len(inter.shape) - len(weights.shape)):
                weights = weights[..., None]
            weights = ops.reshape(weights * ops.ones_like(inter), (-1, 1))
        rows = (-1, p.shape[-1])
        intra = pearson_distance(ops.reshape(p, rows), ops.reshape(q, rows), axis=0, weights=weights)
        loss = (
            self.value("beta", step, student) * weighted_mean(inter, sample_weight)
            + self.value("gamma", step, student) * ops.mean(intra) * scale
        )
        return loss * (temperature * temperature)
