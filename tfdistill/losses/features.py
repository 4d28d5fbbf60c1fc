"""Losses on hidden features, with a learned projection where widths differ."""

import re
import typing
from typing import Literal

import keras
from keras import ops

from tfdistill.errors import ConfigurationError, TfdistillError
from tfdistill.losses import masking, pooling
from tfdistill.losses.base import KnowledgeLoss
from tfdistill.losses.reduction import huber
from tfdistill.losses.scaling import unit_vectors
from tfdistill.utils import validate
from tfdistill.utils.types import Shape, Tensor

Projection = Literal["auto", "dense", "conv1x1"]
Distance = Literal["mse", "cosine", "smooth_l1"]
PROJECTIONS = (*typing.get_args(Projection), None)
DISTANCES = typing.get_args(Distance)


def feature_distance(teacher, student, loss="mse"):
    """Computes the distance of two features at each position.

    Args:
        teacher: `(batch, ..., channels)`.
        student: `(batch, ..., channels)`.
        loss: "mse", mean over channels of squared differences; "cosine", one minus the cosine of the angle between the channel vectors,
            from 0 to 2; "smooth_l1", mean over channels of d**2 / 2 for differences d below 1 and d - 1/2 above (Girshick 2015).

    Returns:
        `(batch, ...)`.
    """
    if loss == "cosine":
        return 1.0 - ops.sum(unit_vectors(teacher) * unit_vectors(student), axis=-1)
    difference = student - teacher
    if loss == "mse":
        return ops.mean(ops.square(difference), axis=-1)
    return ops.mean(huber(difference), axis=-1)


def layer_label(*parts):
    """Joins layer names and paths to a name that Keras permits; None counts as "output"."""
    return "_".join(re.sub(r"[^A-Za-z0-9_]+", "_", part or "output").strip("_") for part in parts)


class ProjectedFeature(KnowledgeLoss):
    """Base of the losses that compare features channel by channel, with an optional learned map from the student's to the teacher's width.

    Args:
        teacher_layer_name: The teacher's layer; None stands for its final output.
        student_layer_name: The student's layer; None stands for its final output.
        projection: "auto", "dense", "conv1x1" or None.
        loss: One of the distances of `feature_distance`.

    Raises:
        ConfigurationError: if a choice is unknown.
    """

    use_bias: bool = True
    """Whether the projection has a bias."""

    def __init__(
        self,
        teacher_layer_name: str | None = None,
        student_layer_name: str | None = None,
        projection: Projection | None = "auto",
        loss: Distance = "mse",
    ):
        super().__init__(teacher_layer_name, student_layer_name)
        self.projection = validate.one_of("projection", projection, PROJECTIONS, owner=type(self).__name__)
        self.loss = validate.one_of("loss", loss, DISTANCES, owner=type(self).__name__)

    def projections(self, teacher_shape: Shape, student_shape: Shape) -> dict[str, keras.layers.Layer]:
        """Makes a learned layer for the student's side, where `projection` requires one or the widths differ; see the base class."""
        teacher_shape, student_shape = tuple(teacher_shape), tuple(student_shape)
        self.check_positions(teacher_shape, student_shape, ConfigurationError)
        rank, width, own = len(student_shape), teacher_shape[-1], student_shape[-1]
        kind = self.projection
        if width is None or own is None:
            if kind is None or (kind == "auto" and width is own):
                return {}
            raise self.mismatch(
                teacher_shape, student_shape, "known widths (last dimension), to make a projection", kind=ConfigurationError
            )
        if kind is None or (kind == "auto" and width == own):
            if width != own:
                raise self.mismatch(
                    teacher_shape, student_shape, "equal widths, as projection=None", "set projection='auto'", kind=ConfigurationError
                )
            return {}
        if kind == "conv1x1" and rank not in (3, 4, 5):
            raise self.mismatch(
                teacher_shape,
                student_shape,
                "features with positions, as projection='conv1x1'",
                "set projection='dense'",
                kind=ConfigurationError,
            )
        name = layer_label("projection", self.student_layer_name, "to", self.teacher_layer_name)
        if kind == "conv1x1" or (kind == "auto" and rank in (4, 5)):
            return {"student": pooling.pointwise(rank, width, name, self.use_bias)}
        return {"student": keras.layers.Dense(width, use_bias=self.use_bias, name=name, dtype="float32")}

    def check_positions(self, teacher_shape: Shape, student_shape: Shape, kind: type[TfdistillError]) -> None:
        """Raises an error of class `kind` unless all sizes but the widths are equal or can be pooled."""
        raise TypeError(f"{type(self).__name__} does not define `check_positions`.")

    def check_shapes(self, teacher_shape: Shape, student_shape: Shape) -> None:
        unequal = self.mismatch(
            teacher_shape,
            student_shape,
            "equal widths (last dimension)",
            "train with tfdistill.Distiller, which owns a learned projection for projection='auto'; keras.distillation.Distiller has none",
        )
        self.check_positions(teacher_shape, student_shape, type(unequal))
        if None not in (teacher_shape[-1], student_shape[-1]) and teacher_shape[-1] != student_shape[-1]:
            raise unequal

    def check_informative(self, teacher_shape: Shape, student_shape: Shape) -> None:
        if self.loss == "cosine" and 1 in (teacher_shape[-1], student_shape[-1]):
            raise self.mismatch(
                teacher_shape,
                student_shape,
                "at least two channels with loss='cosine': the direction of one number is its sign",
                "set loss='mse'",
            )

    def elementwise(self, teacher: Tensor, student: Tensor, step: Tensor | None = None, labels: Tensor | None = None) -> Tensor:
        teacher, student = pooling.to_common_size(teacher, student)
        return feature_distance(teacher, student, self.loss)


@keras.saving.register_keras_serializable(package="tfdistill")
class Hint(ProjectedFeature):
    """A hint: a hidden feature of the teacher that the student reproduces.

    With d = projection(student) - teacher, the loss is the mean of d**2 over channels, positions and batch. Where the spatial sizes differ,
    both sides are averaged to the smaller one before they are compared.

    Romero et al. 2015, "FitNets: hints for thin deep nets", arXiv 1412.6550, which has half of the sum instead of the mean.

    Args:
        teacher_layer_name: Name or path of the teacher's layer, `(batch, channels)` or `(batch, positions..., channels)`.
        student_layer_name: Name or path of the student's layer, with as many dimensions.
        projection: The learned layer on the student's feature, which the Distiller owns: "dense"; "conv1x1", for features with positions;
            None; or "auto", none where the widths are equal, else "dense" for `(batch, channels)` and `(batch, positions, channels)` and
            "conv1x1" for maps.
        loss: "mse", the mean of d**2; "cosine", one minus the cosine of the angle between the channel vectors of a position, from 0 to 2;
            or "smooth_l1", the mean of d**2 / 2 for |d| < 1 and |d| - 1/2 above (Girshick 2015, "Fast R-CNN", arXiv 1504.08083).

    Raises:
        ConfigurationError: if a choice is unknown.

    Example:
        >>> hint = tfdistill.losses.Hint("relu", "relu")
        >>> float(hint.compute_loss(np.ones((2, 8, 8, 4)), np.zeros((2, 8, 8, 4))))
        1.0
        >>> hint.projections(teacher.get_layer("relu").output.shape, student.get_layer("relu").output.shape)["student"].name
        'projection_relu_to_relu'
        >>> distiller = tfdistill.Distiller(teacher, student, [tfdistill.losses.SoftTargets(4.0), hint], [1.0, 0.5])
    """

    def check_positions(self, teacher_shape: Shape, student_shape: Shape, kind: type[TfdistillError]) -> None:
        if len(student_shape) < 2 or not pooling.sizes_can_meet(teacher_shape, student_shape):
            raise self.mismatch(
                teacher_shape,
                student_shape,
                "as many dimensions on both sides, (batch, channels) or (batch, positions..., channels), with known sizes where they differ",
                "tap a layer before pooling or flattening on both sides, or after it on both",
                kind=kind,
            )

    def _masked(self, teacher, student, masks, sample_weight):
        """Where sizes differ, averages the unmasked positions of each window; a window without any is masked."""
        masking.check(self, teacher, student, masks, least_free=1)
        teacher, student, masks = pooling.masked_to_common_size(teacher, student, masks)
        return super()._masked(teacher, student, masks, sample_weight)


@keras.saving.register_keras_serializable(package="tfdistill")
class HiddenStates(ProjectedFeature):
    """Hidden states of a transformer, position by position.

    The loss is mean((projection(student) - teacher)**2) over width, positions and batch, where the projection is a learned linear map
    without bias. Both sequences have the same positions; nothing is pooled. `sample_weight` may be `(batch, positions)`.

    Jiao et al. 2020, "TinyBERT: distilling BERT for natural language understanding", arXiv 1909.10351. `loss="cosine"` is that of Sanh et
    al. 2019, "DistilBERT", arXiv 1910.01108.

    Args:
        teacher_layer_name: Name or path of the teacher's layer, `(batch, positions, width)`.
        student_layer_name: Name or path of the student's layer, with the same positions.
        projection: "auto" (a linear map where the widths differ), "dense", "conv1x1" (the same as "dense" here) or None.
        loss: "mse", "cosine" or "smooth_l1"; see `Hint`.

    Raises:
        ConfigurationError: if a choice is unknown.

    Example:
        >>> loss = tfdistill.losses.HiddenStates("block_4", "block_2", loss="cosine")
        >>> round(float(loss.compute_loss(np.ones((2, 5, 8)), -np.ones((2, 5, 8)))), 3)
        2.0
        >>> loss.projections((None, 5, 16), (None, 5, 8))["student"].use_bias
        False
    """

    use_bias: bool = False

    def check_positions(self, teacher_shape: Shape, student_shape: Shape, kind: type[TfdistillError]) -> None:
        lengths = (teacher_shape[1:2], student_shape[1:2])
        if not len(teacher_shape) == len(student_shape) == 3 or (None not in lengths[0] + lengths[1] and lengths[0] != lengths[1]):
            raise self.mismatch(
                teacher_shape,
                student_shape,
                "(batch, positions, width) on both sides, with equal positions",
                "use Hint to pool positions"
                if len(teacher_shape) == len(student_shape) == 3
                else "tap layers with positions on both sides",
                kind=kind,
            )
