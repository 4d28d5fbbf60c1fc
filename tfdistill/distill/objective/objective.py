"""The distillation loss of one step: forward passes of both models, what each loss compares, and the weighted sum of the losses."""

import collections

import keras
import numpy as np

from tfdistill.distill.objective import compatibility, first_batch
from tfdistill.distill.objective.batch import StudentTaps, inputs_of
from tfdistill.distill.objective.projections import Projections
from tfdistill.distill.objective.taps import Taps
from tfdistill.distill.objective.terms import select_output, select_weight
from tfdistill.distill.teachers.ensemble import Ensemble
from tfdistill.graph.functional import final_activations
from tfdistill.losses import masking
from tfdistill.losses.schedules import is_schedule

ForwardOutputs = collections.namedtuple("ForwardOutputs", ["y_pred", "student_features", "teacher_outputs", "teacher_features"])
ForwardOutputs.__doc__ = """The outputs of one forward pass of both models.

Attributes:
    y_pred: The student's final outputs.
    student_features: Dict of `Tap` to the output of the student's tapped layer.
    teacher_outputs: The teacher's final outputs.
    teacher_features: Dict of `Tap` to the output of the teacher's tapped layer.
"""


class DistillationObjective:
    """The terms of a distillation loss, with the taps and projections that they need.

    Args:
        teacher: A `keras.Model`.
        student: A `keras.Model`.
        terms: List of `Term`s.

    Raises:
        ModelError: if a tapped layer does not exist, or features cannot be compared.
    """

    def __init__(self, teacher, student, terms):
        self.teacher, self.student, self.terms = teacher, student, terms
        self.teacher_taps = Taps(teacher, [t.teacher_tap for t in terms if t.teacher_tap], "teacher")
        self.student_taps = StudentTaps(student, [t.student_tap for t in terms if t.student_tap], "student")
        self.projections = Projections()
        self.shapes_known = self._make_projections_early()

    def _make_projections_early(self):
        """Compares features and makes the projections if shapes are known without data, as those of functional models are.

        Returns:
            True if that is done, or there is nothing to do.
        """
        if all(t.compares_final_outputs for t in self.terms):
            return True
        specs = [compatibility.input_spec(m) for m in (self.teacher, self.student)]
        if None in specs:
            return False
        teacher, student = (
            compatibility.output_specs(taps, spec) for taps, spec in zip((self.teacher_taps, self.student_taps), specs, strict=True)
        )
        self._check_pairs(ForwardOutputs(*student, *teacher))
        return True

    def _check_pairs(self, outputs):
        for index, term in enumerate(self.terms):
            teacher, student = self._pair(term, outputs)
            if hasattr(teacher, "shape") and hasattr(student, "shape"):
                teacher, student = self.projections.make(index, term, teacher, student)
            term.loss.validate_outputs(teacher, student)

    def _pair(self, term, outputs):
        """Returns what a term compares, of the teacher and of the student: tapped features, or final outputs."""
        if term.teacher_tap:
            teacher = outputs.teacher_features[term.teacher_tap]
        else:
            teacher = select_output(outputs.teacher_outputs, term.output, self.teacher, "teacher")
        if term.student_tap:
            return teacher, outputs.student_features[term.student_tap]
        return teacher, select_output(outputs.y_pred, term.output, self.student, "student")

    def check_first_batch(self, x):
        """Runs both models on a first batch, without training anything, and checks their outputs and features.

        Args:
            x: Inputs.

        Returns:
            `ForwardOutputs`, in inference mode.

        Raises:
            DataError: if the teacher's outputs hold NaN or infinity.
            ModelError: if outputs or features cannot be compared.
            ConfigurationError: if they are not what a loss takes, for example probabilities instead of logits.
        """
        if not self.student.built:
            # Building runs the layers once more, which must not happen while they are tapped.
            self.student(inputs_of(x), training=False)
        outputs = ForwardOutputs(*self.student_taps(x, training=False), *self.teacher_taps(x, training=False))
        if isinstance(self.teacher, Ensemble):
            self.teacher.check_members(inputs_of(x))
        for value in keras.tree.flatten(outputs.teacher_outputs):
            first_batch.refuse_nonfinite(
                value, f"The teacher '{self.teacher.name}' answers %s to the first batch.", "look at its weights and its inputs"
            )
        self._check_pairs(outputs)
        for term in self.terms:
            pair = self._pair(term, outputs)
            if all(hasattr(side, "dtype") for side in pair):
                term.loss.check_first_batch(*(np.asarray(keras.ops.convert_to_numpy(side)) for side in pair), self._activations(term))
        return outputs

    def _activations(self, term):
        """Returns the names of the activations that make what a term compares, of the teacher and of the student; None where one is unknown."""
        sides = ((self.teacher, self.teacher_taps, term.teacher_tap), (self.student, self.student_taps, term.student_tap))
        return tuple(taps.activation_of(tap) if tap else final_activations(model).get(term.output) for model, taps, tap in sides)

    def loss(self, outputs, y, sample_weight, step):
        """Computes the weighted sum of all terms.

        Args:
            outputs: `ForwardOutputs`.
            y: Labels, for the losses that need them.
            sample_weight: `(batch,)`, a structure of them for the outputs, or None.
            step: Training step, for schedules.

        Returns:
            Scalar.
        """
        total = 0.0
        for index, term in enumerate(self.terms):
            pair = self._pair(term, outputs)
            projected = self.projections.apply(index, *pair)
            # A projection maps each position by itself, so the mask stays the same.
            teacher, student = (
                x if x is own else masking.with_mask(x, masking.mask_of(own)) for x, own in zip(projected, pair, strict=True)
            )
            extra = {"labels": select_output(y, term.output, self.student, "labels of the student")} if term.loss.needs_labels else {}
            weight = select_weight(sample_weight, term, self.student)
            total += term.weight_at(step) * term.loss.compute_loss(teacher, student, sample_weight=weight, step=step, **extra)
        return total

    def scheduled(self, step):
        """Returns the values of all schedules at a step, for the logs; their names are numbered where there are several losses."""
        values = {}
        for index, term in enumerate(self.terms):
            own = dict(term.loss.scheduled(step))
            if is_schedule(term.weight):
                own["weight"] = term.weight_at(step)
            values.update({name if len(self.terms) == 1 else f"{name}_{index}": value for name, value in own.items()})
        return values
