"""Contrastive losses: the student's feature of a sample is nearer to the teacher's feature of it than to those of other samples."""

from typing import Literal

import keras
from keras import ops

from tfdistill.errors import ConfigurationError, DataError, ModelError, TfdistillError
from tfdistill.losses import schedules
from tfdistill.losses.features import layer_label
from tfdistill.losses.reduction import flat_weights
from tfdistill.losses.relations import Relation, unit_weights
from tfdistill.losses.scaling import unit_vectors
from tfdistill.losses.schedules import Schedule
from tfdistill.losses.spaces import LOG_OF_ZERO
from tfdistill.utils import validate
from tfdistill.utils.types import Shape, Tensor


def contrastive_representation(teacher, student, weights, temperature=0.1, groups=None):
    """Computes the cross-entropy of finding the teacher's feature of the same sample among those of the batch, by cosine (InfoNCE).

    Args:
        teacher: `(batch, width)`.
        student: `(batch, width)`, of the same width.
        weights: `(batch,)`. A weight scales the sample's own loss, and the sample as a negative of others.
        temperature: Positive number or scalar tensor that divides the cosines.
        groups: None, or `(batch,)` numbers; samples of the same number are no negatives of one another.

    Returns:
        Scalar: the mean over samples.
    """
    cosines = ops.matmul(unit_vectors(student), ops.transpose(unit_vectors(teacher)))
    scores = ops.multiply(cosines, 1.0 / temperature)
    same = ops.eye(ops.shape(student)[0], dtype=scores.dtype)
    # A weight scales exp(score), so its logarithm is added. The positive, a sample's own column, always has the weight 1.
    log_weights = ops.where(weights > 0, ops.log(ops.maximum(weights, 1e-30)), LOG_OF_ZERO)[None, :] * (1.0 - same)
    if groups is not None:
        log_weights = log_weights + LOG_OF_ZERO * ops.cast(groups[:, None] == groups[None, :], scores.dtype) * (1.0 - same)
    rows = ops.logsumexp(scores + log_weights, axis=-1) - ops.sum(same * scores, axis=-1)
    return ops.mean(weights * rows)


def label_groups(labels):
    """Returns labels as one class number per sample.

    Args:
        labels: Class numbers `(batch,)` or `(batch, 1)`, or one-hot rows `(batch, classes)`.

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

    Both features are averaged over positions, mapped by a learned layer to a common width, and divided by their length, giving t_i and s_i
    for sample i. The loss is the mean over i of -log(exp(s_i . t_i / T) / sum over j of exp(s_i . t_j / T)). For random features it is
    about log(batch). Its cost is quadratic in the batch size, and a larger batch has more negatives.

    Tian, Krishnan and Isola 2020, "Contrastive representation distillation", arXiv 1910.10699. The paper takes negatives from a memory of
    thousands of earlier samples, has a loss per pair, and adds the loss of the teacher's features against the student's. Here the loss is
    the cross-entropy over the batch (InfoNCE, van den Oord et al. 2018, "Representation learning with contrastive predictive coding", arXiv
    1807.03748), in one direction.

    A sample's weight multiplies its own loss and its term as a negative of others. The teacher's projection learns too; no gradient reaches
    the teacher, because the Distiller stops it before that layer.

    Args:
        teacher_layer_name: Name or path of the teacher's layer, `(batch, channels)` or `(batch, positions..., channels)`; None stands for
            its final output.
        student_layer_name: Name or path of the student's layer; the numbers of positions and channels may differ.
        dimensions: Width of the common space, at least 1, to which a learned layer on either side maps; the Distiller owns them. None
            compares the features as they are, which then need equal widths.
        temperature: The temperature T, a positive number or a schedule.
        negatives: "all" other samples, or those of "other_classes" only, as in the paper where labels are known; this needs
            `tfdistill.Distiller`, which passes labels.

    Raises:
        ConfigurationError: if a number is out of its range (at any step), or a choice is unknown.

    Example:
        >>> loss = tfdistill.losses.ContrastiveRepresentation("pool", "pool", dimensions=None, temperature=0.1)
        >>> features = np.eye(4)  # four samples, all different
        >>> round(float(loss.compute_loss(features, features)), 2)
        0.0
        >>> round(float(loss.compute_loss(features, features[::-1])), 2)
        10.0
        >>> learned = tfdistill.losses.ContrastiveRepresentation("pool", "pool", dimensions=32)
        >>> sorted(learned.projections((None, 16), (None, 8)))
        ['student', 'teacher']
    """

    schedulable: tuple[str, ...] = ("temperature",)

    def __init__(
        self,
        teacher_layer_name: str | None = None,
        student_layer_name: str | None = None,
        dimensions: int | None = 128,
        temperature: float | Schedule = 0.1,
        negatives: Literal["all", "other_classes"] = "all",
    ):
        super().__init__(teacher_layer_name, student_layer_name)
        self.dimensions = (
            None if dimensions is None else validate.whole_number("dimensions", dimensions, at_least=1, owner="ContrastiveRepresentation")
        )
        self.temperature = schedules.number_or_schedule("temperature", temperature, "ContrastiveRepresentation")
        self.negatives = validate.one_of("negatives", negatives, ("all", "other_classes"), owner="ContrastiveRepresentation")

    @property
    def needs_labels(self) -> bool:
        """Whether labels determine which samples are negatives."""
        return self.negatives == "other_classes"

    def projections(self, teacher_shape: Shape, student_shape: Shape) -> dict[str, keras.layers.Layer]:
        """Makes a linear layer for either side, unless `dimensions` is None; see the base class."""
        super().check_shapes(tuple(teacher_shape), tuple(student_shape))
        if self.dimensions is None:
            self.check_shapes(tuple(teacher_shape), tuple(student_shape), ConfigurationError)
            return {}
        if None in (teacher_shape[-1], student_shape[-1]):
            raise self.mismatch(teacher_shape, student_shape, "known widths (last dimension), to make projections", kind=ConfigurationError)
        pair = (
            ("teacher", self.teacher_layer_name, self.student_layer_name),
            ("student", self.student_layer_name, self.teacher_layer_name),
        )
        return {
            side: keras.layers.Dense(self.dimensions, name=layer_label("contrast", side, own, "with", other), dtype="float32")
            for side, own, other in pair
        }

    def check_shapes(self, teacher_shape: Shape, student_shape: Shape, kind: type[TfdistillError] = ModelError) -> None:
        super().check_shapes(teacher_shape, student_shape)
        if None not in (teacher_shape[-1], student_shape[-1]) and teacher_shape[-1] != student_shape[-1]:
            raise self.mismatch(
                teacher_shape,
                student_shape,
                "equal widths (last dimension)",
                "give `dimensions` and train with tfdistill.Distiller, which owns the learned projections; keras.distillation.Distiller has none",
                kind=kind,
            )

    def check_informative(self, teacher_shape: Shape, student_shape: Shape) -> None:
        if 1 in (teacher_shape[-1], student_shape[-1]):
            raise self.mismatch(
                teacher_shape,
                student_shape,
                "at least two channels: the direction of one number is its sign",
                "give `dimensions` of at least 2",
            )

    def stop_teacher_gradient(self, teacher: Tensor) -> Tensor:
        # The teacher's projection, which stands between the teacher and this loss, learns from this gradient.
        return teacher if self.dimensions is not None else super().stop_teacher_gradient(teacher)

    def batch_loss(
        self,
        teacher: Tensor,
        student: Tensor,
        sample_weight: Tensor | None = None,
        step: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> Tensor:
        weights = unit_weights(student) if sample_weight is None else flat_weights(sample_weight, student.dtype, 1)
        groups = label_groups(labels) if self.needs_labels else None
        teacher, student = (ops.mean(x, axis=tuple(range(1, len(x.shape) - 1))) if len(x.shape) > 2 else x for x in (teacher, student))
        return contrastive_representation(teacher, student, weights, self.value("temperature", step, student), groups)
