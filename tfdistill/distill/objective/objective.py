"""What a teacher tells a student in one step: both forward passes, what each loss compares, and the sum of the losses."""

import collections

import keras
import numpy as np

from tfdistill.distill.objective import compatibility, first_batch
from tfdistill.distill.objective.batch import StudentTaps, inputs_of
from tfdistill.distill.objective.projections import Projections
from tfdistill.distill.objective.taps import Taps
from tfdistill.distill.objective.terms import select_output, select_weight
from tfdistill.distill.teachers.ensemble import Ensemble
from tfdistill.losses import masking
from tfdistill.losses.schedules import is_schedule

# What one pass of both models gave: (y_pred, dict of tap to feature) of the student, and the same of the teacher.
ForwardOutputs = collections.namedtuple("ForwardOutputs", ["y_pred", "student_features", "teacher_outputs", "teacher_features"])


class DistillationObjective:
    """The terms of a distiller's loss, with the taps and projections that they need.

    Args:
        teacher: The teacher.
        student: The student.
        terms: List of `Term`s.

    Raises:
        ModelError: if a tapped layer does not exist, or features cannot be compared.
    """

    def __init__(self, teacher, student, terms):
        self.teacher, self.student, self.terms = teacher, student, terms
        self.ask_teacher = Taps(teacher, [t.teacher_tap for t in terms if t.teacher_tap], "teacher")
        self.ask_student = StudentTaps(student, [t.student_tap for t in terms if t.student_tap], "student")
        self.projections = Projections()
        self.shapes_known = self._make_projections_early()

    def _make_projections_early(self):
        """Checks features against each other and makes the projections if the shapes are known without data, as they are of symbolic models.

        Returns:
            Whether that is done, or there is nothing to do.
        """
        if all(t.wants_final_outputs for t in self.terms):
            return True
        specs = [compatibility.input_spec(m) for m in (self.teacher, self.student)]
        if None in specs:
            return False
        told, said = (
            compatibility.output_specs(taps, spec) for taps, spec in zip((self.ask_teacher, self.ask_student), specs, strict=True)
        )
        self._check_pairs(ForwardOutputs(*said, *told))
        return True

    def _check_pairs(self, both):
        for index, term in enumerate(self.terms):
            teacher, student = self._pair(term, both)
            if hasattr(teacher, "shape") and hasattr(student, "shape"):
                teacher, student = self.projections.make(index, term, teacher, student)
            term.loss.validate_outputs(teacher, student)

    def _pair(self, term, both):
        """What a term compares: tapped features, or final outputs."""
        if term.teacher_tap:
            teacher = both.teacher_features[term.teacher_tap]
        else:
            teacher = select_output(both.teacher_outputs, term.output, self.teacher, "teacher")
        if term.student_tap:
            return teacher, both.student_features[term.student_tap]
        return teacher, select_output(both.y_pred, term.output, self.student, "student")

    def check_first_batch(self, x):
        """Runs both models on a first batch, without training anything, and raises what is wrong with them or with what is compared.

        Args:
            x: Inputs.

        Returns:
            `ForwardOutputs`: what both models answered.

        Raises:
            DataError: if the teacher answers NaN.
            ModelError: if outputs or features cannot be compared.
            ConfigurationError: if they are not what a loss was told, for example probabilities instead of logits.
        """
        if not self.student.built:
            self.student(inputs_of(x), training=False)  # building runs the layers once more: not while they are listened to
        both = ForwardOutputs(*self.ask_student(x, training=False), *self.ask_teacher(x, training=False))
        if isinstance(self.teacher, Ensemble):
            self.teacher.check_answers(inputs_of(x))
        for value in keras.tree.flatten(both.teacher_outputs):
            first_batch.refuse_nonfinite(
                value, f"The teacher '{self.teacher.name}' answers %s to the first batch.", "look at its weights and its inputs"
            )
        self._check_pairs(both)
        for term in self.terms:
            pair = self._pair(term, both)
            if all(hasattr(side, "dtype") for side in pair):
                term.loss.check_first_batch(*(np.asarray(keras.ops.convert_to_numpy(side)) for side in pair))
        return both

    def loss(self, both, y, sample_weight, step):
        """Weighted sum of all terms.

        Args:
            both: `ForwardOutputs`.
            y: Labels, for the losses that need them.
            sample_weight: `(batch,)`, a structure of them for the outputs, or None.
            step: Training step, for schedules.

        Returns:
            Scalar.
        """
        total = 0.0
        for index, term in enumerate(self.terms):
            pair = self._pair(term, both)
            projected = self.projections.apply(index, *pair)
            # A projection maps each position by itself, so the positions that count stay the same.
            teacher, student = (
                x if x is own else masking.with_mask(x, masking.mask_of(own)) for x, own in zip(projected, pair, strict=True)
            )
            extra = {"labels": select_output(y, term.output, self.student, "labels of the student")} if term.loss.needs_labels else {}
            weight = select_weight(sample_weight, term, self.student)
            total += term.weight_at(step) * term.loss.compute_loss(teacher, student, sample_weight=weight, step=step, **extra)
        return total

    def scheduled(self, step):
        """Present values of all schedules, for the logs; numbered where there are several losses."""
        values = {}
        for index, term in enumerate(self.terms):
            own = dict(term.loss.scheduled(step))
            if is_schedule(term.weight):
                own["weight"] = term.weight_at(step)
            values.update({name if len(self.terms) == 1 else f"{name}_{index}": value for name, value in own.items()})
        return values
