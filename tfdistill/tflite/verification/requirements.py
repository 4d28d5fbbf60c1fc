"""The requirements of a verification, and the notes on what does not fail a file."""

import dataclasses
import math

from tfdistill.convert.variants import DEFAULT_ACCURACY_DROP, Tolerances
from tfdistill.errors import VerificationError
from tfdistill.tflite.verification.comparison import CONSTANT_R_SQUARED

# With a smaller share of decided samples the agreement of the classes means little.
FEW_DECIDED = 0.05
# A mean absolute error that grows by this factor is noted even if it is small compared with the variation of the labels.
NOTABLE_RISE = 1.5
# A rise of the error below this share of the best constant's error is the usual cost of int8 and not noted.
NOTABLE_SHARE = 0.01
# Below this R-squared of the changes from sample to sample a file is useless for a series with a trend.
FOLLOWED = 0.5
# Integers of a float32 file, such as an argmax, may differ where scores of Keras tie.
_EQUAL_IN_FLOAT = 0.999
_SCALE = "give values of different units outputs of their own, or scale them to one unit"
_CALIBRATE = "calibrate on samples of the kind that the model will meet"
_SCALED_ALIKE = f"scale calibration and verification data alike, as the model was trained; {_CALIBRATE}"


@dataclasses.dataclass(frozen=True)
class _Fault:
    happened: str
    expected: str
    fix: str
    limit: str | None  # the tolerance that decides; None for a fault that fails with any tolerances


def require(record, limits, other_scale=False):
    """Checks a record against its limits.

    Args:
        record: `VerificationRecord`.
        limits: `Tolerances`.
        other_scale: Whether the samples are on another scale than the file's integers, which the first notes say.

    Raises:
        VerificationError: if a limit is not met; the message names every such output, index and limit, the loss of accuracy first, and the
            record's notes.
    """
    if limits == Tolerances():
        return
    faults = [fault for name, output in record.outputs.items() for fault in _faults(name, output, record, limits)]
    if not faults:
        return
    fixes, settings = dict.fromkeys(f.fix for f in faults), dict.fromkeys(f.limit for f in faults if f.limit)
    noticed = [f"Noticed: {note}" for note in record.notes]
    happened = [f.happened for f in faults]
    if other_scale:  # the cause of all the rest
        raise VerificationError(
            "\n".join([happened[0], *noticed, *happened[1:]]), "; ".join(dict.fromkeys(f.expected for f in faults)), _SCALED_ALIKE
        )
    # A fault without a limit cannot be fixed by another tolerance.
    loosen = f", or set {' and '.join(settings)} of the tolerances if this is good enough" if all(f.limit for f in faults) else ""
    raise VerificationError(
        "\n".join([*happened, *noticed]),
        "; ".join(dict.fromkeys(f.expected for f in faults)),
        "; ".join(fixes) + loosen,
    )


def _faults(name, output, record, limits):
    where = f"Output '{name}' of '{record.path}'"
    yield from _losses(where, output, record, limits)
    yield from _decisions(where, output, record, limits)
    if output.equal_share is None:
        poor = list(_constants(where, output, limits))
        yield from _distances(where, output, record, limits, bool(poor))
        yield from poor


def _distances(where, output, record, limits, indices_named):
    found = {
        "max_relative_error": (output.max_abs_error, output.max_error_of_spread),
        "max_relative_mean_error": (output.mean_abs_error, output.mean_error_of_spread),
    }
    for limit, (error, of_spread) in found.items():
        bound, kind = getattr(limits, limit), "mean" if "mean" in limit else "largest"
        if bound is None:
            continue
        value = error / output.scale if output.scale else error
        at = f"{kind} error, {record.samples} samples, the largest at {list(output.worst_samples)}"
        if value > bound:
            yield _Fault(
                f"{where} is {value:.3g} of its scale {output.scale:.4g} away from Keras's ({at}).", f"at most {bound:g}", _CALIBRATE, limit
            )
        elif of_spread is not None and of_spread > bound and not indices_named:
            yield _Fault(
                f"{where} is {of_spread:.3g} of an index's own spread away from Keras's ({at}): {_indices(output.worst_indices)}.",
                f"at most {bound:g} of each index's spread",
                _SCALE,
                limit,
            )


def _constants(where, output, limits):
    least = limits.min_r_squared if output.max_error_of_spread is not None else None
    fix = _CALIBRATE if output.max_error_of_spread is None else _SCALE
    useless = [i for i in output.worst_indices if i.r_squared <= CONSTANT_R_SQUARED]
    poor = [i for i in output.worst_indices if least is not None and CONSTANT_R_SQUARED < i.r_squared < least]
    if useless:
        yield _Fault(
            f"{where} is no better than a constant at {_indices(useless)}.",
            "values that follow Keras's at every index that varies",
            fix,
            None,
        )
    if poor:
        yield _Fault(
            f"{where} hardly follows Keras's at {_indices(poor)}.",
            f"an R-squared of at least {least:g} at every index that varies",
            _SCALE,
            "min_r_squared",
        )


def _indices(indices):
    return ", ".join(
        f"index {i.index} (spread {i.spread:.4g}, mean error {i.mean_abs_error:.3g}, R-squared {i.r_squared:.3f})" for i in indices
    )


def _decisions(where, output, record, limits):
    least = limits.min_argmax_agreement
    if output.equal_share is not None:
        least = _EQUAL_IN_FLOAT if least is None and limits.max_relative_error is not None else least
        if least is not None and output.equal_share < least:
            yield _Fault(
                f"{where} equals Keras's in {output.equal_share:.2%} of its whole numbers "
                f"(the fewest at samples {list(output.worst_samples)}).",
                f"at least {least:.2%}",
                _CALIBRATE,
                "min_argmax_agreement",
            )
        return
    agreement = output.decided_agreement
    if agreement is not None and least is not None and agreement < least:
        yield _Fault(
            f"{where} names Keras's class on {agreement:.1%} of {output.decided} clearly decided samples "
            f"({output.argmax_agreement:.1%} of all {record.samples}).",
            f"at least {least:.1%}",
            _CALIBRATE,
            "min_argmax_agreement",
        )


def _losses(where, output, record, limits):
    if output.loss_interval is None:
        return
    low, high = output.loss_interval
    if output.accuracy is not None:
        bound = DEFAULT_ACCURACY_DROP if limits.max_accuracy_drop is None else limits.max_accuracy_drop
        if low > bound:
            yield _Fault(
                f"{where} has an accuracy of {output.accuracy:.4f} where the Keras model has {output.keras_accuracy:.4f} "
                f"on the same {record.samples} samples "
                f"(drop {low:.4f} to {high:.4f} at 95 %).",
                f"a drop of at most {bound:g}",
                _CALIBRATE,
                "max_accuracy_drop",
            )
    elif limits.max_error_rise is not None and low > limits.max_error_rise * output.constant_error:
        yield _Fault(
            f"{where} has a mean absolute error of {output.metric_value:.4g} where the Keras model has "
            f"{output.keras_metric_value:.4g} on the same {record.samples} samples "
            f"(rise {low:.4g} to {high:.4g} at 95 %; the best constant would make an error of {output.constant_error:.4g}).",
            f"a rise of at most {limits.max_error_rise:g} of the constant's error",
            _CALIBRATE,
            "max_error_rise",
        )


def remarks(name, output, count, limits):
    """Describes what does not fail a file but is worth knowing.

    Args:
        name: Name of the output.
        output: Its `OutputComparison`.
        count: Number of its decisions: samples times positions.
        limits: `Tolerances`.

    Returns:
        (notes, warned): the notes for the record, and those among them that are also warnings.
    """
    notes, warned = [], []
    if output.extreme_samples:
        notes.append(
            f"Samples {list(output.extreme_samples)} stretch the range of output '{name}' to at least five times that of all others."
        )
    if output.decided is not None and output.decided < max(1, FEW_DECIDED * count):
        notes.append(
            f"Keras decides clearly on {output.decided} of {count} in output '{name}' only: that the classes agree there says little "
            f"({output.argmax_agreement:.1%} of all agree). "
            "Verify on real samples, with labels."
        )
        least = limits.min_argmax_agreement
        if output.task is not None and output.loss_interval is None and least is not None and output.argmax_agreement < least:
            warned.append(notes[-1])
    if output.lost_indices:
        notes.append(
            f"The file has output '{name}' constant at {_indices(output.lost_indices)}: there Keras varies by less than a twentieth "
            "of the output's unit."
        )
    if output.changes_r_squared is not None and output.changes_r_squared < FOLLOWED <= output.lowest_r_squared:
        notes.append(
            f"The file follows output '{name}' (R-squared at least {output.lowest_r_squared:.3f}), but not its changes from "
            f"one sample to the next (R-squared {output.changes_r_squared:.3f}). "
            "If the samples are a series, what it is to predict may be lost beside its trend: let the model predict differences."
        )
    if output.loss_interval is None:
        return notes, warned
    low, high = output.loss_interval
    if output.accuracy is not None:
        drop = output.keras_accuracy - output.accuracy
        bound = DEFAULT_ACCURACY_DROP if limits.max_accuracy_drop is None else limits.max_accuracy_drop
        if low > 0 or (drop > bound and not math.isclose(drop, bound)):
            sure = "beyond chance" if low > 0 else f"but {count} samples cannot tell it from chance"
            notes.append(f"The accuracy of output '{name}' drops by {drop:.4f} ({low:.4f} to {high:.4f} at 95 %), {sure}.")
    elif low > 0 and output.metric_value > NOTABLE_RISE * output.keras_metric_value and low > NOTABLE_SHARE * output.constant_error:
        notes.append(
            f"The mean absolute error of output '{name}' is {output.metric_value:.4g} "
            f"where the Keras model has {output.keras_metric_value:.4g}."
        )
        warned.append(notes[-1])
    return notes, warned
