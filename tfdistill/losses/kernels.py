"""Losses on kernels between the samples of a batch: functions of the cosine of two features.

Shapes, cost and sample weights are as in `relations`.
"""

import math
from typing import Literal

import keras
from keras import ops

from tfdistill.losses.relations import Relation, off_diagonal, pair_weights, width
from tfdistill.losses.scaling import rescaled, unit_vectors
from tfdistill.utils import validate
from tfdistill.utils.types import Shape, Tensor


def check_width(loss, teacher_shape, student_shape):
    """Raises `ModelError` where the student has one number per sample: a cosine is then a product of signs, which has no gradient."""
    if width(student_shape) == 1:
        raise loss.mismatch(
            teacher_shape,
            student_shape,
            "at least two numbers for each sample of the student: the direction of one number is its sign",
            "tap a wider layer of the student, or use RelationalKD, which compares distances",
        )


def probabilistic_transfer(teacher, student, weights):
    """Computes the KL divergence of each sample's distribution over its neighbours.

    Args:
        teacher: `(batch, width)`.
        student: `(batch, width)`; the width may differ.
        weights: `(batch,)`. A weight scales the sample's own divergence, and its affinity in the distributions of the others.

    Returns:
        Scalar: the mean over samples of the sum over their neighbours.
    """
    others = off_diagonal(ops.shape(student)[0], student.dtype)
    column_weights = rescaled(weights)[None, :]
    distributions = []
    for x in (teacher, student):
        unit = unit_vectors(x)
        # The rounding of a cosine in float32 is about 1e-7.
        affinity = ops.maximum(0.5 * (ops.matmul(unit, ops.transpose(unit)) + 1.0), 1e-7) * others * column_weights
        distributions.append(affinity / ops.maximum(ops.sum(affinity, axis=-1, keepdims=True), 1e-12))
    p, q = distributions
    rows = ops.sum(ops.where(p > 0, p * (ops.log(ops.maximum(p, 1e-30)) - ops.log(ops.maximum(q, 1e-30))), 0.0), axis=-1)
    return ops.mean(weights * rows)


def correlation_congruence(teacher, student, weights, kernel="gaussian", gamma=0.4, order=2):
    """Computes the mean squared difference of the kernel matrices.

    Args:
        teacher: `(batch, width)`.
        student: `(batch, width)`; the width may differ.
        weights: `(batch,)`.
        kernel: "gaussian" or "bilinear", of features of length 1.
        gamma: Positive; the Gaussian is exp(-gamma |x - y|**2).
        order: Order of the Gaussian's Taylor series in x . y; None takes the Gaussian itself.

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

    With the affinity k_ij = (1 + cosine of samples i and j) / 2, sample i has the distribution p_ij = k_ij / sum over j of k_ij over the
    other samples. The loss is the mean over i of KL(teacher's distribution || student's distribution). It does not depend on rotation and
    scale of either side. Its cost is quadratic in the batch size, and a batch needs at least three samples. A sample's weight multiplies
    its own divergence and its affinity in the others' distributions.

    Passalis and Tefas 2018, "Learning deep representations with probabilistic knowledge transfer", arXiv 1803.10837. A sample is not its
    own neighbour, as in the paper's formula; the authors' code counts it as one, so values differ.

    Args:
        teacher_layer_name: The teacher's layer, `(batch, ...)`; None stands for its final output.
        student_layer_name: The student's layer, `(batch, ...)`; None stands for its final output.

    Raises:
        ConfigurationError: if a layer's name is neither None nor a non-empty string.

    Example:
        >>> loss = tfdistill.losses.ProbabilisticTransfer("pool", "pool")
        >>> features = np.random.default_rng(0).normal(size=(8, 16))
        >>> abs(round(float(loss.compute_loss(features, 2.0 * features)), 6))
        0.0
        >>> distiller = tfdistill.Distiller(teacher, student, [tfdistill.losses.SoftTargets(4.0), loss], [1.0, 10.0])
    """

    fewest_samples: int = 3

    def check_informative(self, teacher_shape: Shape, student_shape: Shape) -> None:
        check_width(self, teacher_shape, student_shape)

    def relation(self, teacher: Tensor, student: Tensor, weights: Tensor, step: Tensor | None) -> Tensor:
        return probabilistic_transfer(teacher, student, weights)


@keras.saving.register_keras_serializable(package="tfdistill")
class CorrelationCongruence(Relation):
    """Correlation congruence: the kernel matrix of the batch.

    With features of length 1 and K_ij = kernel(x_i, x_j), the loss is the mean over all pairs i, j of (student's K_ij - teacher's K_ij)**2.
    It does not depend on rotation and scale of either side. Its cost is quadratic in the batch size. The term of a pair is multiplied by
    the weights of both samples.

    Peng et al. 2019, "Correlation congruence for knowledge distillation", arXiv 1904.01802.

    Args:
        kernel: "gaussian" (as in the paper's results) or "bilinear", the cosines themselves.
        gamma: Positive; the Gaussian is exp(-gamma |x - y|**2).
        order: Order of the Gaussian's Taylor series, at least 1, 2 in the paper; None takes the Gaussian itself.
        teacher_layer_name: The teacher's layer, `(batch, ...)`; None stands for its final output.
        student_layer_name: The student's layer, `(batch, ...)`; None stands for its final output.

    Raises:
        ConfigurationError: if the kernel is unknown or a number is out of its range.

    Example:
        >>> loss = tfdistill.losses.CorrelationCongruence("bilinear", teacher_layer_name="pool", student_layer_name="pool")
        >>> round(float(loss.compute_loss(np.eye(2), np.ones((2, 2)))), 3)  # cosines between the two samples: 0 and 1
        0.5
    """

    def __init__(
        self,
        kernel: Literal["gaussian", "bilinear"] = "gaussian",
        gamma: float = 0.4,
        order: int | None = 2,
        teacher_layer_name: str | None = None,
        student_layer_name: str | None = None,
    ):
        super().__init__(teacher_layer_name, student_layer_name)
        self.kernel = validate.one_of("kernel", kernel, ("gaussian", "bilinear"), owner="CorrelationCongruence")
        self.gamma = validate.positive_number("gamma", gamma, owner="CorrelationCongruence")
        self.order = None if order is None else validate.whole_number("order", order, at_least=1, owner="CorrelationCongruence")

    def check_informative(self, teacher_shape: Shape, student_shape: Shape) -> None:
        check_width(self, teacher_shape, student_shape)

    def relation(self, teacher: Tensor, student: Tensor, weights: Tensor, step: Tensor | None) -> Tensor:
        return correlation_congruence(teacher, student, weights, self.kernel, self.gamma, self.order)
