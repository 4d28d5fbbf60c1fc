"""The base class of the distillation losses.

A loss compares one output of the teacher with one of the student. It holds hyperparameters only. A learned projection belongs to the
Distiller, so that the exported student carries nothing of its training.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops

from tfdistill.errors import ConfigurationError, DataError, ModelError, TfdistillError
from tfdistill.losses import checks, masking, schedules
from tfdistill.losses.configured import Configured
from tfdistill.losses.reduction import at_least_float32, weighted_mean
from tfdistill.losses.top_k import TopK
from tfdistill.utils.types import Activations, Shape, Tensor, Tensors


class KnowledgeLoss(Configured, keras.distillation.DistillationLoss):
    """Base class of the distillation losses: compares an output of the teacher with one of the student.

    A subclass defines `elementwise` or, for a relation between the samples of a batch, `batch_loss`. It keeps each argument of its
    constructor as an attribute of the same name: `get_config`, equality and `repr` are made from these.

    Args:
        teacher_layer_name: Name or path (`"encoder/block_2/attention"`) of the teacher's layer whose output is compared; None stands for
            its final output.
        student_layer_name: Name or path of the student's layer; None stands for its final output.

    Raises:
        ConfigurationError: if a layer's name is neither None nor a non-empty string.

    Example:
        >>> class AbsoluteDifference(tfdistill.losses.KnowledgeLoss):
        ...     def elementwise(self, teacher, student, step=None, labels=None):
        ...         return keras.ops.mean(keras.ops.abs(teacher - student), axis=-1)
        >>> loss = AbsoluteDifference(teacher_layer_name="hidden", student_layer_name="hidden")
        >>> loss
        AbsoluteDifference(teacher_layer_name='hidden', student_layer_name='hidden')
        >>> float(loss.compute_loss(np.array([[1.0, 2.0]]), np.array([[1.0, 4.0]])))
        1.0
    """

    former_settings: ClassVar[Mapping[str, str]] = {"teacher_layer": "teacher_layer_name", "student_layer": "student_layer_name"}

    tap_kind: str = "output"
    """What of its layers the loss compares: "output", or "attention_scores" of attention layers."""
    schedulable: tuple[str, ...] = ()
    """Names of the settings that may be schedules."""

    def __init__(self, teacher_layer_name: str | None = None, student_layer_name: str | None = None):
        owner = type(self).__name__
        self.teacher_layer_name = checks.layer_name(owner, "teacher_layer_name", teacher_layer_name)
        self.student_layer_name = checks.layer_name(owner, "student_layer_name", student_layer_name)

    @property
    def needs_labels(self) -> bool:
        """Whether `compute_loss` needs the labels of the output."""
        return False

    # What a subclass defines

    def elementwise(self, teacher: Tensor, student: Tensor, step: Tensor | None = None, labels: Tensor | None = None) -> Tensor:
        """Returns the losses per sample and position.

        Args:
            teacher: `(batch, ...)`, float32 or wider, without gradient.
            student: `(batch, ...)`, float32 or wider.
            step: Training step, or None.
            labels: Labels of this output, or None; given to losses with `needs_labels`.

        Returns:
            `(batch,)`, or `(batch, positions...)`.
        """
        raise TypeError(f"{type(self).__name__} defines neither `elementwise` nor `batch_loss`.")

    def batch_loss(
        self,
        teacher: Tensor,
        student: Tensor,
        sample_weight: Tensor | None = None,
        step: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> Tensor:
        """Returns the loss of a batch, a scalar. Losses of relations between samples override it.

        Args:
            teacher: As in `elementwise`.
            student: As in `elementwise`.
            sample_weight: None, `(batch,)`, or `(batch, T)` for losses with positions.
            step: As in `elementwise`.
            labels: As in `elementwise`.
        """
        return weighted_mean(self.elementwise(teacher, student, step=step, labels=labels), sample_weight)

    def top_k_loss(self, teacher: TopK, student: Tensor, step: Tensor | None = None) -> Tensor:
        """Returns the losses per sample and position where only the teacher's largest logits are known.

        Args:
            teacher: `TopK`.
            student: `(batch, ..., classes)`, float32 or wider.
            step: Training step, or None.

        Returns:
            `(batch,)`, or `(batch, positions...)`.

        Raises:
            ConfigurationError: if the loss cannot be computed from them exactly.
        """
        raise ConfigurationError(
            f"{type(self).__name__} needs all outputs of the teacher, but only the {teacher.values.shape[-1]} largest and the sum of the rest were kept.",
            "tfdistill.losses.SoftTargets with top_k",
            "keep whole outputs (top_k=None), or teach with SoftTargets",
        )

    def check_shapes(self, teacher_shape: Shape, student_shape: Shape) -> None:
        """Checks that two shapes can be compared; the default requires equal ones. Overrides raise what `mismatch` returns.

        Args:
            teacher_shape: Shape of the teacher's output; None for the batch and for sizes that are not known.
            student_shape: Shape of the student's output.

        Raises:
            ModelError: if they cannot.
        """
        equal = len(teacher_shape) == len(student_shape) and all(
            t == s or t is None or s is None for t, s in zip(teacher_shape, student_shape, strict=True)
        )
        if not equal:
            raise self.mismatch(teacher_shape, student_shape, "equal shapes")

    def check_informative(self, teacher_shape: Shape, student_shape: Shape) -> None:
        """Raises `ModelError` if the loss of such shapes does not depend on the student. Called before training only."""

    def projections(self, teacher_shape: Shape, student_shape: Shape) -> dict[str, keras.layers.Layer]:
        """Makes the learned layers that bring two features to a common width.

        The Distiller owns them, builds them and applies them before `compute_loss`, the teacher's after `stop_gradient`.

        Args:
            teacher_shape: Shape of the teacher's feature; None for the batch and for sizes that are not known.
            student_shape: Shape of the student's feature.

        Returns:
            Unbuilt layers under "teacher" and "student"; a side that needs none is left out.

        Raises:
            ConfigurationError: if no projection can make them match.
        """
        return {}

    # What the Distiller calls

    def compute_loss(
        self,
        teacher_outputs: Tensors,
        student_outputs: Tensors,
        sample_weight: Tensor | None = None,
        step: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Computes the loss of a batch.

        Padding masks are read from the outputs, to which Keras attaches them. Positions that either side masks have no weight, and the mean
        is over the others.

        Args:
            teacher_outputs: `(batch, ...)`, or a `TopK`; no gradient flows into it.
            student_outputs: `(batch, ...)`.
            sample_weight: None, `(batch,)`, or `(batch, T)` for losses with positions. The sum of weighted losses is divided by the batch
                size.
            step: Training step; needed where a setting is a schedule.
            labels: Labels of this output; needed where `needs_labels`.
            **kwargs: Not used; Keras's interface has them.

        Returns:
            Scalar, float32 or wider.

        Raises:
            ConfigurationError: if the step or the labels are needed and missing.
            ModelError: if the outputs are not one tensor each, their shapes cannot be compared, or a padding mask has other positions.
        """
        masks = (masking.mask_of(teacher_outputs), masking.mask_of(student_outputs))
        if self.needs_labels and labels is None:
            raise ConfigurationError(
                f"{self!r} needs the labels, and none were given.",
                "labels, which tfdistill.Distiller passes and keras.distillation.Distiller does not",
                "train with tfdistill.Distiller on data with labels",
            )
        if isinstance(teacher_outputs, TopK):
            student = self._tensors(student_outputs, student_outputs)[1]
            losses = self.top_k_loss(teacher_outputs, self._prepared(student, student)[1], step=step)
            return weighted_mean(losses, self._masked(student, student, masks, sample_weight)[2])
        teacher, student = self._tensors(teacher_outputs, student_outputs)
        self.check_shapes(tuple(teacher.shape), tuple(student.shape))
        teacher, student = self._prepared(teacher, student)
        if any(mask is not None for mask in masks):
            teacher, student, sample_weight = self._masked(teacher, student, masks, sample_weight)
        return self.batch_loss(teacher, student, sample_weight=sample_weight, step=step, labels=labels)

    def per_sample(self, teacher: Tensors, student: Tensors, step: Tensor | None = None, labels: Tensor | None = None) -> Tensor:
        """Computes one loss per sample, the mean over its positions; arguments as in `compute_loss`.

        Returns:
            `(batch,)`.

        Raises:
            ConfigurationError: if the loss relates samples to one another, so that a single one has no loss.
        """
        if type(self).batch_loss is not KnowledgeLoss.batch_loss:
            raise ConfigurationError(
                f"{type(self).__name__} compares samples with one another, so it has no loss per sample.", fix="use compute_loss"
            )
        teacher, student = self._tensors(teacher, student)
        teacher, student = self._prepared(teacher, student)
        losses = self.elementwise(teacher, student, step=step, labels=labels)
        positions = tuple(range(1, len(losses.shape)))
        return ops.mean(losses, axis=positions) if positions else losses

    def stop_teacher_gradient(self, teacher: Tensor) -> Tensor:
        """Returns the teacher's output without gradient. A loss with a learned projection of it overrides this: the Distiller stops it before."""
        return ops.stop_gradient(teacher)

    def _masked(self, teacher, student, masks, sample_weight):
        """Leaves padded positions out, here by their weights. Returns teacher, student and sample weights."""
        return teacher, student, masking.position_weights(self, teacher, student, masks, sample_weight)

    def _prepared(self, teacher, student):
        """Returns both sides as float32 or wider, of one type, the teacher's without gradient."""
        teacher, student = at_least_float32(teacher), at_least_float32(student)
        if teacher.dtype != student.dtype:
            teacher, student = ops.cast(teacher, "float64"), ops.cast(student, "float64")
        return self.stop_teacher_gradient(teacher), student

    def validate_outputs(self, teacher_outputs: Tensors, student_outputs: Tensors) -> None:
        """Checks, before training, that the outputs can be compared.

        Args:
            teacher_outputs: One tensor, symbolic or real.
            student_outputs: One tensor, symbolic or real.

        Raises:
            ModelError: naming the loss and both shapes.
        """
        if isinstance(teacher_outputs, TopK):
            student = self._tensors(student_outputs, student_outputs)[1]
            self.check_shapes((*teacher_outputs.values.shape[:-1], student.shape[-1]), tuple(student.shape))
            return
        teacher, student = self._tensors(teacher_outputs, student_outputs)
        self.check_shapes(tuple(teacher.shape), tuple(student.shape))
        self.check_informative(tuple(teacher.shape), tuple(student.shape))

    def check_first_batch(self, teacher: np.ndarray, student: np.ndarray, activations: Activations = (None, None)) -> None:
        """Checks the values of the first batch.

        Args:
            teacher: NumPy array of the teacher's output.
            student: NumPy array of the student's output.
            activations: Names of the activations that made them, such as "softmax"; None where one is unknown.

        Raises:
            DataError: if a value is NaN or infinite.
            ConfigurationError: if the values contradict the settings of the loss, such as probabilities where logits are set.
        """
        for side, values in (("teacher", teacher), ("student", student)):
            bad = np.argwhere(~np.isfinite(np.asarray(values, "float64")))
            if len(bad):
                place = tuple(int(i) for i in bad[0])
                value = float(np.asarray(values)[place])
                raise DataError(
                    f"{type(self).__name__}: the {self._named(side)} holds {len(bad)} values that are not finite; the first is {value} at {place}.",
                    "finite values only",
                    "look for a wrong preprocessing, an overflow of float16, or a learning rate that is too high",
                )

    def scheduled(self, step: Tensor) -> dict[str, Tensor]:
        """Returns the values at a training step of the settings that are schedules: name -> scalar tensor."""
        return {name: self.value(name, step) for name in self.schedulable if schedules.is_schedule(getattr(self, name))}

    def value(self, name: str, step: Tensor | None, like: Tensor | None = None) -> Tensor:
        """Returns the value at `step` of the setting `name`, which may be a schedule, in the type of the tensor `like`."""
        value = schedules.value_at(getattr(self, name), step)
        return ops.cast(value, like.dtype) if like is not None and schedules.is_schedule(getattr(self, name)) else value

    # Parts of error messages

    def mismatch(
        self, teacher_shape: Shape, student_shape: Shape, expected: str, fix: str | None = None, kind: type[TfdistillError] = ModelError
    ) -> TfdistillError:
        """Returns an error of class `kind` that names the loss, both sides and their shapes, what is `expected`, and how to `fix` it."""
        return kind(
            f"{type(self).__name__}: the {self._named('teacher')} has the shape {teacher_shape}, the {self._named('student')} {student_shape}.",
            expected,
            fix,
        )

    def _named(self, side):
        layer = getattr(self, f"{side}_layer_name")
        return f"{side}'s final output" if layer is None else f"{side}'s layer '{layer}'"

    def _tensors(self, teacher_outputs, student_outputs):
        """Returns both sides as single tensors: lists and dictionaries of one output are unpacked."""
        pair = []
        for side, outputs in (("teacher", teacher_outputs), ("student", student_outputs)):
            if isinstance(outputs, (list, tuple, dict)):
                leaves = keras.tree.flatten(outputs)
                if len(leaves) != 1:
                    names = sorted(outputs) if isinstance(outputs, dict) else f"{len(leaves)} of them"
                    raise ModelError(
                        f"{type(self).__name__}: the {self._named(side)} has several tensors ({names}).",
                        "one tensor: a loss compares one output of each side",
                        "give one loss per output, by the output's name",
                    )
                outputs = leaves[0]
            pair.append(outputs if hasattr(outputs, "shape") else ops.convert_to_tensor(outputs))
        return pair
