"""What every loss of this library is.

A loss compares one output of the teacher with one of the student. It holds hyperparameters and nothing else; a learned projection that
it needs belongs to the Distiller, so that the exported student carries nothing of its training.
"""

import inspect

import keras
import numpy as np
from keras import ops

from tfdistill.errors import ConfigurationError, DataError, ModelError
from tfdistill.losses import checks, masking, schedules
from tfdistill.losses.reduction import at_least_float32, weighted_mean
from tfdistill.losses.top_k import TopK
from tfdistill.saveable import checks_config


class KnowledgeLoss(keras.distillation.DistillationLoss):
    """Base of the losses: what the teacher knows, against what the student says.

    A subclass gives `elementwise` (or, for a relation between samples, `batch_loss`), and keeps each argument of its constructor as an
    attribute of the same name: `get_config`, equality and `repr` are made from them.

    Args:
        teacher_layer: Name or path (`"encoder/block_2/attention"`) of the teacher's layer; None stands for its final output.
        student_layer: The same of the student.

    Raises:
        ConfigurationError: if a layer's name is neither None nor a non-empty string.
    """

    tap_kind = "output"
    """What of its layers the loss compares: "output", or "attention_scores" of attention layers."""
    needs_labels = False
    """Whether `compute_loss` must be given the labels of this output."""
    schedulable = ()
    """Names of the settings that may be schedules."""

    def __init__(self, teacher_layer=None, student_layer=None):
        owner = type(self).__name__
        self.teacher_layer = checks.layer_name(owner, "teacher_layer", teacher_layer)
        self.student_layer = checks.layer_name(owner, "student_layer", student_layer)

    @property
    def teacher_layer_name(self):
        """The teacher's layer; None stands for its final output. The name under which Keras's Distiller looks for it."""
        return self.teacher_layer

    @property
    def student_layer_name(self):
        """The student's layer; None stands for its final output. The name under which Keras's Distiller looks for it."""
        return self.student_layer

    # What a subclass defines

    def elementwise(self, teacher, student, step=None, labels=None):
        """Losses per sample and position.

        Args:
            teacher: `(batch, ...)`, float32 or wider, without gradient.
            student: `(batch, ...)`, float32 or wider.
            step: Training step, or None.
            labels: Labels of this output, or None; given to losses with `needs_labels`.

        Returns:
            `(batch,)`, or `(batch, positions...)`.
        """
        raise TypeError(f"{type(self).__name__} defines neither `elementwise` nor `batch_loss`.")

    def batch_loss(self, teacher, student, sample_weight=None, step=None, labels=None):
        """The loss of a batch; arguments as in `elementwise` and `weighted_mean`. Losses of relations between samples define it anew.

        Returns:
            Scalar.
        """
        return weighted_mean(self.elementwise(teacher, student, step=step, labels=labels), sample_weight)

    def top_k_loss(self, teacher, student, step=None):
        """Losses per sample and position where only the teacher's largest logits are known.

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

    def check_shapes(self, teacher_shape, student_shape):
        """Raises `ModelError` (use `self.mismatch`) unless the two shapes, tuples with None for what is unknown, can be compared.

        The default asks for equal shapes.
        """
        equal = len(teacher_shape) == len(student_shape) and all(
            t == s or t is None or s is None for t, s in zip(teacher_shape, student_shape, strict=True)
        )
        if not equal:
            raise self.mismatch(teacher_shape, student_shape, "equal shapes")

    def check_informative(self, teacher_shape, student_shape):
        """Raises `ModelError` where so few numbers are left to compare that the loss does not depend on the student. Before training only."""

    def projections(self, teacher_shape, student_shape):
        """Learned layers that make two features comparable. The Distiller owns them, builds them and applies them before `compute_loss`.

        The teacher's layer, where there is one, is to be applied after `stop_gradient`.

        Args:
            teacher_shape: Shape of the teacher's feature, a tuple with None for the batch and for what is unknown.
            student_shape: The same of the student's.

        Returns:
            A dictionary with an unbuilt `keras.layers.Layer` under "teacher", "student", both, or neither.

        Raises:
            ConfigurationError: if no projection can make them match.
        """
        return {}

    # What the Distiller calls

    def compute_loss(self, teacher_outputs, student_outputs, sample_weight=None, step=None, labels=None, **kwargs):
        """The loss of a batch.

        Padding masks that Keras attached to the outputs are read from them: positions that either side masks count for nothing, and the mean is over the others.

        Args:
            teacher_outputs: `(batch, ...)`; no gradient flows into it.
            student_outputs: `(batch, ...)`.
            sample_weight: None, `(batch,)`, or `(batch, T)` for losses with positions. The sum of weighted losses is divided by the batch size.
            step: Training step; needed where a setting is a schedule.
            labels: Labels of this output; needed where `needs_labels`.
            **kwargs: Not used; Keras's interface has them.

        Returns:
            Scalar, float32 or wider.

        Raises:
            ConfigurationError: if the step or the labels are needed and missing.
            ModelError: if the outputs are not one tensor each, or their shapes cannot be compared, or a padding mask has other positions.
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

    def per_sample(self, teacher, student, step=None, labels=None):
        """One loss per sample: the mean over its positions.

        Returns:
            `(batch,)`.

        Raises:
            ConfigurationError: for a loss of relations between samples, which has no value for one of them.
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

    def hold_teacher(self, teacher):
        """Keeps the gradient out of the teacher. A loss that trains a projection of the teacher's feature leaves that to the Distiller."""
        return ops.stop_gradient(teacher)

    def _masked(self, teacher, student, masks, sample_weight):
        """Leaves padded positions out. Here each has a loss of its own, which the weights leave out. Returns teacher, student and sample weights."""
        return teacher, student, masking.position_weights(self, teacher, student, masks, sample_weight)

    def _prepared(self, teacher, student):
        """Both sides as float32 or wider, of one type, the teacher's without gradient."""
        teacher, student = at_least_float32(teacher), at_least_float32(student)
        if teacher.dtype != student.dtype:
            teacher, student = ops.cast(teacher, "float64"), ops.cast(student, "float64")
        return self.hold_teacher(teacher), student

    def validate_outputs(self, teacher_outputs, student_outputs):
        """Checks that the outputs can be compared.

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
        shapes = [tuple(side.shape) for side in self._tensors(teacher_outputs, student_outputs)]
        self.check_shapes(*shapes)
        self.check_informative(*shapes)

    def check_first_batch(self, teacher, student):
        """Checks the values of the first batch.

        Args:
            teacher: NumPy array of the teacher's output.
            student: NumPy array of the student's.

        Raises:
            DataError: if a value is NaN or infinite.
            ConfigurationError: if the values cannot be what the loss was told they are.
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

    def scheduled(self, step):
        """Present values of the settings that are schedules.

        Args:
            step: Training step.

        Returns:
            Name of the setting -> scalar tensor.
        """
        return {name: self.value(name, step) for name in self.schedulable if schedules.is_schedule(getattr(self, name))}

    def value(self, name, step, like=None):
        """The value at `step` of a setting that may be a schedule, in the type of the tensor `like`."""
        value = schedules.value_at(getattr(self, name), step)
        return ops.cast(value, like.dtype) if like is not None and schedules.is_schedule(getattr(self, name)) else value

    # Configuration

    @classmethod
    def _settings(cls):
        return list(inspect.signature(cls).parameters)

    def get_config(self):
        """Returns the constructor's arguments, schedules serialized."""
        values = {name: getattr(self, name) for name in self._settings()}
        return {name: keras.saving.serialize_keras_object(v) if schedules.is_schedule(v) else v for name, v in values.items()}

    @classmethod
    @checks_config
    def from_config(cls, config):
        """Makes the loss from what `get_config` returned."""
        revive = keras.saving.deserialize_keras_object
        return cls(**{name: revive(v) if isinstance(v, dict) and "class_name" in v else v for name, v in config.items()})

    def __repr__(self):
        given = ((name, getattr(self, name)) for name in self._settings())
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in given if not (name.endswith('_layer') and value is None))})"

    def __eq__(self, other):
        return type(self) is type(other) and self.get_config() == other.get_config()

    def __hash__(self):
        return hash(repr(self))

    # Words for errors

    def mismatch(self, teacher_shape, student_shape, expected, fix=None, kind=ModelError):
        """Makes an error that names the loss, both sides and their shapes."""
        return kind(
            f"{type(self).__name__}: the {self._named('teacher')} has the shape {teacher_shape}, the {self._named('student')} {student_shape}.",
            expected,
            fix,
        )

    def _named(self, side):
        layer = getattr(self, f"{side}_layer")
        return f"{side}'s final output" if layer is None else f"{side}'s layer '{layer}'"

    def _tensors(self, teacher_outputs, student_outputs):
        """Both sides as single tensors: models with one output in a list or dictionary are unpacked."""
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
