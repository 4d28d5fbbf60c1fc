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


def width(shape):
    """Numbers per sample of a shape `(batch, ...)`, or None where unknown."""
    return None if None in shape[1:] else math.prod(shape[1:])


def unit_weights(x):
    """`(batch,)` of ones for `x` of shape `(batch, ...)`."""
    return ops.ones((ops.shape(x)[0],), dtype=x.dtype)


def _presence(weights):
    return ops.cast(weights > 0, weights.dtype)


def pair_weights(weights):
    """`(batch, batch)` of `w_i * w_j`."""
    return weights[:, None] * weights[None, :]


def off_diagonal(count, dtype):
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
    return ops.mean(pair_weights(weights) * ops.square(grams[1] - grams[0]))


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
    others = off_diagonal(count, student.dtype)
    here = pair_weights(_presence(weights)) * others
    relative = []
    for x in (teacher, student):
        distance = _gram_and_distances(x, _presence(weights))[1] * others
        mean = ops.sum(distance * here) / ops.maximum(ops.sum(here), 1.0)
        relative.append(distance / ops.where(mean > 0, mean, 1.0))
    losses = pair_weights(weights) * others * huber(relative[1] - relative[0])
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
    others = off_diagonal(count, student.dtype)
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
    weighted = triples * weights[:, None, None] * pair_weights(weights)[None, :, :]
    return ops.sum(weighted * huber(cosines[1] - cosines[0])) / ops.maximum(ops.sum(triples), 1.0)


class Relation(KnowledgeLoss):
    """Base of the losses that compare relations between samples.

    Args:
        teacher_layer: The teacher's layer, `(batch, ...)`; None stands for its final output.
        student_layer: The student's layer, `(batch, ...)`; None stands for its final output.
    """

    fewest_samples = 2
    """Size of a batch below which the loss is the same whatever the student says."""

    def check_shapes(self, teacher_shape, student_shape):
        batches = {shape[0] for shape in (teacher_shape, student_shape) if shape and shape[0] is not None}
        if min(len(teacher_shape), len(student_shape)) < 2 or len(batches) > 1:
            raise self.mismatch(teacher_shape, student_shape, "(batch, ...) features of the same batch; the other dimensions may differ")

    def check_first_batch(self, teacher, student):
        super().check_first_batch(teacher, student)
        checks.enough_samples(type(self).__name__, len(student), self.fewest_samples)

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
    fewest_samples = 3

    def __init__(self, distance_weight=1.0, angle_weight=2.0, teacher_layer=None, student_layer=None):
        super().__init__(teacher_layer, student_layer)
        self.distance_weight = schedules.checked("RelationalKD", "distance_weight", distance_weight, strict=False)
        self.angle_weight = schedules.checked("RelationalKD", "angle_weight", angle_weight, strict=False)
        checks.some("RelationalKD", distance_weight=self.distance_weight, angle_weight=self.angle_weight)

    def check_informative(self, teacher_shape, student_shape):
        if self.distance_weight == 0.0 and width(student_shape) == 1:
            raise self.mismatch(
                teacher_shape,
                student_shape,
                "at least two numbers for each sample of the student with distance_weight=0.0: on a line all angles are 0 or 180 degrees",
                "give `distance_weight` a positive value",
            )

    def relation(self, teacher, student, weights, step):
        parts = []
        for name, part in (("distance_weight", relational_distance), ("angle_weight", relational_angle)):
            if schedules.is_schedule(getattr(self, name)) or getattr(self, name) > 0:
                parts.append(self.value(name, step, student) * part(teacher, student, weights))
        return sum(parts[1:], parts[0])
