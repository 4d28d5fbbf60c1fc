"""How the teacher relates the samples of a batch to one another, whatever the width of its features.

All of these are quadratic in the batch (`RelationalKD`'s angles cubic) in time and memory, and mean little on small batches. Features of any
shape `(batch, ...)` are laid out as one vector per sample; the two sides' widths may differ, so no projection is needed.

Sample weights act on pairs: the term of samples i and j counts `w_i * w_j` times (of a triple, `w_i * w_j * w_k`), and a sample of
weight 0 is as if absent, in normalizing sums too; the divisor stays the number of pairs in the batch. Uniform weights of 1 change nothing.
"""

import math

import keras
from keras import ops

from tfdistill.losses import checks, masking, schedules
from tfdistill.losses.base import KnowledgeLoss
from tfdistill.losses.reduction import flat_weights, huber
from tfdistill.losses.scaling import rescaled, rounding, unit_vectors


def vectors(x):
    """`(batch, ...)` as `(batch, width)`."""
    if len(x.shape) == 2:
        return x
    return ops.reshape(x, (-1, math.prod(x.shape[1:]))) if None not in x.shape[1:] else ops.reshape(x, (ops.shape(x)[0], -1))


def unit_weights(x):
    """`(batch,)` of ones for `x` of shape `(batch, ...)`."""
    return ops.ones((ops.shape(x)[0],), dtype=x.dtype)


def _presence(weights):
    return ops.cast(weights > 0, weights.dtype)


def _pairs(weights):
    """`(batch, batch)` of `w_i * w_j`."""
    return weights[:, None] * weights[None, :]


def _others(count, dtype):
    """`(batch, batch)` of ones with a diagonal of zeros."""
    return 1.0 - ops.eye(count, dtype=dtype)


def similarity_preserving(teacher, student, weights):
    """Mean squared difference of the row-normalized Gram matrices.

    Args:
        teacher: `(batch, width)`.
        student: `(batch, width)`; the width may differ.
        weights: `(batch,)`.

    Returns:
        Scalar: the sum over pairs divided by the batch squared.
    """
    grams = []
    for x in (teacher, student):
        x = rescaled(x * _presence(weights)[:, None])
        grams.append(unit_vectors(ops.matmul(x, ops.transpose(x))))
    return ops.mean(_pairs(weights) * ops.square(grams[1] - grams[0]))


def _gram_and_distances(x, here):
    """Gram matrix and Euclidean distances of the samples, in units of their largest coordinate.

    The mean of the samples that are there is the origin, because fewer digits cancel then. A distance is a difference of squares: where it is within their
    rounding the two samples count as equal, at a distance of 0 with a gradient of 0.

    Args:
        x: `(batch, width)`.
        here: `(batch,)`, 1 or 0 for samples that are absent; their distances have no meaning.

    Returns:
        Two tensors `(batch, batch)`.
    """
    here = here[:, None]
    x = rescaled((x - ops.sum(x * here, axis=0, keepdims=True) / ops.maximum(ops.sum(here), 1.0)) * here)
    gram = ops.matmul(x, ops.transpose(x))
    own = ops.sum(ops.square(x), axis=-1)
    both = own[:, None] + own[None, :]
    squares = both - 2.0 * gram
    apart = squares > rounding(x) * both
    return gram, ops.where(apart, ops.sqrt(ops.where(apart, squares, 1.0)), 0.0)


def relational_distance(teacher, student, weights):
    """Smooth L1 difference of the distances between samples, each side's divided by their mean.

    Args:
        teacher: `(batch, width)`.
        student: `(batch, width)`; the width may differ.
        weights: `(batch,)`.

    Returns:
        Scalar: the mean over pairs of different samples; 0 for fewer than two.
    """
    count = ops.shape(student)[0]
    others = _others(count, student.dtype)
    here = _pairs(_presence(weights)) * others
    relative = []
    for x in (teacher, student):
        distance = _gram_and_distances(x, _presence(weights))[1] * others
        mean = ops.sum(distance * here) / ops.maximum(ops.sum(here), 1.0)
        relative.append(distance / ops.where(mean > 0, mean, 1.0))
    losses = _pairs(weights) * others * huber(relative[1] - relative[0])
    return ops.sum(losses) / ops.maximum(ops.sum(others), 1.0)


def relational_angle(teacher, student, weights):
    """Smooth L1 difference of the cosines of the angles that any three samples make.

    Args:
        teacher: `(batch, width)`.
        student: `(batch, width)`; the width may differ.
        weights: `(batch,)`.

    Returns:
        Scalar: the mean over ordered triples of different samples; 0 for fewer than three. Memory grows with the batch cubed.
    """
    count = ops.shape(student)[0]
    others = _others(count, student.dtype)
    cosines = []
    for x in (teacher, student):
        gram, distance = _gram_and_distances(x, _presence(weights))
        distance = distance * others
        inverse = ops.where(distance > 0, 1.0 / ops.where(distance > 0, distance, 1.0), 0.0)
        own = ops.diagonal(gram)
        # [j, i, k]: (x_i - x_j) . (x_k - x_j), with j the corner of the angle.
        inner = gram[None, :, :] - gram[:, :, None] - gram[:, None, :] + own[:, None, None]
        cosines.append(inner * inverse[:, :, None] * inverse[:, None, :])
    triples = others[:, :, None] * others[:, None, :] * others[None, :, :]
    weighted = triples * weights[:, None, None] * _pairs(weights)[None, :, :]
    return ops.sum(weighted * huber(cosines[1] - cosines[0])) / ops.maximum(ops.sum(triples), 1.0)


def probabilistic_transfer(teacher, student, weights):
    """KL divergence of the probabilities with which each sample picks its neighbours.

    Args:
        teacher: `(batch, width)`.
        student: `(batch, width)`; the width may differ.
        weights: `(batch,)`: those of the columns scale the affinities, those of the rows the divergences, so that no term can turn negative.

    Returns:
        Scalar: the mean over samples of the sum over their neighbours.
    """
    others = _others(ops.shape(student)[0], student.dtype)
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
    return ops.mean(_pairs(weights) * ops.square(kernels[1] - kernels[0]))


class Relation(KnowledgeLoss):
    """Base of the losses that compare relations between samples.

    Args:
        teacher_layer: The teacher's layer, `(batch, ...)`; None stands for its final output.
        student_layer: The student's layer, `(batch, ...)`; None stands for its final output.
    """

    def check_shapes(self, teacher_shape, student_shape):
        batches = {shape[0] for shape in (teacher_shape, student_shape) if shape and shape[0] is not None}
        if min(len(teacher_shape), len(student_shape)) < 2 or len(batches) > 1:
            raise self.mismatch(teacher_shape, student_shape, "(batch, ...) features of the same batch; the other dimensions may differ")

    def _masked(self, teacher, student, masks, sample_weight):
        """Padded positions are zeros of a sample's vector; a sample of nothing else has the weight 0."""
        (teacher, student), present = masking.left_out(self, teacher, student, masks)
        present = ops.cast(present, student.dtype)
        return teacher, student, present if sample_weight is None else present * flat_weights(sample_weight, student.dtype, 1)

    def batch_loss(self, teacher, student, sample_weight=None, step=None, labels=None):
        weights = unit_weights(student) if sample_weight is None else flat_weights(sample_weight, student.dtype, 1)
        return self.relation(vectors(teacher), vectors(student), weights, step)

    def relation(self, teacher, student, weights, step):
        """The loss of vectors `(batch, width)` with weights `(batch,)`."""
        raise TypeError(f"{type(self).__name__} does not define `relation`.")


@keras.saving.register_keras_serializable(package="tfdistill")
class SimilarityPreserving(Relation):
    """Similarity-preserving distillation: samples that excite the teacher alike shall excite the student alike.

    Tung and Mori 2019, arXiv 1907.09682. Gram matrices of the batch, rows normalized to length 1; the sum of squared differences over
    pairs, divided by the batch squared. Unmoved by rotation and scale of either side. Quadratic in the batch; weights act on pairs as the module says.

    Args:
        teacher_layer: The teacher's layer, `(batch, ...)`; None stands for its final output.
        student_layer: The student's layer, `(batch, ...)`; None stands for its final output.
    """

    def relation(self, teacher, student, weights, step):
        return similarity_preserving(teacher, student, weights)


@keras.saving.register_keras_serializable(package="tfdistill")
class RelationalKD(Relation):
    """Relational distillation: distances between two samples, and angles between three.

    Park et al. 2019, "Relational knowledge distillation", arXiv 1904.05068. Smooth L1 differences, averaged over pairs and ordered triples of different
    samples (the paper sums). Unmoved by rotation, shift and scale of either side. Quadratic in the batch, with angles cubic: a batch of 128
    has two million triples. Weights act on pairs and triples as the module says.

    Args:
        distance_weight: Weight of the distances: number or schedule, at least 0.
        angle_weight: Weight of the angles: number or schedule, at least 0; the constant 0 leaves the cubic part out.
        teacher_layer: The teacher's layer, `(batch, ...)`; None stands for its final output.
        student_layer: The student's layer, `(batch, ...)`; None stands for its final output.

    Raises:
        ConfigurationError: if a weight is negative (at any step), or both are the constant 0.
    """

    schedulable = ("distance_weight", "angle_weight")

    def __init__(self, distance_weight=1.0, angle_weight=2.0, teacher_layer=None, student_layer=None):
        super().__init__(teacher_layer, student_layer)
        self.distance_weight = schedules.checked("RelationalKD", "distance_weight", distance_weight, strict=False)
        self.angle_weight = schedules.checked("RelationalKD", "angle_weight", angle_weight, strict=False)
        checks.some("RelationalKD", distance_weight=self.distance_weight, angle_weight=self.angle_weight)

    def relation(self, teacher, student, weights, step):
        parts = []
        for name, part in (("distance_weight", relational_distance), ("angle_weight", relational_angle)):
            if schedules.is_schedule(getattr(self, name)) or getattr(self, name) > 0:
                parts.append(self.value(name, step, student) * part(teacher, student, weights))
        return sum(parts[1:], parts[0])


@keras.saving.register_keras_serializable(package="tfdistill")
class ProbabilisticTransfer(Relation):
    """Probabilistic knowledge transfer (PKT): each sample's distribution over its neighbours in the batch.

    Passalis and Tefas 2018, arXiv 1803.10837, with its cosine kernel (cosine + 1) / 2, a sample not being its own neighbour; the mean over samples of
    KL(teacher || student). Unmoved by rotation and scale of either side. Quadratic in the batch. A sample's weight multiplies its own
    divergence and its share in the others' distributions.

    Args:
        teacher_layer: The teacher's layer, `(batch, ...)`; None stands for its final output.
        student_layer: The student's layer, `(batch, ...)`; None stands for its final output.
    """

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

    def relation(self, teacher, student, weights, step):
        return correlation_congruence(teacher, student, weights, self.kernel, self.gamma, self.order)
