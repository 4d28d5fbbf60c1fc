"""NaN and infinity during training: recorded on the device, read every few steps, and kept out of the student's weights."""

import itertools
import warnings

import keras
import tensorflow as tf
from keras import ops

from tfdistill.errors import DataError
from tfdistill.graph.training import metrics_of_labels, results_without_labels

# What is checked in a step, in the order of causes.
PARTS = ("teacher", "student", "loss", "gradients")
# Steps between two readings of the record: each waits for the device.
CHECK_EVERY = 50


class FirstNonFinite(keras.metrics.Metric):
    """Records the first step of an epoch in which something was NaN or infinite. It adds nothing to the logs.

    Args:
        name: Name of the metric.
    """

    def __init__(self, name="first_non_finite"):
        super().__init__(name=name)
        # Number of steps; then of the first bad one: its number, 1, and a 1 for each part that was bad. Replicas are summed.
        self.counts = self.add_variable(shape=(3 + len(PARTS),), initializer="zeros", name="counts")

    def record(self, teacher_outputs, student_outputs, loss, gradients):
        """Records one step.

        Args:
            teacher_outputs: Structure of tensors, or None.
            student_outputs: Structure of tensors.
            loss: Scalar.
            gradients: List of the student's gradients, None where there is none.

        Returns:
            Boolean scalar, True if all is finite.
        """
        gradients = [g.values if isinstance(g, tf.IndexedSlices) else g for g in gradients]
        bad = [ops.logical_not(_all_finite(part)) for part in (teacher_outputs, student_outputs, ops.convert_to_tensor(loss), gradients)]
        any_bad = ops.any(ops.stack(bad))
        counts = ops.convert_to_tensor(self.counts)
        fresh = ops.cast(ops.logical_and(any_bad, counts[2] == 0), counts.dtype)
        rows = [1.0, fresh * (counts[0] + 1.0), fresh, *(fresh * ops.cast(part, counts.dtype) for part in bad)]
        self.counts.assign_add(ops.stack([ops.cast(row, counts.dtype) for row in rows]))
        return ops.logical_not(any_bad)

    def update_state(self, *args, **kwargs):
        """Does nothing: see `record`."""

    def result(self):
        return {}

    def found(self):
        """Reads the record, which waits for the device.

        Returns:
            None, or the number of the first bad step of the epoch (from 1) and the set of parts that were bad in it.
        """
        _, step, count, *parts = ops.convert_to_numpy(self.counts)
        return (round(float(step / count)), {name for name, bad in zip(PARTS, parts, strict=True) if bad}) if count else None


def _all_finite(structure):
    leaves = [leaf for leaf in keras.tree.flatten(structure) if leaf is not None and hasattr(leaf, "dtype")]
    leaves = [leaf for leaf in leaves if "float" in keras.backend.standardize_dtype(leaf.dtype)]
    return ops.all(ops.stack([ops.all(ops.isfinite(leaf)) for leaf in leaves])) if leaves else ops.convert_to_tensor(True)


def zeros_unless(finite, gradients):
    """Returns the gradients where `finite` is true, else zeros, so that a step that is not finite leaves no NaN in the weights."""
    return [_zero_unless(finite, gradient) for gradient in gradients]


def _zero_unless(finite, gradient):
    if gradient is None:
        return None
    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(_zero_unless(finite, gradient.values), gradient.indices, gradient.dense_shape)
    return tf.where(finite, gradient, tf.zeros_like(gradient))


def message(found, teacher, student, losses):
    """Words the error or warning about a step that was not finite.

    Args:
        found: What `FirstNonFinite.found` returned.
        teacher: Name of the teacher.
        student: Name of the student.
        losses: Dict of a loss's name to its mean over the epoch.

    Returns:
        What happened, what was expected, and the fix.
    """
    step, parts = found
    where = f"in step {step} of this epoch"
    kept = "Steps that are not finite change no weights, so the student is still usable."
    if {"teacher", "student"} <= parts:
        return (
            f"Teacher '{teacher}' and student '{student}' both answered NaN or infinity {where}. {kept}",
            "finite numbers",
            "look at the inputs of that batch: they are the one thing that both models share; clean the data",
        )
    if "teacher" in parts:
        return (
            f"The teacher '{teacher}' answered NaN or infinity {where}. {kept}",
            "finite numbers from the teacher for every batch",
            "look at the batch, at the teacher's weights, and at overflow if the teacher computes in float16",
        )
    bad = [name for name, value in losses.items() if not tf.math.is_finite(value)]
    if "student" in parts:
        what = f"The student '{student}' answered NaN or infinity"
    elif "loss" in parts:
        what = f"The loss was NaN or infinite ({', '.join(bad) or 'the sum'}), though both models' answers were finite,"
    else:
        what = "The gradients were NaN or infinite, though the loss was finite,"
    return (
        f"{what} {where}. {kept}",
        "a finite loss",
        "look for NaN in the inputs of that batch, and at what is compared; lower the learning rate or clip gradients (clipnorm)",
    )


class NonFiniteChecks:
    """Mixin of a `keras.Model` that records each step in `self.first_non_finite` and has `teacher`, `student` and their loss trackers."""

    _last_reported = None

    def make_train_function(self, force=False):
        if self.train_function is None or force:
            super().make_train_function(force)
            self.train_function = self._with_checks(self.train_function)
        return self.train_function

    def _with_checks(self, step):
        calls = itertools.count(1)

        def checked_step(iterator):
            logs = step(iterator)
            if next(calls) % CHECK_EVERY == 0:
                self._report_non_finite()
            return logs

        return checked_step

    def get_metrics_result(self):
        # Keras calls this inside each step while it is traced, and once more when an epoch ends, before validation and callbacks.
        if tf.executing_eagerly():
            self._report_non_finite()
        labels = metrics_of_labels(self)
        # A metric that no batch had labels for has no result.
        return super().get_metrics_result() if labels is None or labels.built else results_without_labels(self)

    def _report_non_finite(self):
        """Raises a `DataError` if the teacher was not finite in this epoch; warns if the student or the loss was not."""
        found = self.first_non_finite.found()
        if found is None or found == self._last_reported:
            return
        losses = {m.name: m.result() for m in (self.student_loss_tracker, self.distillation_loss_tracker)}
        happened, expected, fix = message(found, self.teacher.name, self.student.name, losses)
        if "teacher" in found[1]:
            raise DataError(happened, expected, fix)
        self._last_reported = found
        warnings.warn(f"{happened} Fix: {fix}.", stacklevel=2)
