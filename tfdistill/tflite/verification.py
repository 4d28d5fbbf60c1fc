"""Reads a .tflite file back and compares what it computes with its Keras model."""

import dataclasses
import pathlib

import keras
import numpy as np

from tfdistill.errors import ConfigurationError, DataError, VerificationError
from tfdistill.progress import progress
from tfdistill.records import Record
from tfdistill.runtime.interpreter import open_file, read_file
from tfdistill.tflite.calibration import collect
from tfdistill.tflite.contents import census
from tfdistill.tflite.signature import describe
from tfdistill.tflite.variants import DECIDED_MARGIN, Tolerances, variant_named

_KERAS_BATCH = 128


@dataclasses.dataclass(frozen=True)
class OutputComparison(Record):
    """One output of a file beside the same output of its Keras model.

    Attributes:
        max_abs_error: Largest absolute difference, in the output's own unit, dequantized.
        mean_abs_error: Mean absolute difference.
        scale: The larger of the Keras output's range and its largest magnitude over the samples.
        argmax_agreement: Share (0 to 1) of samples (or positions) on which both name the same class; None for an output without classes.
        decided: Number of samples whose Keras scores are clearly apart (see `Tolerances`); None without classes.
        decided_agreement: Share of those on which both name the same class; None if there are none.
        accuracy: Share of samples on which the file names the label; None without labels.
        keras_accuracy: The same for the Keras model.
    """

    max_abs_error: float
    mean_abs_error: float
    scale: float
    argmax_agreement: float | None = None
    decided: int | None = None
    decided_agreement: float | None = None
    accuracy: float | None = None
    keras_accuracy: float | None = None


@dataclasses.dataclass(frozen=True)
class VerificationRecord(Record):
    """What a file computes, beside its Keras model.

    Attributes:
        path: The file.
        sha256: Its digest.
        samples: Number of samples compared.
        engine: Import name of the interpreter that ran it.
        max_abs_error: Largest absolute difference over all outputs, dequantized.
        mean_abs_error: Largest of the outputs' mean absolute differences.
        argmax_agreement: Lowest of the outputs' agreements; None without classes.
        accuracy: The file's accuracy, the lowest of the outputs that have labels; None without labels.
        keras_accuracy: The Keras model's, likewise.
        outputs: Output name -> `OutputComparison`.
    """

    path: str
    sha256: str
    samples: int
    engine: str
    max_abs_error: float
    mean_abs_error: float
    argmax_agreement: float | None
    accuracy: float | None
    keras_accuracy: float | None
    outputs: dict[str, OutputComparison]


def verify(path, model, x, y=None, variant="float32", tolerances=None, threads=1):
    """Runs a file on data and compares it with its Keras model.

    Args:
        path: The .tflite file.
        model: The Keras model it was made from.
        x: Samples, in any form that `export_tflite` takes for calibration; labels may come along as the second of a tuple.
        y: Labels: class indices (samples,) or (samples, 1), or one-hot (samples, classes); a list or a dict by output name for several
            outputs.
        variant: What the file is; decides the default tolerances.
        tolerances: `Tolerances` instead of the variant's own; `Tolerances()` checks nothing and only measures.
        threads: CPU threads.

    Returns:
        A `VerificationRecord`.

    Raises:
        ConfigurationError: if there is no such file or variant.
        DataError: if samples or labels do not fit the model.
        ExportError, RuntimeUnavailable: if the file is damaged or does not run.
        VerificationError: if it does not compute what the model computes.
    """
    limits = tolerances_or_default(variant_named(variant), tolerances)
    signature = describe(model)
    samples = collect(x, signature, what="verification")
    if y is not None:
        samples = dataclasses.replace(samples, labels=keras.tree.map_structure(np.asarray, y))
    return verify_samples(path, model, signature, samples, limits, threads)


def verify_samples(path, model, signature, samples, limits, threads=1, name=None, trusted=False):
    """The part of `verify` that works on checked `Samples` and settled `Tolerances`; `name` is what the record calls the file, `trusted` says that the caller wrote it."""
    path, shown = pathlib.Path(path), name or str(path)
    file = path if trusted else read_file(path)  # what is counted and what is run are the same bytes
    counted = census(file, trusted)  # a damaged file is named as such before an interpreter sees it
    opened = open_file(file, threads=threads, trusted=trusted)
    if set(opened.inputs) != {i.name for i in signature.inputs}:
        raise VerificationError(
            f"'{shown}' takes the inputs {sorted(opened.inputs)}, "
            f"the model '{model.name}' takes {sorted(i.name for i in signature.inputs)}.",
            "a file that was exported from this model",
        )
    expected = _keras_outputs(model, signature, samples)
    with progress("verifying", samples.count) as advance:
        actual = opened.run(samples.inputs, advance)
    if {n: a.shape for n, a in actual.items()} != {n: a.shape for n, a in expected.items()}:
        raise VerificationError(
            f"'{shown}' gives {_shapes(actual)}, the model '{model.name}' gives {_shapes(expected)}.",
            "a file that was exported from this model",
        )
    labels = _labels_by_output(samples.labels, expected)
    outputs = {name: compare(expected[name], actual[name], labels.get(name), name) for name in expected}
    record = VerificationRecord(
        path=shown,
        sha256=counted.sha256,
        samples=samples.count,
        engine=opened.engine,
        max_abs_error=max(o.max_abs_error for o in outputs.values()),
        mean_abs_error=max(o.mean_abs_error for o in outputs.values()),
        argmax_agreement=_lowest(o.argmax_agreement for o in outputs.values()),
        accuracy=_lowest(o.accuracy for o in outputs.values()),
        keras_accuracy=_lowest(o.keras_accuracy for o in outputs.values()),
        outputs=outputs,
    )
    _require(record, limits)
    return record


def compare(expected, actual, labels=None, name="output"):
    """Compares two arrays of one output.

    Args:
        expected: Keras's output, (samples, ...), classes on the last axis if there are any.
        actual: The file's, of the same shape.
        labels: Class indices or one-hot rows, or None.
        name: The output's name, for errors.

    Returns:
        An `OutputComparison`.

    Raises:
        VerificationError: if the file's output is NaN or infinite where Keras's is finite.
        DataError: if the labels do not fit.
    """
    expected, actual = np.asarray(expected, dtype=np.float64), np.asarray(actual, dtype=np.float64)
    if not np.isfinite(expected).all():
        raise DataError(f"The Keras model's output '{name}' is NaN or infinite.", "finite outputs on the verification data")
    if not np.isfinite(actual).all():
        raise VerificationError(f"The file's output '{name}' is NaN or infinite where Keras's is finite.", "finite outputs")
    difference = np.abs(expected - actual)
    scale = max(float(np.ptp(expected)), float(np.abs(expected).max()))
    errors = {"max_abs_error": float(difference.max()), "mean_abs_error": float(difference.mean()), "scale": scale}
    classes = expected.shape[-1] if expected.ndim > 1 else 1
    if classes < 2:
        return OutputComparison(**errors)
    same = expected.argmax(-1) == actual.argmax(-1)
    second, first = np.moveaxis(np.partition(expected, classes - 2, axis=-1)[..., -2:], -1, 0)
    decided = (first - second) > DECIDED_MARGIN * scale
    truth = None if labels is None else _class_indices(labels, expected.shape, name)
    return OutputComparison(
        **errors,
        argmax_agreement=float(same.mean()),
        decided=int(decided.sum()),
        decided_agreement=float(same[decided].mean()) if decided.any() else None,
        accuracy=None if truth is None else float((actual.argmax(-1) == truth).mean()),
        keras_accuracy=None if truth is None else float((expected.argmax(-1) == truth).mean()),
    )


def _class_indices(labels, shape, name):
    labels = np.asarray(labels)
    if labels.shape == shape:
        return labels.argmax(-1)
    if labels.shape == (*shape[:-1], 1):
        labels = labels[..., 0]
    if labels.shape != shape[:-1]:
        raise DataError(
            f"The labels of output '{name}' have the shape {labels.shape}.", f"{shape[:-1]} (class indices) or {shape} (one-hot)"
        )
    if labels.min() < 0 or labels.max() >= shape[-1]:
        raise DataError(
            f"The labels of output '{name}' run from {labels.min()} to {labels.max()}.", f"class indices from 0 to {shape[-1] - 1}"
        )
    return labels


def _keras_outputs(model, signature, samples):
    parts = []
    fixed = signature.inputs[0].batch
    for batch in samples.batches(fixed or _KERAS_BATCH):
        size = len(next(iter(batch.values())))
        short = (fixed or size) - size
        if short:
            batch = {name: np.concatenate([a, np.repeat(a[-1:], short, axis=0)]) for name, a in batch.items()}
        named = signature.name_outputs(model(signature.pack(batch), training=False))
        parts.append({name: keras.ops.convert_to_numpy(tensor)[:size] for name, tensor in named.items()})
    return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}


def _labels_by_output(labels, outputs):
    if labels is None:
        return {}
    names = list(outputs)
    if isinstance(labels, dict):
        unknown = sorted(set(labels) - set(names))
        if unknown:
            raise DataError(f"There are labels for the outputs {unknown}, which the model has not.", f"some of {names}")
        return labels
    if isinstance(labels, (list, tuple)):
        if len(labels) != len(names):
            raise DataError(f"There are {len(labels)} arrays of labels.", f"one for each of the outputs {names}")
        return dict(zip(names, labels, strict=True))
    if len(names) > 1:
        raise DataError("One array of labels was given for several outputs.", f"a dict or a list for the outputs {names}")
    return {names[0]: labels}


def _lowest(values):
    return min((v for v in values if v is not None), default=None)


def _shapes(arrays):
    return {name: tuple(array.shape) for name, array in arrays.items()}


def _require(record, limits):
    for name, output in record.outputs.items():
        found = {
            "max_relative_error": output.max_abs_error / output.scale if output.scale else output.max_abs_error,
            "max_relative_mean_error": output.mean_abs_error / output.scale if output.scale else output.mean_abs_error,
        }
        for limit, value in found.items():
            bound = getattr(limits, limit)
            if bound is not None and value > bound:
                raise VerificationError(
                    f"Output '{name}' of '{record.path}' is {value:.3g} of its scale {output.scale:.4g} away from Keras's "
                    f"({'mean' if 'mean' in limit else 'largest'} error, {record.samples} samples; {output}).",
                    f"at most {bound:g}",
                    f"look at the model's ranges, or set {limit} of the tolerances if this is good enough",
                )
        agreement, least = output.decided_agreement, limits.min_argmax_agreement
        if agreement is not None and least is not None and agreement < least:
            raise VerificationError(
                f"Output '{name}' of '{record.path}' names Keras's class on {agreement:.1%} of {output.decided} clearly decided samples "
                f"({output.argmax_agreement:.1%} of all {record.samples}).",
                f"at least {least:.1%}",
                "calibrate on more representative samples, train quantization-aware, or set min_argmax_agreement of the tolerances",
            )


def tolerances_or_default(variant, tolerances):
    """Returns `tolerances`, or the variant's own.

    Raises:
        ConfigurationError: if they are not `Tolerances`.
    """
    if tolerances is None:
        return variant.tolerances
    if not isinstance(tolerances, Tolerances):
        raise ConfigurationError(f"tolerances={tolerances!r} is a {type(tolerances).__name__}.", "a tfdistill.tflite.Tolerances")
    return tolerances
