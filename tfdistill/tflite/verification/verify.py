"""Runs a .tflite file and compares its outputs with those of its Keras model."""

import dataclasses
import pathlib
from collections.abc import Mapping

import keras
import numpy as np

from tfdistill.bridge.adopt.states import initial_states
from tfdistill.convert.census import census
from tfdistill.convert.samples import collect
from tfdistill.convert.signature import describe
from tfdistill.convert.variants import Tolerances, VariantName, variant_named
from tfdistill.errors import ConfigurationError, VerificationError, nearest
from tfdistill.runtime.interpreter import open_file, read_file
from tfdistill.tasks import TASKS
from tfdistill.tflite.source import exportable
from tfdistill.tflite.split import as_in_file
from tfdistill.tflite.streaming import streaming_of_file
from tfdistill.tflite.verification.boxes import BOXES
from tfdistill.tflite.verification.comparison import compare
from tfdistill.tflite.verification.figures import OutputComparison
from tfdistill.tflite.verification.input_steps import input_steps
from tfdistill.tflite.verification.kinds import variant_of
from tfdistill.tflite.verification.ranges import coarse_inputs, other_ranges, warn
from tfdistill.tflite.verification.record import VerificationRecord
from tfdistill.tflite.verification.reference import Reference, by_output, training_hints
from tfdistill.tflite.verification.requirements import remarks, require
from tfdistill.utils.arguments import explains_arguments
from tfdistill.utils.progress import progress
from tfdistill.utils.types import Data, PathLike, RunsFiles, Tensors

__all__ = ["OutputComparison", "VerificationRecord", "compare", "verify"]


@explains_arguments(data="give the samples as x=", labels="give the labels as y=", calibration="give the samples as x=")
def verify(
    path: PathLike,
    model: keras.Model | PathLike,
    x: Data,
    y: Tensors | None = None,
    variant: VariantName | None = None,
    tolerances: Tolerances | None = None,
    threads: int = 1,
    task: str | Mapping[str, str] | None = None,
    *,
    target: RunsFiles | None = None,
) -> VerificationRecord:
    """Runs a .tflite file on data and compares its outputs with those of its Keras model.

    Each output is compared as a whole, and each index of its last axis against the range of that index. With labels, the loss of accuracy
    (or the rise of the error) against the Keras model on the same samples is tested too. A model that keeps state between calls is compared
    from its initial state.

    Args:
        path: The .tflite file.
        model: The Keras model that it was exported from, or what else `export_tflite` takes.
        x: Samples, in any form that `export_tflite` takes for calibration; a tuple (inputs, labels) brings its labels along.
        y: Labels: class indices (samples,) or (samples, 1), one-hot rows (samples, classes), zeros and ones, or numbers. A list, or a dict
            by output name, for several outputs.
        variant: Variant whose default tolerances apply; None takes that of the file, from the types of its weights and activations.
        tolerances: `Tolerances`; None takes the variant's. `Tolerances()` checks nothing and only measures.
        threads: CPU threads, at least 1.
        task: Task of the outputs, one of `tfdistill.tasks.TASKS`, or a dict of output name -> task. `"boxes"` (two corners), `"boxes_xywh"` and
            `"boxes_center_xywh"` are regression whose intersection over union is measured. None infers it from the labels, the compiled loss and the last activation.
        target: Device that runs the file, such as `tfdistill.benchmarking.Ssh("pi@board")`; None is this machine. Its `describe()` is the `engine` of the record.

    Returns:
        A `VerificationRecord`.

    Raises:
        ConfigurationError: if there is no such file, variant or task, or the target runs no samples.
        DataError: if samples or labels do not fit the model or the task.
        ExportError, RuntimeUnavailableError: if the file is damaged or does not run.
        DelegationError: if the target is an accelerator that leaves operations to the CPU.
        BenchmarkError: if the device cannot be reached or does not run the file.
        VerificationError: if the outputs of the file are beyond the tolerances.

    Warns:
        UserWarning: if the quantization steps of an input are too coarse for some of its features, or if a mean absolute error grows by
            half.

    Example:
        >>> model = keras.models.load_model("student.keras")
        >>> record = tfdistill.verify("student.tflite", model, x, y)
        >>> record.variant, record.argmax_agreement > 0.9, record.accuracy == record.keras_accuracy
        ('int8', True, True)
    """
    if variant is not None:
        variant_named(variant)
    require_device(target, threads)
    model = exportable(model)
    signature = describe(model)
    samples = collect(x, signature, what="verification")
    if y is not None:
        samples = dataclasses.replace(samples, labels=keras.tree.map_structure(np.asarray, y))
    record, warned = verify_samples(path, model, signature, samples, tolerances, threads, task=task, variant=variant, target=target)
    warn(warned)
    return record


def verify_samples(
    path,
    model,
    signature,
    samples,
    limits,
    threads=1,
    name=None,
    task=None,
    extreme=None,
    trusted=False,
    variant=None,
    target=None,
    streaming=None,
):
    """Does the work of `verify`, on checked `Samples`.

    Args:
        path: The .tflite file.
        model: The Keras model.
        signature: Its `ModelSignature`.
        samples: `Samples`.
        limits: `Tolerances`; None takes those of the variant.
        threads: CPU threads.
        name: Name of the file in the record; None is `path`.
        task: As in `verify`.
        extreme: Result of `extreme_calibration` for the calibration samples, for the record.
        trusted: Whether this process has just written the file.
        variant: Variant of the file; None finds it from its contents.
        target: As in `verify`.
        streaming: `Streaming` of a file whose states are inputs and outputs; model and signature are those of the stateful model. None for another file.

    Returns:
        The `VerificationRecord`, and a list of those of its notes that are also warnings.
    """
    path, shown_name = pathlib.Path(path), name or str(path)
    file = read_file(path)  # so that the census and the interpreter see the same bytes
    contents = census(file, trusted)  # before the interpreter, so that a damaged file is reported as damaged
    variant = variant or variant_of(contents)
    limits = tolerances_or_default(variant_named(variant), limits)
    opened = open_file(file, threads=threads, shapes=_shapes_of_data(signature, samples), trusted=trusted)
    streaming = streaming or streaming_of_file(model, opened)
    if streaming is None:
        model, signature = as_in_file(model, signature, opened.outputs)
    require_inputs(opened, model, streaming.signature if streaming else signature, shown_name)
    with initial_states(model):
        reference = streaming.reference if streaming else Reference(model, signature, opened.batch_size)
        expected = reference(samples.inputs)
        if target is None:
            with progress("verifying", samples.count) as advance:
                actual = (
                    opened.run_sequence(samples.inputs, streaming.firsts, advance) if streaming else opened.run(samples.inputs, advance)
                )
        elif streaming:
            raise ConfigurationError(
                f"'{shown_name}' has states as inputs and outputs, and {target.describe()} runs each sample by itself.",
                "a file without states, or no target",
            )
        else:
            actual = target.outputs(path, samples.inputs, shapes=_shapes_of_data(signature, samples))
        if {n: a.shape for n, a in actual.items()} != {n: a.shape for n, a in expected.items()}:
            raise VerificationError(
                f"'{shown_name}' gives {_shapes(actual)}, the model '{model.name}' gives {_shapes(expected)}.",
                "a file that was exported from this model",
            )
        outputs = _compare(model, signature, samples, expected, actual, task)
        steps = input_steps(file, opened, contents, trusted)
        apart = other_ranges(steps, samples, signature)
        coarse = [] if apart else coarse_inputs(steps, reference, expected, samples, signature, outputs, known=extreme or ())
    remarked = [remarks(n, output, int(np.prod(expected[n].shape[:-1])), limits) for n, output in outputs.items()]
    record = VerificationRecord(
        path=shown_name,
        sha256=contents.sha256,
        samples=samples.count,
        engine=opened.engine if target is None else target.describe(),
        max_abs_error=max(o.max_abs_error for o in outputs.values()),
        mean_abs_error=max(o.mean_abs_error for o in outputs.values()),
        argmax_agreement=lowest(o.argmax_agreement for o in outputs.values()),
        accuracy=lowest(o.accuracy for o in outputs.values()),
        keras_accuracy=lowest(o.keras_accuracy for o in outputs.values()),
        outputs=outputs,
        variant=variant,
        notes=(*apart, *(extreme or {}).values(), *coarse, *(note for notes, _ in remarked for note in notes)),
    )
    require(record, limits, bool(apart))
    return record, [*apart, *coarse, *(note for _, warned in remarked for note in warned)]


def require_inputs(opened, model, signature, name):
    """Checks that a file has the inputs of a model.

    Args:
        opened: `TFLiteModel` of the file.
        model: The Keras model.
        signature: Its `ModelSignature`.
        name: Name of the file.

    Raises:
        VerificationError: with the names of both.
    """
    if set(opened.inputs) != {i.name for i in signature.inputs}:
        raise VerificationError(
            f"'{name}' takes the inputs {sorted(opened.inputs)}, the model '{model.name}' takes {sorted(i.name for i in signature.inputs)}.",
            "a file that was exported from this model",
        )


def _compare(model, signature, samples, expected, actual, task):
    names = list(expected)
    tasks = tasks_by_output(task, names)
    hints, labels = training_hints(model, names), by_output("labels", samples.labels, names)
    return {
        name: compare(
            expected[name],
            actual[name],
            labels.get(name),
            name,
            tasks.get(name),
            **hints[name],
            reconstructed=_input_of_shape(samples, expected[name].shape),
        )
        for name in names
    }


def _input_of_shape(samples, shape):
    """Returns the first float input of this shape; None if there is none or if it has a single feature."""
    several = len(shape) > 1 and shape[-1] > 1
    return next((a for a in samples.inputs.values() if several and a.shape == shape and a.dtype.kind == "f"), None)


def tasks_by_output(task, names):
    """Returns a dict of output name -> task, from one for all, a dict or a list.

    Raises:
        ConfigurationError: if there is no such task.
    """
    given = dict.fromkeys(names, task) if task is None or isinstance(task, str) else by_output("tasks", task, names)
    for one in given.values():
        if one is not None and one not in (known := (*TASKS, *BOXES)):
            raise ConfigurationError(
                f"task={one!r} is unknown.", f"one of {known}, or a dict of output name to these", nearest(str(one), known)
            )
    return given


def _shapes_of_data(signature, samples):
    """Returns the shapes of the samples for inputs with axes of any length; None if there are no such inputs."""
    free = [i for i in signature.inputs if None in i.shape]
    return {i.name: (i.batch or 1, *samples.inputs[i.name].shape[1:]) for i in free} or None


def require_device(target, threads):
    """Refuses what runs no samples, and threads of this machine beside a device that has its own.

    Raises:
        ConfigurationError: if `target` is given and runs no samples, or `threads` is given as well.
    """
    if target is None:
        return
    if not hasattr(target, "outputs"):
        raise ConfigurationError(
            f"target={target!r} runs no samples.",
            "a target of tfdistill.benchmarking that gives outputs",
            "verify(path, model, x, target=tfdistill.benchmarking.Cpu())",
        )
    if threads != 1:
        raise ConfigurationError(f"threads={threads} and target={target.describe()!r} contradict each other.", "one of them")


def lowest(values):
    """Returns the smallest of the values that are not None; None if all are."""
    return min((v for v in values if v is not None), default=None)


def _shapes(arrays):
    return {name: tuple(array.shape) for name, array in arrays.items()}


def tolerances_or_default(variant, tolerances):
    """Returns `tolerances`, or the variant's for None.

    Raises:
        ConfigurationError: if they are not `Tolerances`.
    """
    if tolerances is None:
        return variant.tolerances
    if not isinstance(tolerances, Tolerances):
        raise ConfigurationError(f"tolerances={tolerances!r} is a {type(tolerances).__name__}.", "a tfdistill.tflite.Tolerances")
    return tolerances
