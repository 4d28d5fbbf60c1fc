"""A look at the labels of the first batch: does the loss fit the student's outputs, do the reports fit the task, does the teacher know more than chance?"""

import math
import warnings

import keras
import numpy as np

from tfdistill.distill.objective.label_loss import losses_by_output, warn_of_wrong_space
from tfdistill.distill.objective.terms import by_name

# How improbable it must be that a teacher is better in training mode by chance, before that is said.
IMPROBABLE = 1e-3


def check_labels(distiller, batch, both):
    """Looks at a first batch with the answers of both models.

    Args:
        distiller: A compiled `Distiller`.
        batch: `(x, y, sample_weight)`.
        both: `ForwardOutputs`: what the models answered in inference mode.

    Raises:
        ConfigurationError: if a `TeacherReport` does not fit the outputs or the task.
    """
    x, y, _ = batch
    student, loss = distiller.student, distiller.loss
    if y is not None and distiller.student_loss_weight > 0:
        warn_of_wrong_space(loss, both.y_pred, student)
    y, told, said = (by_name(part, student) for part in (y, both.teacher_outputs, both.y_pred))
    losses = {name: one for name, one, _ in losses_by_output(loss, both.y_pred, student)}
    for report in distiller.reports:
        report.check_first_batch(y, told, said, losses.get(report.output, losses.get(None)))
    if y is not None and distiller.student_loss_weight < 1:
        _warn_of_unsettled_teacher(distiller.teacher, x, y, told)


def _warn_of_unsettled_teacher(teacher, x, y, told):
    """Warns if a teacher is at chance in inference mode and right in training mode: then the moving statistics of its BatchNormalization are not its data's.

    A single batch tells this without the accuracy that the teacher should have: the same samples are answered twice, and those that only one mode has right are
    a fair coin if the modes are equally good (McNemar's exact test).
    """
    norms = [layer for layer in teacher._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]
    if not norms:
        return
    quiet = _right(y, told)
    if quiet is None or quiet.mean() > _chance(y, told) + 2.0 * math.sqrt(0.25 / quiet.size):
        return
    before = [(v, keras.ops.convert_to_numpy(v)) for v in teacher.variables if not v.trainable]
    try:
        loud = _right(y, teacher(x, training=True))
    finally:
        for variable, value in before:
            variable.assign(value)
    gained, lost = int((loud & ~quiet).sum()), int((quiet & ~loud).sum())
    if _at_least(gained, gained + lost) < IMPROBABLE:
        warnings.warn(
            f"The teacher '{teacher.name}' is right in {quiet.mean():.0%} of the first batch in inference mode, no better than chance, and in {loud.mean():.0%} in "
            f"training mode. It teaches in inference mode, where its {len(norms)} BatchNormalization layers use moving statistics that are not those of its data yet. "
            f"Train it for longer, or with BatchNormalization(momentum=0.9) instead of {norms[0].momentum}, before it teaches.",
            stacklevel=4,
        )


def _right(y, outputs):
    """Which samples (and positions) have the right class, flat; None where labels and outputs are not one pair of classes."""
    pair = [keras.tree.flatten(part) for part in (y, outputs)]
    if any(len(leaves) != 1 for leaves in pair):
        return None
    labels, scores = (np.asarray(keras.ops.convert_to_numpy(leaves[0])) for leaves in pair)
    labels = _indices(labels, scores)
    return None if labels is None else (labels == scores.argmax(-1)).reshape(-1)


def _indices(labels, scores):
    if scores.ndim < 2 or scores.shape[-1] < 2:
        return None
    if labels.shape == scores.shape:
        one_hot = ((labels == 0) | (labels == 1)).all() and (labels.sum(-1) == 1).all()
        return labels.argmax(-1) if one_hot else None
    labels = labels[..., 0] if labels.shape == (*scores.shape[:-1], 1) else labels
    return labels.astype("int64") if labels.shape == scores.shape[:-1] and np.array_equal(labels, np.round(labels)) else None


def _chance(y, outputs):
    """Share of the commonest class: what one constant answer has right."""
    scores = np.asarray(keras.ops.convert_to_numpy(keras.tree.flatten(outputs)[0]))
    labels = _indices(np.asarray(keras.ops.convert_to_numpy(keras.tree.flatten(y)[0])), scores)
    return np.unique(labels, return_counts=True)[1].max() / labels.size


def _at_least(heads, throws):
    """Probability of at least so many heads in throws of a fair coin."""
    return sum(math.comb(throws, k) for k in range(heads, throws + 1)) / 2**throws
