"""Where the teacher looks: attention maps of convolutions, and of transformers head by head."""

import math

import keras
from keras import ops

from tfdistill.errors import ConfigurationError
from tfdistill.losses import checks, masking, pooling, spaces
from tfdistill.losses.base import KnowledgeLoss
from tfdistill.losses.reduction import at_least_float32
from tfdistill.losses.scaling import rescaled, unit_vectors

# Of the largest activation of a sample, the share below which an activation counts as zero: a power below 1 is infinitely steep there.
INACTIVE = 1e-12


def attention_transfer(teacher, student, power=2.0):
    """Squared distance of two normalized maps of activity.

    Args:
        teacher: `(batch, positions..., channels)`.
        student: `(batch, positions..., channels)`; channels and sizes may differ.
        power: Positive exponent of the absolute activations.

    Returns:
        `(batch,)`, from 0 to 2: the mean over channels of |activation|**power, averaged to the smaller size, laid out as one vector of length 1. A sample
        without any activity has a map of zeros.
    """
    maps = []
    for feature in (teacher, student):
        # The map is normalized, so the scale of a sample does not matter; its powers would leave float32.
        feature = rescaled(feature, axis=tuple(range(1, len(feature.shape))))
        maps.append(ops.mean(_power(feature, power), axis=-1, keepdims=True))
    flat = [unit_vectors(ops.reshape(m, (-1, _positions(m)))) for m in pooling.to_common_size(*maps)]
    return ops.sum(ops.square(flat[1] - flat[0]), axis=-1)


def _power(x, power):
    if power == 2.0:
        return ops.square(x)
    size = ops.abs(x)
    active = size > INACTIVE
    return ops.where(active, ops.power(ops.where(active, size, 1.0), power), 0.0)


def _positions(x):
    """Number of positions of a map: known where it can be, so that shapes stay known."""
    count = 1
    for size in x.shape[1:]:
        if size is None:
            sizes = ops.shape(x)[1:]
            count = sizes[0]
            for other in sizes[1:]:
                count = count * other
            return count
        count *= size
    return count


def _known_positions(shape):
    return None if None in shape[1:-1] else math.prod(shape[1:-1])


def attention_maps(teacher, student, heads="match", loss="mse"):
    """Distance of the attention scores of two transformer layers.

    KL's gradient in a score is -teacher / student, down to scores of 1e-30 (of 2**-14 where the student's are float16, whose range ends there).

    Args:
        teacher: `(batch, heads, queries, keys)`, rows of probabilities.
        student: Of the same shape, but for the heads where `heads="mean"`.
        heads: "match" compares head by head, "mean" the means over the heads.
        loss: "mse", mean over the keys of squared differences; "kl", the sum over the keys of KL(teacher || student), in which a score of zero counts as
            1e-37.

    Returns:
        `(batch, queries)`, mean over the heads.
    """
    steepest = spaces.steepest_at(student)
    student = at_least_float32(student)
    teacher = ops.cast(teacher, student.dtype)
    if heads == "mean":
        teacher, student = (ops.mean(x, axis=1, keepdims=True) for x in (teacher, student))
    if loss == "kl":
        losses = ops.sum(teacher * (spaces.log_of_probabilities(teacher) - spaces.log_of_probabilities(student, steepest)), axis=-1)
    else:
        losses = ops.mean(ops.square(student - teacher), axis=-1)
    return ops.mean(losses, axis=1)


@keras.saving.register_keras_serializable(package="tfdistill")
class AttentionTransfer(KnowledgeLoss):
    """Activation-based attention transfer: where a convolutional teacher is active, whatever its channels.

    Zagoruyko and Komodakis 2017, "Paying more attention to attention", arXiv 1612.03928. The squared distance of the two maps, each
    normalized to length 1: from 0 to 2, whatever the size of the map. The paper's formula has the distance itself, the authors' code the mean of the squares over
    positions, which their weight of 1000 goes with. Needs no projection: channel counts may differ. Where sizes differ the maps are averaged to the
    smaller size; other libraries average the features before they make maps of them, which gives other values for features of both signs.

    Args:
        teacher_layer: Name or path of the teacher's layer, `(batch, positions..., channels)`.
        student_layer: The same of the student's, with as many dimensions.
        power: Positive exponent of the absolute activations; larger ones look at the peaks.

    Raises:
        ConfigurationError: if the power is not positive.
    """

    def __init__(self, teacher_layer=None, student_layer=None, power=2.0):
        super().__init__(teacher_layer, student_layer)
        self.power = checks.number("AttentionTransfer", "power", power, 0.0, strict=True)

    def check_shapes(self, teacher_shape, student_shape):
        if len(student_shape) < 3 or not pooling.sizes_can_meet(teacher_shape, student_shape):
            raise self.mismatch(
                teacher_shape,
                student_shape,
                "(batch, positions..., channels) with as many dimensions on both sides, and known sizes where they differ",
                "tap layers before pooling or flattening",
            )

    def check_informative(self, teacher_shape, student_shape):
        if 1 in (_known_positions(teacher_shape), _known_positions(student_shape)):
            raise self.mismatch(
                teacher_shape,
                student_shape,
                "at least two positions on both sides: a normalized map of one is always 1",
                "tap earlier layers",
            )

    def _masked(self, teacher, student, masks, sample_weight):
        """Padded positions are not active."""
        if len(teacher.shape) == len(student.shape) and tuple(teacher.shape[1:-1]) != tuple(student.shape[1:-1]):
            raise self.mismatch(
                tuple(teacher.shape),
                tuple(student.shape),
                "equal positions, as some of them are padding",
                "tap layers that see the same positions",
            )
        (teacher, student), present = masking.left_out(self, teacher, student, masks)
        return teacher, student, masking.weights(present, sample_weight, "float32")

    def elementwise(self, teacher, student, step=None, labels=None):
        return attention_transfer(teacher, student, self.power)


@keras.saving.register_keras_serializable(package="tfdistill")
class AttentionMaps(KnowledgeLoss):
    """Attention scores of `MultiHeadAttention` layers, head by head.

    Jiao et al. 2020, "TinyBERT", arXiv 1909.10351 (mean squared error, there on scores before the softmax; here on what Keras's layer returns, after it);
    Wang et al. 2020, "MiniLM", arXiv 2002.10957 (KL divergence). Averaged over heads, queries and batch; `sample_weight` may be `(batch, queries)`
    to leave padding out.

    Args:
        teacher_layer: Name or path of the teacher's attention layer. The scores are `(batch, heads, queries, keys)`.
        student_layer: The same of the student's; queries and keys must be those of the teacher.
        heads: "match" asks for equal head counts and compares head by head; "mean" averages each side over its heads first, so that the counts may
            differ (what single heads look at is then lost).
        loss: "mse" or "kl".

    Raises:
        ConfigurationError: if a choice is unknown.
    """

    tap_kind = "attention_scores"

    def __init__(self, teacher_layer=None, student_layer=None, heads="match", loss="mse"):
        super().__init__(teacher_layer, student_layer)
        self.heads = checks.choice("AttentionMaps", "heads", heads, ("match", "mean"))
        self.loss = checks.choice("AttentionMaps", "loss", loss, ("mse", "kl"))

    def check_shapes(self, teacher_shape, student_shape):
        if len(teacher_shape) != 4 or len(student_shape) != 4:
            raise self.mismatch(
                teacher_shape,
                student_shape,
                "scores (batch, heads, queries, keys)",
                "name MultiHeadAttention layers and train with tfdistill.Distiller",
            )
        differ = [i for i in range(4) if None not in (teacher_shape[i], student_shape[i]) and teacher_shape[i] != student_shape[i]]
        if differ == [1] and self.heads == "mean":
            return
        if differ:
            fix = "set heads='mean' to compare the means over the heads" if differ == [1] else "tap layers that see the same positions"
            raise self.mismatch(teacher_shape, student_shape, "equal queries, keys" + (" and heads" if self.heads == "match" else ""), fix)

    def check_informative(self, teacher_shape, student_shape):
        if 1 in (teacher_shape[-1], student_shape[-1]):
            raise self.mismatch(
                teacher_shape,
                student_shape,
                "at least two keys: the attention to one is always 1",
                "tap layers that see at least two positions",
            )

    def check_first_batch(self, teacher, student):
        super().check_first_batch(teacher, student)
        for side, scores in (("teacher", teacher), ("student", student)):
            if self.loss == "kl" and scores.min() < 0:
                raise ConfigurationError(
                    f"AttentionMaps: the {self._named(side)} gives scores down to {scores.min():.4g}.",
                    "probabilities (scores after the softmax), as loss='kl'",
                    "set loss='mse'",
                )

    def _prepared(self, teacher, student):
        ready = super()._prepared(teacher, student)
        return spaces.with_float16(ready, student) if self.loss == "kl" else ready

    def _masked(self, teacher, student, masks, sample_weight):
        """A mask belongs to the queries; padded keys have the score 0 already."""
        return teacher, student, masking.position_weights(self, teacher[:, 0], student[:, 0], masks, sample_weight)

    def elementwise(self, teacher, student, step=None, labels=None):
        return attention_maps(teacher, student, self.heads, self.loss)
