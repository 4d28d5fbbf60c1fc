"""What the teacher computes on the way: hidden features, with a learned projection where widths differ."""

import re

import keras
from keras import ops

from tfdistill.errors import ConfigurationError
from tfdistill.losses import checks, masking, pooling
from tfdistill.losses.base import KnowledgeLoss
from tfdistill.losses.reduction import huber
from tfdistill.losses.scaling import unit_vectors

PROJECTIONS = ("auto", "dense", "conv1x1", None)
DISTANCES = ("mse", "cosine", "smooth_l1")


def feature_distance(teacher, student, loss="mse"):
    """Distance of two features at each position.

    Args:
        teacher: `(batch, ..., channels)`.
        student: `(batch, ..., channels)`.
        loss: "mse", mean over channels of squared differences; "cosine", one minus the cosine of the angle between the channel vectors, from 0 to
            2; "smooth_l1", mean over channels of d**2 / 2 for differences d below 1 and d - 1/2 above (Girshick 2015).

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
    """A deterministic Keras name out of layer names and paths."""
    return "_".join(re.sub(r"[^A-Za-z0-9_]+", "_", part or "output").strip("_") for part in parts)


class ProjectedFeature(KnowledgeLoss):
    """Base of the losses that compare features channel by channel, and may map the student's to the teacher's width.

    Args:
        teacher_layer: The teacher's layer; None stands for its final output.
        student_layer: The student's layer; None stands for its final output.
        projection: "auto", "dense", "conv1x1" or None.
        loss: One of the distances of `feature_distance`.

    Raises:
        ConfigurationError: if a choice is unknown.
    """

    use_bias = True

    def __init__(self, teacher_layer=None, student_layer=None, projection="auto", loss="mse"):
        super().__init__(teacher_layer, student_layer)
        self.projection = checks.choice(type(self).__name__, "projection", projection, PROJECTIONS)
        self.loss = checks.choice(type(self).__name__, "loss", loss, DISTANCES)

    def projections(self, teacher_shape, student_shape):
        """A learned layer for the student's side, where the setting asks for one or the widths differ; see the base class."""
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
        name = layer_label("projection", self.student_layer, "to", self.teacher_layer)
        if kind == "conv1x1" or (kind == "auto" and rank in (4, 5)):
            return {"student": pooling.pointwise(rank, width, name, self.use_bias)}
        return {"student": keras.layers.Dense(width, use_bias=self.use_bias, name=name, dtype="float32")}

    def check_positions(self, teacher_shape, student_shape, kind):
        """Raises an error of class `kind` unless all but the widths can be brought together."""
        raise TypeError(f"{type(self).__name__} does not define `check_positions`.")

    def check_shapes(self, teacher_shape, student_shape):
        unequal = self.mismatch(
            teacher_shape,
            student_shape,
            "equal widths (last dimension)",
            "train with tfdistill.Distiller, which owns a learned projection for projection='auto'; keras.distillation.Distiller has none",
        )
        self.check_positions(teacher_shape, student_shape, type(unequal))
        if None not in (teacher_shape[-1], student_shape[-1]) and teacher_shape[-1] != student_shape[-1]:
            raise unequal

    def check_informative(self, teacher_shape, student_shape):
        if self.loss == "cosine" and 1 in (teacher_shape[-1], student_shape[-1]):
            raise self.mismatch(
                teacher_shape,
                student_shape,
                "at least two channels with loss='cosine': the direction of one number is its sign",
                "set loss='mse'",
            )

    def elementwise(self, teacher, student, step=None, labels=None):
        return feature_distance(*pooling.to_common_size(teacher, student), self.loss)


@keras.saving.register_keras_serializable(package="tfdistill")
class Hint(ProjectedFeature):
    """A hint: a hidden feature of the teacher that the student is to reproduce.

    Romero et al. 2015, "FitNets: hints for thin deep nets", arXiv 1412.6550. The mean over positions (and, for "mse" and "smooth_l1", channels), where the
    paper has half of the sum. Where the spatial sizes differ, both are averaged to the smaller one before they are compared.

    Args:
        teacher_layer: Name or path of the teacher's layer, `(batch, channels)` or `(batch, positions..., channels)`.
        student_layer: The same of the student's.
        projection: A learned layer on the student's feature, owned by the Distiller: "dense", "conv1x1" (for features with positions), None, or
            "auto": none where the widths are equal, else "dense" for `(batch, channels)` and `(batch, positions, channels)`, "conv1x1" for maps.
        loss: "mse", "cosine" (direction of the channel vectors only) or "smooth_l1".

    Raises:
        ConfigurationError: if a choice is unknown.
    """

    def check_positions(self, teacher_shape, student_shape, kind):
        if len(student_shape) < 2 or not pooling.sizes_can_meet(teacher_shape, student_shape):
            raise self.mismatch(
                teacher_shape,
                student_shape,
                "as many dimensions on both sides, (batch, channels) or (batch, positions..., channels), with known sizes where they differ",
                "tap a layer before pooling or flattening on both sides, or after it on both",
                kind=kind,
            )

    def _masked(self, teacher, student, masks, sample_weight):
        """Where sizes differ, the positions that count are averaged, and a window that has some of them counts."""
        masking.check(self, teacher, student, masks, least_free=1)
        teacher, student, masks = pooling.masked_to_common_size(teacher, student, masks)
        return super()._masked(teacher, student, masks, sample_weight)


@keras.saving.register_keras_serializable(package="tfdistill")
class HiddenStates(ProjectedFeature):
    """Hidden states of a transformer, position by position.

    Jiao et al. 2020, "TinyBERT: distilling BERT for natural language understanding", arXiv 1909.10351: mean squared error after a learned linear map
    without bias; `loss="cosine"` is that of Sanh et al. 2019, "DistilBERT", arXiv 1910.01108. Both sequences have the same positions, nothing is pooled,
    and `sample_weight` may be `(batch, positions)` to leave padding out.

    Args:
        teacher_layer: Name or path of the teacher's layer, `(batch, positions, width)`.
        student_layer: The same of the student's.
        projection: "auto" (a linear map where the widths differ), "dense", "conv1x1" (the same as "dense" here) or None.
        loss: "mse", "cosine" or "smooth_l1".

    Raises:
        ConfigurationError: if a choice is unknown.
    """

    use_bias = False

    def check_positions(self, teacher_shape, student_shape, kind):
        lengths = (teacher_shape[1:2], student_shape[1:2])
        if not len(teacher_shape) == len(student_shape) == 3 or (None not in lengths[0] + lengths[1] and lengths[0] != lengths[1]):
            raise self.mismatch(
                teacher_shape,
                student_shape,
                "(batch, positions, width) on both sides, with equal positions",
                "use Hint to pool positions",
                kind=kind,
            )
