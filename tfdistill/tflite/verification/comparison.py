"""Compares one output of a file with the same output of its Keras model, as a whole and for each index of the last axis."""

import numpy as np

from tfdistill import tasks
from tfdistill.convert.variants import DECIDED_MARGIN
from tfdistill.errors import ConfigurationError, DataError, VerificationError
from tfdistill.tflite.verification.boxes import BOXES, box_figures
from tfdistill.tflite.verification.figures import IndexComparison, OutputComparison
from tfdistill.tflite.verification.labels import against_labels, compare_integers
from tfdistill.tflite.verification.ranges import stretching_samples
from tfdistill.utils.finite import is_finite

# With fewer values than this the range of an index is not known well enough to judge it.
MIN_VALUES = 16
# An index is judged by its own range if that is more than this share of its unit, where there is one.
UNIT_FLOOR = 0.05
# Activations with a fixed range, which is the unit of their output.
_BOUNDED = {"softmax": 1.0, "sigmoid": 1.0, "hard_sigmoid": 1.0, "tanh": 2.0}
MANY_FEATURES = 16
# Float32 rounding in the layers before an output, as a share of its magnitude: a few dozen units in the last place.
ROUNDING = 64 * 2.0**-23
# A Keras output that varies by less than this share of its magnitude varies by rounding only.
CONSTANT = 1e-5
# Up to this coefficient of determination an index is no better than a constant. A constant has 0, or slightly more if it matches a few
# outliers.
CONSTANT_R_SQUARED = 0.1
SHOWN = 5


def compare(
    expected,
    actual,
    labels=None,
    name="output",
    task=None,
    loss=None,
    last_activation=None,
    reconstructed=None,
    who=("Keras model", "file"),
):
    """Compares two arrays of one output.

    Args:
        expected: Output of Keras, (samples, ...). Integers are compared element by element unless the task is regression.
        actual: Output of the file, of the same shape.
        labels: Labels as `tfdistill.tasks.targets` takes them, or None.
        name: Name of the output, for errors.
        task: One of `tfdistill.tasks.TASKS` or of `BOXES`; None infers it from the labels, `loss` and `last_activation`.
        loss: The loss that the output was trained with, or None.
        last_activation: Name of the last activation before the output, or None.
        reconstructed: The input that has the output's shape, if any. If the task is unknown, the output is taken for a reconstruction of
            that input, that is, for regression; the unit of an index is then the range of the input at the index.
        who: What the two are called in errors.

    Returns:
        An `OutputComparison`.

    Raises:
        ConfigurationError: if the task does not fit the output's shape.
        VerificationError: if the file's output is NaN or infinite where Keras's is finite.
        DataError: if the labels do not fit.
    """
    expected, actual = np.asarray(expected), np.asarray(actual)
    boxes = task if task in BOXES else None
    if boxes:
        if expected.shape[-1:] != (4,):
            raise ConfigurationError(
                f"task='{boxes}', but output '{name}' has the shape {expected.shape}.",
                "four numbers on the last axis",
                "with outputs='split' a file has the boxes of a detector in an output of their own",
            )
        task = "regression"
    integers = expected.dtype.kind in "biu" and task != "regression"
    expected, actual = expected.astype(np.float64), actual.astype(np.float64)
    if not is_finite(expected):
        raise DataError(f"The {who[0]}'s output '{name}' is NaN or infinite.", "finite outputs on these samples")
    if not is_finite(actual):
        raise VerificationError(f"The {who[1]}'s output '{name}' is NaN or infinite where the {who[0]}'s is finite.", "finite outputs")
    difference = np.abs(expected - actual)
    by_sample = difference.reshape(len(difference), -1)
    figures = {
        "max_abs_error": float(difference.max()),
        "mean_abs_error": float(difference.mean()),
        "scale": max(float(np.ptp(expected)), float(np.abs(expected).max())),
    }
    if integers:
        return OutputComparison(**figures, **compare_integers(expected, actual, labels, name), worst_samples=_largest(by_sample.mean(1)))
    last_activation = last_activation or ("softmax" if _rows_sum_to_one(expected) else None)
    if task is None:
        task = tasks.infer_task(expected.shape, labels, loss, last_activation)
        task = "regression" if task is None and reconstructed is not None else task
    else:
        tasks.check_task(task, expected.shape, name)
    rows = expected.reshape(len(expected), -1)
    extreme = stretching_samples(rows.min(1), rows.max(1))
    bulk = np.setdiff1d(np.arange(len(rows)), extreme)
    own = task is None or task == "regression"
    unit = _unit(expected, task, last_activation, reconstructed)
    figures |= _by_index(expected, actual, bulk, unit, own)
    several = expected.ndim > 1 and expected.shape[-1] > 1
    if several and (task is None or tasks.by_class(task, expected.shape)):
        figures |= _by_class(expected, actual, bulk)
    if labels is not None:
        threshold = decision_threshold(expected, loss, last_activation)
        figures |= against_labels(expected, actual, labels, name, task, threshold)
    if boxes:
        figures |= box_figures(expected, actual, labels, boxes)
    return OutputComparison(**figures, task=task, extreme_samples=tuple(int(i) for i in extreme))


def _by_class(expected, actual, bulk):
    classes = expected.shape[-1]
    ordinary = expected[bulk]
    scale = max(float(np.ptp(ordinary)), float(np.abs(ordinary).max()))
    same = expected.argmax(-1) == actual.argmax(-1)
    second, first = np.moveaxis(np.partition(expected, classes - 2, axis=-1)[..., -2:], -1, 0)
    decided = (first - second) > DECIDED_MARGIN * scale
    return {
        "argmax_agreement": float(same.mean()),
        "decided": int(decided.sum()),
        "decided_agreement": float(same[decided].mean()) if decided.any() else None,
    }


def _by_index(expected, actual, bulk, unit, own):
    """Computes the errors of each index of the last axis, relative to its range over the samples that are not extreme."""
    difference = np.abs(expected - actual)
    true, given, apart = (tasks.columns(a[bulk]) for a in (expected, actual, difference))
    spread, magnitude = np.ptp(true, axis=0), np.abs(true).max(0)
    noise = ROUNDING * float(magnitude.max())
    r_squared = tasks.r_squared(true, _without_rounding(true, given, noise))
    if len(bulk) < len(expected):
        # An extreme sample that the file predicts well hides errors on all others, and the other way round.
        r_squared = np.fmin(r_squared, tasks.r_squared(expected, _without_rounding(expected, actual, noise)))
    varies = (spread > CONSTANT * magnitude) & np.isfinite(r_squared) & (len(true) >= MIN_VALUES)
    judged = varies & (spread > UNIT_FLOOR * unit)
    largest, mean = apart.max(0), apart.mean(0)

    def worst(among):
        order = np.flatnonzero(among)[np.argsort(r_squared[among], kind="stable")][:SHOWN]
        return tuple(IndexComparison(int(j), float(spread[j]), float(largest[j]), float(mean[j]), float(r_squared[j])) for j in order)

    found = {"judged_indices": int(judged.sum()), "worst_samples": _largest(_relative(difference, spread, judged))}
    if own:
        found["lost_indices"] = worst(varies & ~judged & (r_squared <= CONSTANT_R_SQUARED))
    if not judged.any():
        return found
    if own:
        found["max_error_of_spread"] = float((np.maximum(largest - noise, 0) / np.where(judged, spread, 1))[judged].max())
        found["mean_error_of_spread"] = float((np.maximum(mean - noise, 0) / np.where(judged, spread, 1))[judged].max())
        changes = tasks.r_squared(np.diff(expected, axis=0), np.diff(_without_rounding(expected, actual, noise), axis=0))[judged]
        found["changes_r_squared"] = None if np.isnan(changes).all() else float(np.nanmin(changes))
    return found | {"lowest_r_squared": float(r_squared[judged].min()), "worst_indices": worst(judged)}


def _unit(expected, task, last_activation, reconstructed):
    """Returns the unit of the indices, one for all or one for each: an index is judged alone if its range is above `UNIT_FLOOR` of it."""
    if last_activation in _BOUNDED:
        return _BOUNDED[last_activation]
    if task == "regression" and reconstructed is not None:
        width = np.ptp(tasks.columns(np.asarray(reconstructed, np.float64)), axis=0)
        # Where the input never varies there is nothing to reconstruct. Many features belong to one signal, such as pixels, and share a
        # unit; a few may have one each.
        unit = np.median(width[width > 0]) if np.count_nonzero(width) >= MANY_FEATURES else width
        return np.where(width > 0, unit, np.inf)
    if task is None or task == "regression":
        return 0.0
    # The scores of one output share a unit: a class that never becomes likely needs no resolution.
    return float(np.ptp(expected))


def _rows_sum_to_one(values):
    return values.ndim > 1 and values.shape[-1] > 1 and bool((values >= 0).all() and (np.abs(values.sum(-1) - 1) <= 1e-3).all())


def decision_threshold(scores, loss=None, last_activation=None):
    """Returns the score above which a decision is yes: 0.5 for probabilities, 0 for logits.

    Args:
        scores: Scores of the model, an array.
        loss: The loss that it was trained with, or None.
        last_activation: Name of its last activation, or None.
    """
    return 0.5 if last_activation == "sigmoid" or _within_one(scores, loss) else 0.0


def _within_one(expected, loss):
    from_logits = getattr(loss, "from_logits", (getattr(loss, "_fn_kwargs", None) or {}).get("from_logits"))
    return bool((expected >= 0).all() and (expected <= 1).all()) if from_logits is None else not from_logits


def _without_rounding(true, given, noise):
    """Moves `given` towards `true` by at most `noise`, the effect of float rounding."""
    return given + np.clip(true - given, -noise, noise)


def _relative(difference, spread, judged):
    """Returns the largest error of each sample, each index relative to its own range if it is judged."""
    unit = np.where(judged, spread, max(float(spread.max(initial=0.0)), 1e-300))
    values = difference if difference.ndim > 1 else difference[:, None]
    return (values / unit).reshape(len(values), -1).max(1)


def _largest(errors):
    order = np.argsort(-errors, kind="stable")[:SHOWN]
    return tuple(int(i) for i in order if errors[i] > 0)
