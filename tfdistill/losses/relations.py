"""Losses on relations between the samples of a batch.

Their time and memory is quadratic in the batch size (cubic for the angles of `RelationalKD`), and small batches have few relations. A
feature of any shape `(batch, ...)` is flattened to one vector per sample. The widths of the two sides may differ, so no projection is
needed.

Sample weights apply to pairs: the term of samples i and j is multiplied by `w_i * w_j` (of a triple, by `w_i * w_j * w_k`). A sample of
weight 0 counts as absent, in normalizing sums too. The divisor is the number of pairs in the batch. Weights of 1 change nothing.
"""

import math

import keras
import numpy as np
from keras import ops

from tfdistill.losses import checks, masking, schedules
from tfdistill.losses.base import KnowledgeLoss
from tfdistill.losses.reduction import flat_weights, huber
from tfdistill.losses.scaling import rescaled, rounding, unit_vectors
from tfdistill.losses.schedules import Schedule
from tfdistill.utils.types import Activations, Shape, Tensor


def vectors(x):
    """Flattens `(batch, ...)` to `(batch, width)`."""
    if len(x.shape) == 2:
        return x
    return ops.reshape(x, (-1, math.prod(x.shape[1:]))) if None not in x.shape[1:] else ops.reshape(x, (ops.shape(x)[0], -1))


def width(shape):
    """Returns the numbers per sample of a shape `(batch, ...)`, or None where it is not known."""
    return None if None in shape[1:] else math.prod(shape[1:])


def unit_weights(x):
    """Returns ones of shape `(batch,)` for `x` of shape `(batch, ...)`."""
    return ops.ones((ops.shape(x)[0],), dtype=x.dtype)


def _presence(weights):
    return ops.cast(weights > 0, weights.dtype)


def pair_weights(weights):
    """Returns the `(batch, batch)` matrix of `w_i * w_j`."""
    return weights[:, None] * weights[None, :]


def off_diagonal(count, dtype):
    """Returns a `(count, count)` matrix of ones with a diagonal of zeros."""
    return 1.0 - ops.eye(count, dtype=dtype)


def similarity_preserving(teacher, student, weights):
    """Computes the mean squared difference of the row-normalized Gram matrices.

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


def _gram_and_distances(x, present):
    """Computes the Gram matrix and the Euclidean distances of the samples, in units of their largest coordinate.

    The origin is the mean of the samples that are present, because fewer digits cancel then. The square of a distance is a difference of
    squares: where it is within their rounding the two samples count as equal, at a distance of 0 with a gradient of 0.

    Args:
        x: `(batch, width)`.
        present: `(batch,)`, 1, or 0 for samples that are absent; distances to these have no meaning.

    Returns:
        Two tensors `(batch, batch)`.
    """
    present = present[:, None]
    x = rescaled((x - ops.sum(x * present, axis=0, keepdims=True) / ops.maximum(ops.sum(present), 1.0)) * present)
    gram = ops.matmul(x, ops.transpose(x))
    norms = ops.sum(ops.square(x), axis=-1)
    sums = norms[:, None] + norms[None, :]
    squares = sums - 2.0 * gram
    apart = squares > rounding(x) * sums
    return gram, ops.where(apart, ops.sqrt(ops.where(apart, squares, 1.0)), 0.0)


def relational_distance(teacher, student, weights):
    """Computes the smooth L1 difference of the distances between samples, each side's divided by their mean.

    Args:
        teacher: `(batch, width)`.
        student: `(batch, width)`; the width may differ.
        weights: `(batch,)`.

    Returns:
        Scalar: the mean over pairs of different samples; 0 for fewer than two.
    """
    count = ops.shape(student)[0]
    others = off_diagonal(count, student.dtype)
    present = pair_weights(_presence(weights)) * others
    relative = []
    for x in (teacher, student):
        distance = _gram_and_distances(x, _presence(weights))[1] * others
        mean = ops.sum(distance * present) / ops.maximum(ops.sum(present), 1.0)
        relative.append(distance / ops.where(mean > 0, mean, 1.0))
    losses = pair_weights(weights) * others * huber(relative[1] - relative[0])
    return ops.sum(losses) / ops.maximum(ops.sum(others), 1.0)


def relational_angle(teacher, student, weights):
    """Computes the smooth L1 difference of the cosines of the angles that any three samples form.

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
        norms = ops.diagonal(gram)
        # [j, i, k]: (x_i - x_j) . (x_k - x_j), with j the corner of the angle.
        inner = gram[None, :, :] - gram[:, :, None] - gram[:, None, :] + norms[:, None, None]
        cosines.append(inner * inverse[:, :, None] * inverse[:, None, :])
    triples = others[:, :, None] * others[:, None, :] * others[None, :, :]
    weighted = triples * weights[:, None, None] * pair_weights(weights)[None, :, :]
    return ops.sum(weighted * huber(cosines[1] - cosines[0])) / ops.maximum(ops.sum(triples), 1.0)


class Relation(KnowledgeLoss):
    """Base of the losses that compare relations between samples.

    Args:
        teacher_layer_name: The teacher's layer, `(batch, ...)`; None stands for its final output.
        student_layer_name: The student's layer, `(batch, ...)`; None stands for its final output.
    """

    fewest_samples: int = 2
    """Batch size below which the loss does not depend on the student."""

    def check_shapes(self, teacher_shape: Shape, student_shape: Shape) -> None:
        batches = {shape[0] for shape in (teacher_shape, student_shape) if shape and shape[0] is not None}
        if min(len(teacher_shape), len(student_shape)) < 2 or len(batches) > 1:
            raise self.mismatch(teacher_shape, student_shape, "(batch, ...) features of the same batch; the other dimensions may differ")

    def check_first_batch(self, teacher: np.ndarray, student: np.ndarray, activations: Activations = (None, None)) -> None:
        super().check_first_batch(teacher, student, activations)
        checks.enough_samples(type(self).__name__, len(student), self.fewest_samples)

    def _masked(self, teacher, student, masks, sample_weight):
        """Sets padded positions to zero in a sample's vector, and the weight of a sample without other positions to 0."""
        (teacher, student), present = masking.without_padding(self, teacher, student, masks)
        present = ops.cast(present, student.dtype)
        return teacher, student, present if sample_weight is None else present * flat_weights(sample_weight, student.dtype, 1)

    def batch_loss(
        self,
        teacher: Tensor,
        student: Tensor,
        sample_weight: Tensor | None = None,
        step: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> Tensor:
        weights = unit_weights(student) if sample_weight is None else flat_weights(sample_weight, student.dtype, 1)
        return self.relation(vectors(teacher), vectors(student), weights, step)

    def relation(self, teacher: Tensor, student: Tensor, weights: Tensor, step: Tensor | None) -> Tensor:
        """Computes the loss, a scalar, of vectors `(batch, width)` with weights `(batch,)`."""
        raise TypeError(f"{type(self).__name__} does not define `relation`.")


@keras.saving.register_keras_serializable(package="tfdistill")
class SimilarityPreserving(Relation):
    """Similarity-preserving distillation: samples that are similar for the teacher are similar for the student.

    With x of shape `(batch, width)` and G = x x', each row divided by its length, the loss is the mean over all pairs i, j of (student's
    G_ij - teacher's G_ij)**2. It does not depend on rotation and scale of either side. Its cost is quadratic in the batch size. The term of
    a pair is multiplied by the weights of both samples.

    Tung and Mori 2019, "Similarity-preserving knowledge distillation", arXiv 1907.09682.

    Args:
        teacher_layer_name: The teacher's layer, `(batch, ...)`; None stands for its final output.
        student_layer_name: The student's layer, `(batch, ...)`; None stands for its final output.

    Raises:
        ConfigurationError: if a layer's name is neither None nor a non-empty string.

    Example:
        >>> loss = tfdistill.losses.SimilarityPreserving("pool", "pool")
        >>> features = np.random.default_rng(0).normal(size=(8, 16))
        >>> abs(round(float(loss.compute_loss(features, -3.0 * features)), 6))
        0.0
        >>> distiller = tfdistill.Distiller(teacher, student, [tfdistill.losses.SoftTargets(4.0), loss], [1.0, 100.0])
    """

    def relation(self, teacher: Tensor, student: Tensor, weights: Tensor, step: Tensor | None) -> Tensor:
        return similarity_preserving(teacher, student, weights)


@keras.saving.register_keras_serializable(package="tfdistill")
class RelationalKD(Relation):
    """Relational distillation: distances between two samples, and angles between three.

    With h(d) = d**2 / 2 for |d| < 1 and |d| - 1/2 above, the loss is distance_weight * mean over pairs of h(difference of the distances) +
    angle_weight * mean over ordered triples of h(difference of the cosines). The distances of each side are divided by their mean. It does
    not depend on rotation, shift and scale of either side. Its cost is quadratic in the batch size, and cubic with angles: a batch of 128
    has two million triples. The term of a pair or triple is multiplied by the weights of its samples.

    Park et al. 2019, "Relational knowledge distillation", arXiv 1904.05068, which sums instead of averaging.

    Args:
        distance_weight: Weight of the distances: a number or a schedule, at least 0.
        angle_weight: Weight of the angles: a number or a schedule, at least 0. The constant 0 leaves the cubic part out.
        teacher_layer_name: The teacher's layer, `(batch, ...)`; None stands for its final output.
        student_layer_name: The student's layer, `(batch, ...)`; None stands for its final output.

    Raises:
        ConfigurationError: if a weight is negative (at any step), or both are the constant 0.

    Example:
        >>> loss = tfdistill.losses.RelationalKD(distance_weight=1.0, angle_weight=2.0)
        >>> features = np.random.default_rng(0).normal(size=(8, 16))
        >>> abs(round(float(loss.compute_loss(features, 2.0 * features + 1.0)), 6))
        0.0
    """

    schedulable: tuple[str, ...] = ("distance_weight", "angle_weight")
    fewest_samples: int = 3

    def __init__(
        self,
        distance_weight: float | Schedule = 1.0,
        angle_weight: float | Schedule = 2.0,
        teacher_layer_name: str | None = None,
        student_layer_name: str | None = None,
    ):
        super().__init__(teacher_layer_name, student_layer_name)
        self.distance_weight = schedules.number_or_schedule("distance_weight", distance_weight, "RelationalKD", zero=True)
        self.angle_weight = schedules.number_or_schedule("angle_weight", angle_weight, "RelationalKD", zero=True)
        checks.some_weight("RelationalKD", distance_weight=self.distance_weight, angle_weight=self.angle_weight)

    def check_informative(self, teacher_shape: Shape, student_shape: Shape) -> None:
        if self.distance_weight == 0.0 and width(student_shape) == 1:
            raise self.mismatch(
                teacher_shape,
                student_shape,
                "at least two numbers for each sample of the student with distance_weight=0.0: on a line all angles are 0 or 180 degrees",
                "give `distance_weight` a positive value",
            )

    def relation(self, teacher: Tensor, student: Tensor, weights: Tensor, step: Tensor | None) -> Tensor:
        parts = []
        for name, part in (("distance_weight", relational_distance), ("angle_weight", relational_angle)):
            if schedules.is_schedule(getattr(self, name)) or getattr(self, name) > 0:
                parts.append(self.value(name, step, student) * part(teacher, student, weights))
        return sum(parts[1:], parts[0])
