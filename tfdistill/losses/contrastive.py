"""Contrast: the student's view of a sample shall be nearer to the teacher's view of it than to those of the others."""

import keras
from keras import ops

from tfdistill.errors import ConfigurationError, DataError, ModelError
from tfdistill.losses import checks, schedules
from tfdistill.losses.decoupled import NEVER
from tfdistill.losses.features import layer_label
from tfdistill.losses.reduction import flat_weights
from tfdistill.losses.relations import Relation, unit_weights
from tfdistill.losses.scaling import unit_vectors


def contrastive_representation(teacher, student, weights, temperature=0.1, groups=None):
    """Cross-entropy of picking the teacher's view of the same sample among those of the batch, by cosine.

    Args:
        teacher: `(batch, width)`.
        student: `(batch, width)`, of the same width.
        weights: `(batch,)`: those of the columns scale the negatives, those of the rows the losses.
        temperature: Positive number or scalar tensor that divides the cosines.
        groups: None, or `(batch,)` numbers; samples of the same number are not contrasted.

    Returns:
        Scalar: the mean over samples.
    """
    cosines = ops.matmul(unit_vectors(student), ops.transpose(unit_vectors(teacher)))
    scores = ops.multiply(cosines, 1.0 / temperature)
    same = ops.eye(ops.shape(student)[0], dtype=scores.dtype)
    # A weight scales exp(score), so its logarithm is added; a sample always competes against its own view with weight 1.
    allowed = ops.where(weights > 0, ops.log(ops.maximum(weights, 1e-30)), NEVER)[None, :] * (1.0 - same)
    if groups is not None:
        allowed = allowed + NEVER * ops.cast(groups[:, None] == groups[None, :], scores.dtype) * (1.0 - same)
    rows = ops.logsumexp(scores + allowed, axis=-1) - ops.sum(same * scores, axis=-1)
    return ops.mean(weights * rows)


def label_groups(labels):
    """Labels as one number per sample: class numbers `(batch,)` or `(batch, 1)`, or one-hot rows `(batch, classes)`.

    Raises:
        DataError: if the labels have neither form.
    """
    labels = ops.convert_to_tensor(labels)
    if len(labels.shape) == 2:
        return ops.squeeze(labels, -1) if labels.shape[-1] == 1 else ops.argmax(labels, axis=-1)
    if len(labels.shape) != 1:
        raise DataError(f"The labels have the shape {tuple(labels.shape)}.", "class numbers (batch,) or one-hot rows (batch, classes)")
    return labels


@keras.saving.register_keras_serializable(package="tfdistill")
class ContrastiveRepresentation(Relation):
    """Contrastive representation distillation (CRD), with the other samples of the batch as negatives.

    Tian, Krishnan and Isola 2020, "Contrastive representation distillation", arXiv 1910.10699. Both features are averaged over positions, mapped by a learned
    layer to a common width, and normalized to length 1. The paper contrasts with a memory of thousands of earlier samples and a loss
    per pair; here the loss is the cross-entropy over the batch (InfoNCE, van den Oord et al. 2018, arXiv 1807.03748), which needs no memory, so a larger batch is a better
    one. It is quadratic in the batch, and at random features about log(batch). It has one direction, the student's view against the
    teacher's of all samples; the paper adds the other one, the teacher's against the student's.

    A sample's weight multiplies its own loss and its share as a negative of others. The teacher's projection learns too; no gradient reaches
    the teacher, because the Distiller stops it before that layer.

    Args:
        teacher_layer: Name or path of the teacher's layer, `(batch, channels)` or `(batch, positions..., channels)`; None stands for its final output.
        student_layer: The same of the student's; dimensions may differ.
        dimensions: Width of the common space, at least 1, made by a learned layer on either side that the Distiller owns; None compares the features as they
            are, which then need equal widths.
        temperature: Positive number or schedule; divides the cosines.
        negatives: "all" other samples, or those of "other_classes" only, as the paper does where labels are known (needs a Distiller that passes labels).

    Raises:
        ConfigurationError: if a number is out of its range (at any step), or a choice is unknown.
    """

    schedulable = ("temperature",)

    def __init__(self, teacher_layer=None, student_layer=None, dimensions=128, temperature=0.1, negatives="all"):
        super().__init__(teacher_layer, student_layer)
        self.dimensions = None if dimensions is None else checks.whole("ContrastiveRepresentation", "dimensions", dimensions, 1)
        self.temperature = schedules.checked("ContrastiveRepresentation", "temperature", temperature)
        self.negatives = checks.choice("ContrastiveRepresentation", "negatives", negatives, ("all", "other_classes"))

    @property
    def needs_labels(self):
        """Whether the labels say which samples are negatives."""
        return self.negatives == "other_classes"

    def projections(self, teacher_shape, student_shape):
        """A linear layer on either side, unless `dimensions` is None; see the base class."""
        super().check_shapes(tuple(teacher_shape), tuple(student_shape))
        if self.dimensions is None:
            self.check_shapes(tuple(teacher_shape), tuple(student_shape), ConfigurationError)
            return {}
        if None in (teacher_shape[-1], student_shape[-1]):
            raise self.mismatch(teacher_shape, student_shape, "known widths (last dimension), to make projections", kind=ConfigurationError)
        pair = (("teacher", self.teacher_layer, self.student_layer), ("student", self.student_layer, self.teacher_layer))
        return {
            side: keras.layers.Dense(self.dimensions, name=layer_label("contrast", side, own, "with", other), dtype="float32")
            for side, own, other in pair
        }

    def check_shapes(self, teacher_shape, student_shape, kind=ModelError):
        super().check_shapes(teacher_shape, student_shape)
        if None not in (teacher_shape[-1], student_shape[-1]) and teacher_shape[-1] != student_shape[-1]:
            raise self.mismatch(
                teacher_shape,
                student_shape,
                "equal widths (last dimension)",
                "give `dimensions` and train with tfdistill.Distiller, which owns the learned projections; keras.distillation.Distiller has none",
                kind=kind,
            )

    def check_informative(self, teacher_shape, student_shape):
        if 1 in (teacher_shape[-1], student_shape[-1]):
            raise self.mismatch(
                teacher_shape,
                student_shape,
                "at least two channels: the direction of one number is its sign",
                "give `dimensions` of at least 2",
            )

    def hold_teacher(self, teacher):
        # The teacher's projection lies between the teacher and here, and learns from this gradient.
        return teacher if self.dimensions is not None else super().hold_teacher(teacher)

    def batch_loss(self, teacher, student, sample_weight=None, step=None, labels=None):
        weights = unit_weights(student) if sample_weight is None else flat_weights(sample_weight, student.dtype, 1)
        groups = label_groups(labels) if self.needs_labels else None
        teacher, student = (ops.mean(x, axis=tuple(range(1, len(x.shape) - 1))) if len(x.shape) > 2 else x for x in (teacher, student))
        return contrastive_representation(teacher, student, weights, self.value("temperature", step, student), groups)
