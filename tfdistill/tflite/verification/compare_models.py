"""Runs two models on the same data, each a Keras model or a .tflite file, and compares their outputs."""

import dataclasses
import os
import pathlib
import typing
from collections.abc import Mapping

import keras
import numpy as np

from tfdistill.bridge.adopt.states import initial_states
from tfdistill.convert.samples import collect
from tfdistill.convert.signature import ModelInput, ModelSignature, describe
from tfdistill.errors import ModelError
from tfdistill.records import Record
from tfdistill.runtime.interpreter import open_file
from tfdistill.tflite.source import exportable
from tfdistill.tflite.verification.comparison import compare as compare_output
from tfdistill.tflite.verification.figures import OutputComparison
from tfdistill.tflite.verification.reference import Reference, by_output, training_hints
from tfdistill.tflite.verification.verify import lowest, tasks_by_output
from tfdistill.utils.arguments import explains_arguments
from tfdistill.utils.progress import progress
from tfdistill.utils.types import Data, PathLike, Tensors

# What the fields of an `OutputComparison` call the first model is what verification compares a file with.
_FIRST = "keras"


@dataclasses.dataclass(frozen=True)
class ModelComparison(Record):
    """The result of `compare`: how the outputs of a second model differ from those of a first.

    Attributes:
        first: Name of the first model, or path of its file.
        second: The same of the second.
        samples: Number of samples compared.
        max_abs_error: Largest absolute difference over all outputs.
        mean_abs_error: Largest mean absolute difference of an output.
        argmax_agreement: Lowest share (0 to 1) of samples, of an output, for which both predict the same class; None without classes.
        first_accuracy: Lowest accuracy of the first model (0 to 1) over the outputs with labels of classes or decisions; None without such labels.
        second_accuracy: The same of the second.
        outputs: Output name of the first model -> `OutputComparison`: what stands there of Keras is the first model's, of the file the second's.

    Example:
        >>> record = tfdistill.compare(student, "student.tflite", x, y)
        >>> record.samples, record.argmax_agreement > 0.9, record.outputs["logits"].worst_samples[0] < 64
        (64, True, True)
    """

    first: str
    second: str
    samples: int
    max_abs_error: float
    mean_abs_error: float
    argmax_agreement: float | None
    first_accuracy: float | None
    second_accuracy: float | None
    outputs: dict[str, OutputComparison]

    def parts(self) -> dict[str, typing.Any]:
        """Returns the table of the outputs, in which the models are called first and second."""
        return {"outputs": {name: _Named(output) for name, output in self.outputs.items()}}


class _Named:
    """An output's comparison as a row of a table."""

    def __init__(self, output):
        self._output = output

    def summary(self):
        values = self._output.summary()
        values["second_accuracy"] = values.pop("accuracy")
        return {name.replace(_FIRST, "first"): value for name, value in values.items()} | {"worst_samples": self._output.worst_samples}


@explains_arguments(data="give the samples as x=", labels="give the labels as y=")
def compare(
    first: keras.Model | PathLike,
    second: keras.Model | PathLike,
    x: Data,
    y: Tensors | None = None,
    task: str | Mapping[str, str] | None = None,
    threads: int = 1,
) -> ModelComparison:
    """Runs two models on the same data and compares their outputs, with the measures of `verify`, but without limits.

    Two versions of a model, a model and its file, or two files: what changed, in which output and at which index, and on which samples most. Inputs and outputs
    belong together by their names, or by their order where the names differ and the shapes do not.

    Args:
        first: A Keras model, what else `export_tflite` takes, or the path of a .tflite file. The second is measured against it.
        second: The same.
        x: Samples in the structure of the first model, in any form that `export_tflite` takes for calibration; a tuple (inputs, labels) brings its labels along.
            Real values, whatever types a file's inputs have.
        y: Labels, as `verify` takes them.
        task: Task of the outputs, as `verify` takes it.
        threads: CPU threads of files, at least 1.

    Returns:
        A `ModelComparison`; `print` shows it as tables.

    Raises:
        ConfigurationError: if there is no such file or task.
        ModelError: if inputs or outputs of the two do not belong together.
        DataError: if samples or labels do not fit, or the first model's outputs are not finite.
        ExportError, RuntimeUnavailableError: if a file is damaged or does not run.
        VerificationError: if the second model's outputs are not finite.

    Example:
        >>> record = tfdistill.compare("teacher.keras", "student.keras", x, y)
        >>> record.first_accuracy <= 1.0, sorted(record.outputs)
        (True, ['logits'])
    """
    models = [Runner(given, threads) for given in (first, second)]
    samples = collect(x, models[0].signature, what="comparison")
    labels = samples.labels if y is None else keras.tree.map_structure(np.asarray, y)
    names = paired_names(models, "inputs", [{i.name: i.shape for i in model.signature.inputs} for model in models])
    # A model with states runs on batches of the other's size, as they depend on it.
    batch = max(model.batch for model in models)
    expected = models[0].run(samples.inputs, batch)
    actual = models[1].run({names[name]: array for name, array in samples.inputs.items()}, batch)
    names = paired_names(models, "outputs", [{name: array.shape for name, array in found.items()} for found in (expected, actual)])
    hints, labels = models[0].hints(list(expected)), by_output("labels", labels, list(expected))
    tasks = tasks_by_output(task, list(expected))
    outputs = {
        name: compare_output(
            array, actual[names[name]], labels.get(name), name, tasks.get(name), **hints[name], who=[model.described for model in models]
        )
        for name, array in expected.items()
    }
    return ModelComparison(
        models[0].name,
        models[1].name,
        samples.count,
        max(o.max_abs_error for o in outputs.values()),
        max(o.mean_abs_error for o in outputs.values()),
        lowest(o.argmax_agreement for o in outputs.values()),
        lowest(o.keras_accuracy for o in outputs.values()),
        lowest(o.accuracy for o in outputs.values()),
        outputs,
    )


class Runner:
    """A Keras model or a .tflite file that is run on data.

    Args:
        given: A Keras model, what else `export_tflite` takes, or the path of a .tflite file.
        threads: CPU threads of a file.

    Attributes:
        name: What the record calls it.
        described: The same for messages.
        signature: `ModelSignature`.
        batch: Batch size that its states go with; 1 for a Keras model, which takes any.
    """

    def __init__(self, given, threads):
        if isinstance(given, (str, os.PathLike)) and pathlib.Path(given).suffix == ".tflite":
            self.file, self.model = open_file(given, threads=threads), None
            self._open = lambda shapes: open_file(given, threads=threads, shapes=shapes)
            self.name, self.batch = str(given), self.file.batch_size
            self.described = f"file '{given}'"
            self.signature = _signature(self.file)
        else:
            self.file, self.model = None, exportable(given)
            self.signature = describe(self.model)
            self.name, self.batch = str(given) if isinstance(given, (str, os.PathLike)) else self.model.name, 1
            self.described = f"model '{self.name}'"

    def run(self, inputs, batch):
        """Runs it.

        Args:
            inputs: Dict of input name -> array (samples, ...).
            batch: Batch size that states go with.

        Returns:
            Dict of output name -> array (samples, ...).
        """
        with progress(f"running {self.name}", len(next(iter(inputs.values())))) as advance:
            if self.model is not None:
                with initial_states(self.model):
                    return Reference(self.model, self.signature, batch)(inputs)
            free = {i.name: (1, *inputs[i.name].shape[1:]) for i in self.signature.inputs if None in i.shape}
            return (self._open(free) if free else self.file).run(inputs, advance)

    def hints(self, names):
        """Returns how each output was trained, as far as it is known."""
        return training_hints(self.model, names) if self.model is not None else {name: {} for name in names}


def _signature(file):
    """Returns the `ModelSignature` of an opened file, which is given real values."""
    inputs = tuple(
        ModelInput(name, name, None, tuple((info.signature or info.shape)[1:]), "float32" if info.scale is not None else info.dtype)
        for name, info in file.inputs.items()
    )
    return ModelSignature(inputs, [i.name for i in inputs], None)


def paired_names(models, what, shapes):
    """Returns which inputs or outputs of two models belong together: by their names, or else by their order.

    Args:
        models: The two `Runner`s.
        what: `"inputs"` or `"outputs"`, for errors.
        shapes: For each, a dict of name -> shape.

    Returns:
        Dict of a name of the first model -> that of the second.

    Raises:
        ModelError: if their numbers or shapes differ.
    """
    first, second = shapes
    if set(first) == set(second):
        names = {name: name for name in first}
    else:
        names = dict(zip(first, second, strict=False)) if len(first) == len(second) else {}
    if not names or any(not _fit(first[name], second[other]) for name, other in names.items()):
        listed = [", ".join(f"'{name}' {tuple(shape)}" for name, shape in one.items()) for one in shapes]
        raise ModelError(
            f"The {models[0].described} has the {what} {listed[0]}; the {models[1].described} has {listed[1]}.",
            f"the same {what}, by name or by order, in the same shapes",
        )
    return names


def _fit(shape, other):
    return len(shape) == len(other) and all(a is None or b is None or a == b for a, b in zip(shape, other, strict=True))
