"""The distillation losses of a Distiller as a list of terms: one loss, its weight, and what it compares."""

import collections.abc
import dataclasses
import warnings
from typing import Any

import keras
from keras import ops
from keras.distillation import DistillationLoss, FeatureDistillation, LogitsDistillation

from tfdistill.distill.objective.taps import OUTPUT, Tap
from tfdistill.errors import ConfigurationError, ModelError, nearest
from tfdistill.losses import KnowledgeLoss, masking
from tfdistill.losses.schedules import is_schedule, value_at
from tfdistill.utils import validate


@dataclasses.dataclass(frozen=True)
class Term:
    """One distillation loss with its weight.

    Attributes:
        loss: A `KnowledgeLoss`, or a `KerasLossAdapter` around any other Keras loss.
        weight: Number or schedule.
        output: Name of the model output that the loss compares, or None for the only one.
        teacher_tap: The teacher's layer that is compared, or None for its final output.
        student_tap: The same of the student.
    """

    loss: Any
    weight: Any
    output: str | None
    teacher_tap: Tap | None
    student_tap: Tap | None

    @property
    def compares_final_outputs(self):
        return self.teacher_tap is None and self.student_tap is None

    def weight_at(self, step):
        return value_at(self.weight, step)


class KerasLossAdapter:
    """Gives any other `keras.distillation.DistillationLoss` the methods of a `KnowledgeLoss`.

    Such a loss returns one scalar for the batch, so it cannot weigh samples or leave out padding: it warns of that once.
    """

    needs_labels = False
    tap_kind = OUTPUT

    def __init__(self, loss):
        self.loss = loss
        self.teacher_layer_name = getattr(loss, "teacher_layer_name", None)
        self.student_layer_name = getattr(loss, "student_layer_name", None)
        self._warned_of_weights = self._warned_of_masks = False

    def projections(self, teacher_shape, student_shape):
        return {}

    def validate_outputs(self, teacher_outputs, student_outputs):
        shapes = [getattr(outputs, "shape", None) for outputs in (teacher_outputs, student_outputs)]
        if isinstance(self.loss, FeatureDistillation) and None not in shapes:
            self._check_equal(*map(tuple, shapes))
        self.loss.validate_outputs(teacher_outputs, student_outputs)

    def _check_equal(self, teacher, student):
        """Refuses features of unequal shapes, with the loss that compares them."""
        # A known size of 1 would be broadcast.
        if len(teacher) == len(student) and all(t == s or None in (t, s) for t, s in zip(teacher, student, strict=True)):
            return
        names = (self.teacher_layer_name, self.student_layer_name)
        sides = [
            f"{side}'s {'final output' if name is None else f'layer {name!r}'}"
            for side, name in zip(("teacher", "student"), names, strict=True)
        ]
        raise ModelError(
            f"keras.distillation.FeatureDistillation: the {sides[0]} has the shape {teacher}, the {sides[1]} {student}.",
            "equal shapes, which this loss needs",
            f"use tfdistill.losses.Hint({', '.join(map(repr, names))}), which learns a projection where the widths differ, and pools where the sizes do",
        )

    def check_first_batch(self, teacher_outputs, student_outputs, activations=(None, None)):
        pass

    def scheduled(self, step):
        return {}

    def compute_loss(self, teacher_outputs, student_outputs, sample_weight=None, step=None, labels=None):
        name = type(self.loss).__name__
        if sample_weight is not None and not self._warned_of_weights:
            self._warned_of_weights = True
            warnings.warn(
                f"{name} gives one figure for the whole batch, so sample_weight and class_weight do not reach it; they weigh the student's own "
                "loss only. The losses of tfdistill.losses weigh every sample.",
                stacklevel=2,
            )
        if not self._warned_of_masks and any(masking.mask_of(x) is not None for x in (teacher_outputs, student_outputs)):
            self._warned_of_masks = True
            warnings.warn(
                f"{name} gives one figure for the whole batch, so the padding mask of the outputs does not reach it: padded positions are distilled like the "
                "others. The losses of tfdistill.losses leave them out.",
                stacklevel=2,
            )
        value = self.loss.compute_loss(teacher_outputs, student_outputs)
        if len(getattr(value, "shape", ())) > 0:
            raise ModelError(f"{name}.compute_loss returned a tensor of shape {tuple(value.shape)}.", "a scalar")
        return value


def make_terms(losses, weights):
    """Converts the losses and weights of a `Distiller` to one list of `Term`s.

    Args:
        losses: A distillation loss, a list of them, or a dict of output name to a loss or a list of losses.
        weights: None (all 1), a number or schedule for a single loss, or the same structure as `losses`.

    Returns:
        The terms, and the flat lists of the losses and weights as they were given.

    Raises:
        ConfigurationError: if a loss is none, weights do not match, or a weight is negative or not a number.
    """
    if losses is None:
        raise ConfigurationError(
            "'distillation_losses' cannot be `None`.", "a distillation loss such as tfdistill.losses.SoftTargets(4.0), or a list of them"
        )
    if isinstance(losses, collections.abc.Mapping):
        rows = [(name, *row) for name in losses for row in _pairs(losses[name], _of_output(weights, losses, name))]
    else:
        rows = [(None, *row) for row in _pairs(losses, weights)]
    if not rows:
        raise ConfigurationError("'distillation_losses' is empty.", "at least one distillation loss")
    terms = [_term(output, loss, weight) for output, loss, weight in rows]
    _warn_of_raw_logits([loss for _, loss, _ in rows])
    return terms, [loss for _, loss, _ in rows], [weight for _, _, weight in rows]


def _of_output(weights, losses, name):
    if weights is None:
        return None
    if not isinstance(weights, collections.abc.Mapping) or set(weights) - set(losses):
        raise ConfigurationError(
            f"distillation_loss_weights is {weights!r}, but distillation_losses has the outputs {sorted(losses)}.",
            "a dict whose keys are among these outputs",
        )
    return weights.get(name)


def _pairs(losses, weights):
    single = not isinstance(losses, (list, tuple))
    losses = [losses] if single else list(losses)
    if weights is None:
        weights = [1.0] * len(losses)
    elif single and not isinstance(weights, (list, tuple)):
        weights = [weights]
    if not isinstance(weights, (list, tuple)) or len(weights) != len(losses):
        count = len(weights) if isinstance(weights, (list, tuple)) else 1
        raise ConfigurationError(
            f"Number of distillation_loss_weights ({count}) must match number of distillation_losses ({len(losses)}).",
            "one weight for each loss, in the same order",
        )
    return zip(losses, weights, strict=True)


def _term(output, loss, weight):
    if not isinstance(loss, DistillationLoss):
        raise ConfigurationError(
            f"A distillation loss is {loss!r}, a {type(loss).__name__}.",
            "an object of tfdistill.losses, or another keras.distillation.DistillationLoss",
        )
    if not is_schedule(weight) and not (validate.is_number(weight) and 0 <= weight < float("inf")):
        raise ConfigurationError(f"The weight of {type(loss).__name__} is {weight!r}.", "a finite number of at least 0, or a schedule")
    known = loss if isinstance(loss, KnowledgeLoss) else KerasLossAdapter(loss)
    return Term(
        loss=known,
        weight=weight,
        output=output,
        teacher_tap=Tap(known.teacher_layer_name, known.tap_kind) if known.teacher_layer_name else None,
        student_tap=Tap(known.student_layer_name, known.tap_kind) if known.student_layer_name else None,
    )


def _warn_of_raw_logits(losses):
    """Warns where Keras's LogitsDistillation will apply a loss of probabilities to raw logits."""
    for loss in losses:
        if isinstance(loss, LogitsDistillation) and keras.losses.kl_divergence in keras.tree.flatten(loss.loss):
            warnings.warn(
                f"keras.distillation.LogitsDistillation(temperature={loss.temperature}) with the loss 'kl_divergence' computes on raw logits, not on "
                "probabilities: it is no KL divergence, can be negative, and students learn far less from it. Use tfdistill.losses.SoftTargets("
                f"{loss.temperature}), or give it loss=keras.losses.KLDivergence().",
                stacklevel=5,
            )
            return


def select_output(outputs, name, model, role):
    """Takes the output called `name` out of a model's outputs.

    Args:
        outputs: Tensor, list or dict of tensors.
        name: Output name, or None for all outputs.
        model: The model, for its `output_names`.
        role: "teacher" or "student", for the error.

    Raises:
        ModelError: if there is no such output, with the nearest names.
    """
    if name is None:
        return outputs
    if isinstance(outputs, collections.abc.Mapping):
        named = outputs
    else:
        flat = keras.tree.flatten(outputs)
        named = dict(zip(getattr(model, "output_names", None) or [], flat, strict=False))
    if name not in named:
        raise ModelError(
            f"The {role} '{model.name}' has no output called '{name}'.", fix=f"use one of its output names. {nearest(name, named)}"
        )
    return named[name]


def by_name(values, model):
    """Returns a list of values for a model's several outputs as a dict of output name to value; anything else as it is."""
    names = getattr(model, "output_names", None) or []
    if isinstance(values, (list, tuple)) and len(values) == len(names) > 1:
        return dict(zip(names, values, strict=True))
    return values


def select_weight(sample_weight, term, model):
    """Chooses the sample weights of what a term compares.

    A term of one output has that output's weights. A term of a hidden layer has for each sample the mean of the sample's weights for the
    outputs: Keras turns one array for all outputs into equal arrays for each, and their mean is that array.

    Args:
        sample_weight: None, one tensor for all outputs, or a list or dict of them (or None) for each output, as `keras.Model.fit` takes
            them.
        term: `Term`.
        model: The student, for its `output_names`.

    Returns:
        One tensor, or None.

    Raises:
        ModelError: if there are weights for several outputs, and none for that of the term.
    """
    if not isinstance(sample_weight, (list, tuple, collections.abc.Mapping)):
        return sample_weight
    leaves = keras.tree.flatten(sample_weight)
    if len(leaves) == 1:
        return leaves[0]
    if term.output is not None:
        return select_output(sample_weight, term.output, model, "sample weights of the student")
    if all(leaf is None for leaf in leaves):
        return None
    per_sample = [1.0 if leaf is None else _per_sample(leaf) for leaf in leaves]
    return sum(per_sample[1:], per_sample[0]) / len(per_sample)


def _per_sample(weight):
    weight = ops.cast(weight, "float32")
    return ops.mean(weight, axis=tuple(range(1, len(weight.shape)))) if len(weight.shape) > 1 else weight
