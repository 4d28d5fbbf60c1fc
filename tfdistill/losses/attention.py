"""Losses on attention: activation maps of convolutions, and the attention scores of transformers."""

import math
from typing import Literal

import keras
import numpy as np
from keras import ops

from tfdistill.errors import ConfigurationError
from tfdistill.losses import masking, pooling, spaces
from tfdistill.losses.base import KnowledgeLoss
from tfdistill.losses.reduction import at_least_float32
from tfdistill.losses.scaling import rescaled, unit_vectors
from tfdistill.utils import validate
from tfdistill.utils.types import Activations, Shape, Tensor

# Activations below this share of the sample's largest one count as zero: a power below 1 is infinitely steep at zero.
INACTIVE = 1e-12


def attention_transfer(teacher, student, power=2.0):
    """Computes the squared distance of two normalized activation maps.

    Args:
        teacher: `(batch, positions..., channels)`.
        student: `(batch, positions..., channels)`; channels and sizes may differ.
        power: Positive exponent of the absolute activations.

    Returns:
        `(batch,)`, from 0 to 2. A map is the mean over channels of |activation|**power, averaged to the smaller size and divided by its
        Euclidean length. A sample without any activity has a map of zeros.
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
    """Returns the number of positions of a map: an `int` where all sizes are known, so that shapes stay known, else a tensor."""
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
    """Computes the distance of the attention scores of two transformer layers.

    The gradient of KL in a student's score is -teacher / student, down to scores of 1e-30 (2**-14 for float16 students, whose range ends
    there).

    Args:
        teacher: `(batch, heads, queries, keys)`, rows of probabilities.
        student: Of the same shape; with `heads="mean"` the number of heads may differ.
        heads: "match" compares head by head, "mean" the means over the heads.
        loss: "mse", mean over the keys of squared differences; "kl", the sum over the keys of KL(teacher || student), in which a score of
            zero counts as 1e-37.

    Returns:
        `(batch, queries)`, the mean over the heads.
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
    """Activation-based attention transfer: the student is active at the positions where the teacher is.

    A map is Q = mean over channels of |activation|**power, as one vector over the positions. The loss is the squared distance of the two
    maps Q / |Q|, from 0 to 2 for any size, averaged over the batch. The numbers of channels may differ, so no projection is needed. Where
    spatial sizes differ the maps are averaged to the smaller size.

    Zagoruyko and Komodakis 2017, "Paying more attention to attention", arXiv 1612.03928. The paper's formula has the distance itself. The
    authors' code has the mean of the squares over the positions instead of their sum, for which their weight of 1000 is made. Other
    libraries average the features before they compute maps, which differs for features of both signs.

    Args:
        teacher_layer_name: Name or path of the teacher's layer, `(batch, positions..., channels)`.
        student_layer_name: Name or path of the student's layer, with as many dimensions.
        power: Positive exponent of the absolute activations; a larger one gives more weight to the peaks.

    Raises:
        ConfigurationError: if the power is not positive.

    Example:
        >>> loss = tfdistill.losses.AttentionTransfer("relu", "relu")
        >>> features = np.random.default_rng(0).random((2, 8, 8, 16))
        >>> round(float(loss.compute_loss(features, 3.0 * features)), 6)  # scale does not matter
        0.0
        >>> distiller = tfdistill.Distiller(teacher, student, [tfdistill.losses.SoftTargets(4.0), loss], [1.0, 10.0])
    """

    def __init__(self, teacher_layer_name: str | None = None, student_layer_name: str | None = None, power: float = 2.0):
        super().__init__(teacher_layer_name, student_layer_name)
        self.power = validate.positive_number("power", power, owner="AttentionTransfer")

    def check_shapes(self, teacher_shape: Shape, student_shape: Shape) -> None:
        if len(student_shape) < 3 or not pooling.sizes_can_meet(teacher_shape, student_shape):
            raise self.mismatch(
                teacher_shape,
                student_shape,
                "(batch, positions..., channels) with as many dimensions on both sides, and known sizes where they differ",
                "tap layers before pooling or flattening",
            )

    def check_informative(self, teacher_shape: Shape, student_shape: Shape) -> None:
        if 1 in (_known_positions(teacher_shape), _known_positions(student_shape)):
            raise self.mismatch(
                teacher_shape,
                student_shape,
                "at least two positions on both sides: a normalized map of one is always 1",
                "tap earlier layers",
            )

    def _masked(self, teacher, student, masks, sample_weight):
        """Sets padded positions to zero: they have no activity."""
        if len(teacher.shape) == len(student.shape) and tuple(teacher.shape[1:-1]) != tuple(student.shape[1:-1]):
            raise self.mismatch(
                tuple(teacher.shape),
                tuple(student.shape),
                "equal positions, as some of them are padding",
                "tap layers that see the same positions",
            )
        (teacher, student), present = masking.without_padding(self, teacher, student, masks)
        return teacher, student, masking.weights(present, sample_weight, "float32")

    def elementwise(self, teacher: Tensor, student: Tensor, step: Tensor | None = None, labels: Tensor | None = None) -> Tensor:
        return attention_transfer(teacher, student, self.power)


@keras.saving.register_keras_serializable(package="tfdistill")
class AttentionMaps(KnowledgeLoss):
    """Attention scores of `MultiHeadAttention` layers, head by head.

    With a and b the teacher's and the student's scores of one query, which sum to 1 over the keys, the loss is mean((a - b)**2) or sum(a *
    log(a / b)) over the keys, averaged over heads, queries and batch. `sample_weight` may be `(batch, queries)`.

    Jiao et al. 2020, "TinyBERT: distilling BERT for natural language understanding", arXiv 1909.10351, has the mean squared error on scores
    before the softmax; here it is on what Keras's layer returns, after it. Wang et al. 2020, "MiniLM", arXiv 2002.10957, has the KL
    divergence.

    Args:
        teacher_layer_name: Name or path of the teacher's attention layer, with scores `(batch, heads, queries, keys)`.
        student_layer_name: Name or path of the student's attention layer, with the teacher's numbers of queries and keys.
        heads: "match" requires equal numbers of heads and compares head by head; "mean" averages each side over its heads first, so that
            the numbers may differ, and the patterns of single heads are lost.
        loss: "mse" or "kl".

    Raises:
        ConfigurationError: if a choice is unknown.

    Example:
        >>> loss = tfdistill.losses.AttentionMaps("attention_4", "attention_2", heads="mean", loss="kl")
        >>> uniform, first = np.full((1, 2, 1, 2), 0.5), np.array([[[[0.9, 0.1]]]])  # 2 heads and 1 head; 1 query, 2 keys
        >>> round(float(loss.compute_loss(uniform, first)), 3)
        0.511
    """

    tap_kind: str = "attention_scores"

    def __init__(
        self,
        teacher_layer_name: str | None = None,
        student_layer_name: str | None = None,
        heads: Literal["match", "mean"] = "match",
        loss: Literal["mse", "kl"] = "mse",
    ):
        super().__init__(teacher_layer_name, student_layer_name)
        self.heads = validate.one_of("heads", heads, ("match", "mean"), owner="AttentionMaps")
        self.loss = validate.one_of("loss", loss, ("mse", "kl"), owner="AttentionMaps")

    def check_shapes(self, teacher_shape: Shape, student_shape: Shape) -> None:
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

    def check_informative(self, teacher_shape: Shape, student_shape: Shape) -> None:
        if 1 in (teacher_shape[-1], student_shape[-1]):
            raise self.mismatch(
                teacher_shape,
                student_shape,
                "at least two keys: the attention to one is always 1",
                "tap layers that see at least two positions",
            )

    def check_first_batch(self, teacher: np.ndarray, student: np.ndarray, activations: Activations = (None, None)) -> None:
        super().check_first_batch(teacher, student, activations)
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
        """Applies the mask to the queries; padded keys have the score 0 already."""
        return teacher, student, masking.position_weights(self, teacher[:, 0], student[:, 0], masks, sample_weight)

    def elementwise(self, teacher: Tensor, student: Tensor, step: Tensor | None = None, labels: Tensor | None = None) -> Tensor:
        return attention_maps(teacher, student, self.heads, self.loss)
