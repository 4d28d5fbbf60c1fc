"""How the teacher relates the samples of a batch by kernels of their features: functions of the cosine between two samples.

What `relations` says of size, cost and sample weights holds here too.
"""

import math

import keras
from keras import ops

from tfdistill.losses import checks
from tfdistill.losses.relations import Relation, off_diagonal, pair_weights, width
from tfdistill.losses.scaling import rescaled, unit_vectors


def check_width(loss, teacher_shape, student_shape):
    """Raises `ModelError` where a loss of cosines would compare the signs of single numbers, which have no gradient."""
    if width(student_shape) == 1:
        raise loss.mismatch(
            teacher_shape,
            student_shape,
            "at least two numbers for each sample of the student: the direction of one number is its sign",
            "tap a wider layer of the student, or use RelationalKD, which compares distances",
        )


def probabilistic_transfer(teacher, student, weights):
    """KL divergence of the probabilities with which each sample picks its neighbours.

    Args:
        teacher: `(batch, width)`.
        student: `(batch, width)`; the width may differ.
        weights: `(batch,)`: those of the columns scale the affinities, those of the rows the divergences, so that no term can turn negative.

    Returns:
        Scalar: the mean over samples of the sum over their neighbours.
    """
    others = off_diagonal(ops.shape(student)[0], student.dtype)
    shares = rescaled(weights)[None, :]
    chances = []
    for x in (teacher, student):
        unit = unit_vectors(x)
        # Float32 cannot tell a cosine from -1 any nearer than 1e-7.
        affinity = ops.maximum(0.5 * (ops.matmul(unit, ops.transpose(unit)) + 1.0), 1e-7) * others * shares
        chances.append(affinity / ops.maximum(ops.sum(affinity, axis=-1, keepdims=True), 1e-12))
    p, q = chances
    rows = ops.sum(ops.where(p > 0, p * (ops.log(ops.maximum(p, 1e-30)) - ops.log(ops.maximum(q, 1e-30))), 0.0), axis=-1)
    return ops.mean(weights * rows)


def correlation_congruence(teacher, student, weights, kernel="gaussian", gamma=0.4, order=2):
    """Mean squared difference of the correlations between samples.

    Args:
        teacher: `(batch, width)`.
        student: `(batch, width)`; the width may differ.
        weights: `(batch,)`.
        kernel: "gaussian" or "bilinear", of features of length 1.
        gamma: Positive; the Gaussian is exp(-gamma |x - y|**2).
        order: Where its Taylor series in x . y ends; None takes the Gaussian itself.

    Returns:
        Scalar: the sum over pairs divided by the batch squared.
    """
    kernels = []
    for x in (teacher, student):
        unit = unit_vectors(x)
        cosine = ops.matmul(unit, ops.transpose(unit))
        if kernel == "gaussian" and order is None:
            cosine = ops.exp(2.0 * gamma * (cosine - 1.0))
        elif kernel == "gaussian":
            # Horner's rule: a power of zero has no gradient.
            series = ops.ones_like(cosine)
            for power in range(order, 0, -1):
                series = 1.0 + series * cosine * (2.0 * gamma / power)
            cosine = math.exp(-2.0 * gamma) * series
        kernels.append(cosine)
    return ops.mean(pair_weights(weights) * ops.square(kernels[1] - kernels[0]))


@keras.saving.register_keras_serializable(package="tfdistill")
class ProbabilisticTransfer(Relation):
    """Probabilistic knowledge transfer (PKT): each sample's distribution over its neighbours in the batch.

    Passalis and Tefas 2018, arXiv 1803.10837, with its cosine kernel (cosine + 1) / 2; the mean over samples of KL(teacher || student). A sample is not its own
    neighbour, as in the paper's formula; the authors' code counts it as one, so values differ. Needs batches of at least three samples. Unmoved by rotation and scale of either side. Quadratic in the batch. A sample's weight multiplies its own
    divergence and its share in the others' distributions.

    Args:
        teacher_layer: The teacher's layer, `(batch, ...)`; None stands for its final output.
        student_layer: The student's layer, `(batch, ...)`; None stands for its final output.
    """

    fewest_samples = 3

    def check_informative(self, teacher_shape, student_shape):
        check_width(self, teacher_shape, student_shape)

    def relation(self, teacher, student, weights, step):
        return probabilistic_transfer(teacher, student, weights)


@keras.saving.register_keras_serializable(package="tfdistill")
class CorrelationCongruence(Relation):
    """Correlation congruence: the kernel matrix of the batch.

    Peng et al. 2019, "Correlation congruence for knowledge distillation", arXiv 1904.01802. Features are normalized to length 1; the sum of squared
    differences over pairs, divided by the batch squared. Unmoved by rotation and scale of either side. Quadratic in the batch; weights act on
    pairs as the module says.

    Args:
        kernel: "gaussian" (as in the paper's results) or "bilinear", the cosines themselves.
        gamma: Positive; the Gaussian is exp(-gamma |x - y|**2).
        order: Where the Gaussian's Taylor series ends, at least 1, 2 in the paper; None takes the Gaussian itself.
        teacher_layer: The teacher's layer, `(batch, ...)`; None stands for its final output.
        student_layer: The student's layer, `(batch, ...)`; None stands for its final output.

    Raises:
        ConfigurationError: if the kernel is unknown or a number is out of its range.
    """

    def __init__(self, kernel="gaussian", gamma=0.4, order=2, teacher_layer=None, student_layer=None):
        super().__init__(teacher_layer, student_layer)
        self.kernel = checks.choice("CorrelationCongruence", "kernel", kernel, ("gaussian", "bilinear"))
        self.gamma = checks.number("CorrelationCongruence", "gamma", gamma, 0.0, strict=True)
        self.order = None if order is None else checks.whole("CorrelationCongruence", "order", order, 1)

    def check_informative(self, teacher_shape, student_shape):
        check_width(self, teacher_shape, student_shape)

    def relation(self, teacher, student, weights, step):
        return correlation_congruence(teacher, student, weights, self.kernel, self.gamma, self.order)
