"""Reads a .tflite file back and compares what it computes with its Keras model."""

import dataclasses
import pathlib

import keras
import numpy as np

from tfdistill.bridge.adopt.states import initial_states
from tfdistill.errors import ConfigurationError, VerificationError, nearest
from tfdistill.records import Record
from tfdistill.runtime.interpreter import open_file, read_file
from tfdistill.tasks import TASKS
from tfdistill.tflite.convert.variants import Tolerances, variant_named
from tfdistill.tflite.inspection.census import census
from tfdistill.tflite.samples import collect
from tfdistill.tflite.signature import describe
from tfdistill.tflite.verification.comparison import OutputComparison, compare
from tfdistill.tflite.verification.input_steps import input_steps
from tfdistill.tflite.verification.ranges import coarse_inputs, warn
from tfdistill.tflite.verification.reference import Reference, by_output, training_hints
from tfdistill.tflite.verification.requirements import remarks, require
from tfdistill.utils.progress import progress

__all__ = ["OutputComparison", "VerificationRecord", "compare", "verify"]


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
        accuracy: The file's accuracy, the lowest of the outputs that have labels of classes or decisions; None without such labels.
        keras_accuracy: The Keras model's, likewise.
        outputs: Output name -> `OutputComparison`.
        notes: What does not fail the file but should be known, as sentences.
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
    notes: tuple[str, ...] = ()


def verify(path, model, x, y=None, variant="float32", tolerances=None, threads=1, task=None):
    """Runs a file on data and compares it with its Keras model.

    Each output is compared as a whole and at each index of its last axis, against what that index itself varies by; with labels, what the file loses against the Keras model on the same samples is
    tested as well. A model that keeps state between calls is compared from its initial state.

    Args:
        path: The .tflite file.
        model: The Keras model it was made from.
        x: Samples, in any form that `export_tflite` takes for calibration; labels may come along as the second of a tuple.
        y: Labels as `tfdistill.tasks.targets` takes them: class indices (samples,) or (samples, 1), one-hot rows (samples, classes), zeros and ones, or numbers; a list or a dict by output
            name for several outputs.
        variant: What the file is; decides the default tolerances.
        tolerances: `Tolerances` instead of the variant's own; `Tolerances()` checks nothing and only measures.
        threads: CPU threads.
        task: What the outputs are for, one of `tfdistill.tasks.TASKS`, or a dict of output name to it. None reads it from the labels, the compiled loss and the last activation.

    Returns:
        A `VerificationRecord`.

    Raises:
        ConfigurationError: if there is no such file, variant or task.
        DataError: if samples or labels do not fit the model or the task.
        ExportError, RuntimeUnavailableError: if the file is damaged or does not run.
        VerificationError: if it does not compute what the model computes.

    Warns:
        UserWarning: if steps of the file's inputs are too coarse for some features, or a mean absolute error grows by half.

    Example:
        record = tfdistill.verify("student.tflite", student, x_test, y_test, variant="int8")
        print(record.accuracy, record.keras_accuracy, record.notes)
    """
    limits = tolerances_or_default(variant_named(variant), tolerances)
    signature = describe(model)
    samples = collect(x, signature, what="verification")
    if y is not None:
        samples = dataclasses.replace(samples, labels=keras.tree.map_structure(np.asarray, y))
    record, urgent = verify_samples(path, model, signature, samples, limits, threads, task=task)
    warn(urgent)
    return record


def verify_samples(path, model, signature, samples, limits, threads=1, name=None, task=None, extreme=None, trusted=False):
    """The part of `verify` that works on checked `Samples` and settled `Tolerances`.

    Args:
        path: The .tflite file.
        model: The Keras model.
        signature: Its `ModelSignature`.
        samples: `Samples`.
        limits: `Tolerances`.
        threads: CPU threads.
        name: What the record calls the file.
        task: As in `verify`.
        extreme: What `extreme_calibration` found when the file was calibrated, for the record.
        trusted: Whether this very call wrote the file.

    Returns:
        The `VerificationRecord`, and a list of those of its own notes that deserve a warning.
    """
    path, shown = pathlib.Path(path), name or str(path)
    file = read_file(path)  # what is counted and what is run are the same bytes
    counted = census(file, trusted)  # a damaged file is named as such before an interpreter sees it
    opened = open_file(file, threads=threads, shapes=_shapes_of_data(signature, samples), trusted=trusted)
    if set(opened.inputs) != {i.name for i in signature.inputs}:
        raise VerificationError(
            f"'{shown}' takes the inputs {sorted(opened.inputs)}, "
            f"the model '{model.name}' takes {sorted(i.name for i in signature.inputs)}.",
            "a file that was exported from this model",
        )
    with initial_states(model):
        reference = Reference(model, signature, opened.batch_size)
        expected = reference(samples.inputs)
        with progress("verifying", samples.count) as advance:
            actual = opened.run(samples.inputs, advance)
        if {n: a.shape for n, a in actual.items()} != {n: a.shape for n, a in expected.items()}:
            raise VerificationError(
                f"'{shown}' gives {_shapes(actual)}, the model '{model.name}' gives {_shapes(expected)}.",
                "a file that was exported from this model",
            )
        outputs = _compare(model, signature, samples, expected, actual, task)
        steps = input_steps(file, opened, counted, trusted)
        coarse = coarse_inputs(steps, reference, expected, samples, signature, outputs, known=extreme or ())
    said = [remarks(n, output, int(np.prod(expected[n].shape[:-1])), limits) for n, output in outputs.items()]
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
        notes=(*(extreme or {}).values(), *coarse, *(note for found, _ in said for note in found)),
    )
    require(record, limits)
    return record, [*coarse, *(note for _, urgent in said for note in urgent)]


def _compare(model, signature, samples, expected, actual, task):
    names = list(expected)
    tasks = _tasks_by_output(task, names)
    hints, labels = training_hints(model, names), by_output("labels", samples.labels, names)
    return {
        name: compare(
            expected[name],
            actual[name],
            labels.get(name),
            name,
            tasks.get(name),
            **hints[name],
            reconstructed=_of_shape(samples, expected[name].shape),
        )
        for name in names
    }


def _of_shape(samples, shape):
    """Returns the first float input of this shape, None where there is none or where it has a single feature."""
    several = len(shape) > 1 and shape[-1] > 1
    return next((a for a in samples.inputs.values() if several and a.shape == shape and a.dtype.kind == "f"), None)


def _tasks_by_output(task, names):
    given = dict.fromkeys(names, task) if task is None or isinstance(task, str) else by_output("tasks", task, names)
    for one in given.values():
        if one is not None and one not in TASKS:
            raise ConfigurationError(
                f"task={one!r} is unknown.", f"one of {TASKS}, or a dict of output name to these", nearest(str(one), TASKS)
            )
    return given


def _shapes_of_data(signature, samples):
    """Returns the shapes that the samples have where the model leaves lengths open; None where it does not."""
    free = [i for i in signature.inputs if None in i.shape]
    return {i.name: (i.batch or 1, *samples.inputs[i.name].shape[1:]) for i in free} or None


def _lowest(values):
    return min((v for v in values if v is not None), default=None)


def _shapes(arrays):
    return {name: tuple(array.shape) for name, array in arrays.items()}


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
