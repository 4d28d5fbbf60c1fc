"""NaN and infinity while a student is trained: noted on the device, looked at now and then, and kept out of the student."""

import itertools
import warnings

import keras
import tensorflow as tf
from keras import ops

from tfdistill.errors import DataError

# What is looked at in a step, in the order of causes.
PARTS = ("teacher", "student", "loss", "gradients")
# Steps between two looks at the notes: each waits for the device.
LOOK_EVERY = 50


class FirstNonFinite(keras.metrics.Metric):
    """The first step of an epoch in which something was NaN or infinite. It has no part in the logs.

    Args:
        name: Name of the metric.
    """

    def __init__(self, name="first_non_finite"):
        super().__init__(name=name)
        # Steps so far; then of the first bad one: its number, 1, and a 1 for each part that was bad. Replicas are summed.
        self.notes = self.add_variable(shape=(3 + len(PARTS),), initializer="zeros", name="notes")

    def note(self, teacher_outputs, student_outputs, loss, gradients):
        """Notes one step.

        Args:
            teacher_outputs: Structure of tensors, or None.
            student_outputs: Structure of tensors.
            loss: Scalar.
            gradients: List of the student's gradients, None where there is none.

        Returns:
            Boolean scalar: whether all is finite.
        """
        gradients = [g.values if isinstance(g, tf.IndexedSlices) else g for g in gradients]
        bad = [ops.logical_not(_all_finite(part)) for part in (teacher_outputs, student_outputs, ops.convert_to_tensor(loss), gradients)]
        any_bad = ops.any(ops.stack(bad))
        notes = ops.convert_to_tensor(self.notes)
        fresh = ops.cast(ops.logical_and(any_bad, notes[2] == 0), notes.dtype)
        rows = [1.0, fresh * (notes[0] + 1.0), fresh, *(fresh * ops.cast(part, notes.dtype) for part in bad)]
        self.notes.assign_add(ops.stack([ops.cast(row, notes.dtype) for row in rows]))
        return ops.logical_not(any_bad)

    def update_state(self, *args, **kwargs):
        """Nothing: see `note`."""

    def result(self):
        return {}

    def found(self):
        """Reads the notes, which waits for the device.

        Returns:
            None, or the number of the first bad step of the epoch (from 1) and the set of parts that were bad in it.
        """
        _, step, count, *parts = ops.convert_to_numpy(self.notes)
        return (round(float(step / count)), {name for name, bad in zip(PARTS, parts, strict=True) if bad}) if count else None


def _all_finite(structure):
    leaves = [leaf for leaf in keras.tree.flatten(structure) if leaf is not None and hasattr(leaf, "dtype")]
    leaves = [leaf for leaf in leaves if "float" in keras.backend.standardize_dtype(leaf.dtype)]
    return ops.all(ops.stack([ops.all(ops.isfinite(leaf)) for leaf in leaves])) if leaves else ops.convert_to_tensor(True)


def kept_where(finite, gradients):
    """Gradients where `finite` is true, else zeros, so that a step that is not finite leaves no NaN in the weights."""
    return [_kept(finite, gradient) for gradient in gradients]


def _kept(finite, gradient):
    if gradient is None:
        return None
    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(_kept(finite, gradient.values), gradient.indices, gradient.dense_shape)
    return tf.where(finite, gradient, tf.zeros_like(gradient))


def message(found, teacher, student, losses):
    """What to say about a step that was not finite.

    Args:
        found: What `FirstNonFinite.found` returned.
        teacher: Name of the teacher.
        student: Name of the student.
        losses: Dict of a loss's name to its mean over the epoch.

    Returns:
        What happened, what was expected, and what to do.
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


class LooksForNonFinite:
    """Mixin of a `keras.Model` that notes each step in `self.first_non_finite` and has `teacher`, `student` and their loss trackers."""

    _last_said = None

    def make_train_function(self, force=False):
        if self.train_function is None or force:
            super().make_train_function(force)
            self.train_function = self._looking_now_and_then(self.train_function)
        return self.train_function

    def _looking_now_and_then(self, step):
        calls = itertools.count(1)

        def looking_step(iterator):
            logs = step(iterator)
            if next(calls) % LOOK_EVERY == 0:
                self._say_what_is_not_finite()
            return logs

        return looking_step

    def get_metrics_result(self):
        # Keras asks for the logs inside each step, and once more when an epoch ends, before validation and callbacks.
        if tf.executing_eagerly():
            self._say_what_is_not_finite()
        return super().get_metrics_result()

    def _say_what_is_not_finite(self):
        """Raises a `DataError` if the teacher was not finite in this epoch; warns if the student or the loss was not, from which Keras goes on."""
        found = self.first_non_finite.found()
        if found is None or found == self._last_said:
            return
        losses = {m.name: m.result() for m in (self.student_loss_tracker, self.distillation_loss_tracker)}
        happened, expected, fix = message(found, self.teacher.name, self.student.name, losses)
        if "teacher" in found[1]:
            raise DataError(happened, expected, fix)
        self._last_said = found
        warnings.warn(f"{happened} Fix: {fix}.", stacklevel=2)
