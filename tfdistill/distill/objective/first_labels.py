"""Checks with the labels of the first batch: the loss fits the outputs, the reports the task, and the teacher is better than chance."""

import math
import warnings

import keras
import numpy as np

from tfdistill.distill.objective.label_loss import losses_by_output, refuse_other_labels, warn_of_wrong_space
from tfdistill.distill.objective.terms import by_name
from tfdistill.graph.functional import final_activations
from tfdistill.graph.layers import all_layers
from tfdistill.graph.training import metrics_of_labels

# The warning about a teacher that is better in training mode comes below this probability that it is so by chance.
IMPROBABLE = 1e-3


def check_labels(distiller, batch, outputs):
    """Checks a first batch with the outputs of both models.

    Args:
        distiller: A compiled `Distiller`.
        batch: `(x, y, sample_weight)`.
        outputs: `ForwardOutputs` of the models in inference mode.

    Raises:
        ConfigurationError: if a `TeacherReport` does not fit the outputs or the task.
        DataError: if the labels are of another form than the loss takes, or of classes that are not there.
    """
    x, y, _ = batch
    student, loss = distiller.student, distiller.loss
    activations = final_activations(student)
    if y is None and metrics_of_labels(distiller) is not None:
        warnings.warn(
            "The data has no labels, which the metrics of compile(metrics=..., weighted_metrics=...) compare predictions with: they are left out of the logs. "
            "A tfdistill.TeacherReport() logs the agreement of student and teacher without labels.",
            stacklevel=4,
        )
    if y is not None and distiller.student_loss_weight > 0:
        refuse_other_labels(loss, by_name(y, student), outputs.y_pred, student)
        warn_of_wrong_space(loss, outputs.y_pred, student, activations)
    y, teacher_outputs, student_outputs = (by_name(part, student) for part in (y, outputs.teacher_outputs, outputs.y_pred))
    losses = {name: one for name, one, _ in losses_by_output(loss, outputs.y_pred, student)}
    for report in distiller.reports:
        found = (losses, activations, final_activations(distiller.teacher))
        report.check_first_batch(y, teacher_outputs, student_outputs, *(part.get(report.output, part.get(None)) for part in found))
    if y is not None and distiller.student_loss_weight < 1:
        _warn_of_unsettled_teacher(distiller.teacher, x, y, teacher_outputs)


def _warn_of_unsettled_teacher(teacher, x, y, teacher_outputs):
    """Warns if a teacher is at chance in inference mode and right in training mode.

    Then the moving statistics of its BatchNormalization are not those of its data.

    A single batch shows this without knowing the accuracy that the teacher should have: the same samples are predicted in both modes, and
    if the modes are equally good, a sample that only one mode has right is as likely right in the one as in the other (McNemar's exact
    test).
    """
    norms = [layer for layer in all_layers(teacher) if isinstance(layer, keras.layers.BatchNormalization)]
    if not norms:
        return
    inferred = _right(y, teacher_outputs)
    if inferred is None or inferred.mean() > _chance(y, teacher_outputs) + 2.0 * math.sqrt(0.25 / inferred.size):
        return
    before = [(v, keras.ops.convert_to_numpy(v)) for v in teacher.variables if not v.trainable]
    try:
        trained = _right(y, teacher(x, training=True))
    finally:
        for variable, value in before:
            variable.assign(value)
    gained, lost = int((trained & ~inferred).sum()), int((inferred & ~trained).sum())
    if _at_least(gained, gained + lost) < IMPROBABLE:
        warnings.warn(
            f"The teacher '{teacher.name}' is right in {inferred.mean():.0%} of the first batch in inference mode, no better than chance, and in {trained.mean():.0%} in "
            f"training mode. It teaches in inference mode, where its {len(norms)} BatchNormalization layers use moving statistics that are not those of its data yet. "
            f"Train it for longer, or with BatchNormalization(momentum=0.9) instead of {norms[0].momentum}, before it teaches.",
            stacklevel=4,
        )


def _right(y, outputs):
    """Returns which samples (and positions) have the right class, flat; None unless there is one array of labels and one of outputs."""
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
    """Share of the commonest class: the accuracy of a constant prediction."""
    scores = np.asarray(keras.ops.convert_to_numpy(keras.tree.flatten(outputs)[0]))
    labels = _indices(np.asarray(keras.ops.convert_to_numpy(keras.tree.flatten(y)[0])), scores)
    return np.unique(labels, return_counts=True)[1].max() / labels.size


def _at_least(heads, throws):
    """Probability of at least so many heads in throws of a fair coin."""
    return sum(math.comb(throws, k) for k in range(heads, throws + 1)) / 2**throws
