"""Compares a .tflite file with its Keras model layer by layer: which layer an error comes from, and how it goes on from there."""

import dataclasses
import pathlib
import typing

import keras
import numpy as np

from tfdistill.compress import rebuild
from tfdistill.convert.computed_tensors import computed_tensors
from tfdistill.convert.samples import collect
from tfdistill.convert.signature import describe
from tfdistill.errors import VerificationError
from tfdistill.records import Record
from tfdistill.runtime.interpreter import open_file, read_file
from tfdistill.runtime.tensors import pad_batch
from tfdistill.tflite.blame.calls import LayerCalls
from tfdistill.tflite.blame.matching import matches
from tfdistill.tflite.blame.sums import ErrorSums
from tfdistill.tflite.source import exportable
from tfdistill.tflite.split import as_in_file
from tfdistill.tflite.verification.verify import require_inputs
from tfdistill.utils import validate
from tfdistill.utils.arguments import explains_arguments
from tfdistill.utils.progress import progress
from tfdistill.utils.types import Data, PathLike

# The errors hardly change with more samples.
MAX_SAMPLES = 128
_BATCH = 32


@dataclasses.dataclass(frozen=True)
class LayerError(Record):
    """How the output of one layer in a file differs from that of the Keras model.

    Attributes:
        name: Path of the layer; with `@1` for its second call. Name of the input for an input.
        layers: Paths of the layers that the file computes in one with it, or that have no tensor of their own: those since the layers of the rows before, itself
            last. Empty for an input.
        operation: TFLite's operation that computes the tensor; empty for an input.
        matched: How the tensor was found: `"input"` or `"output"` of the model, by its `"name"`, or by its `"values"`.
        spread: Standard deviation of the layer's float output over the samples, in its own unit.
        own_error: The error that arises here: root mean square of the difference between the file's output and what the float layers make of the file's own
            values before them, as a share of the standard deviation of the latter. 0 is exact; 1 is no better than a constant.
        total_error: The error that has come together up to here: the same against the layer's output in the float model, as a share of `spread`.
        max_abs_error: Largest absolute difference to the float model's output, in its unit.

    Example:
        >>> row = tfdistill.tflite.layer_error(student, "student.tflite", x).layers[0]
        >>> row.name, row.matched, row.own_error == row.total_error < 0.02
        ('image', 'input', True)
    """

    name: str
    layers: tuple[str, ...]
    operation: str
    matched: str
    spread: float
    own_error: float
    total_error: float
    max_abs_error: float

    def summary(self) -> dict[str, typing.Any]:
        """Returns the fields of a table."""
        names = ("name", "operation", "own_error", "total_error", "max_abs_error", "matched")
        return {name: getattr(self, name) for name in names} | {"layers": ", ".join(self.layers[:-1])}


@dataclasses.dataclass(frozen=True)
class LayerErrors(Record):
    """The result of `layer_error`.

    Attributes:
        model: Name of the Keras model.
        path: The file.
        sha256: SHA-256 of the file, in hexadecimal digits.
        samples: Number of samples.
        layers: The inputs, then the layers in the order of the graph, as `LayerError`.
        unmatched: Names of the layers' calls of which no row tells: none that comes after them has a tensor in the file.

    Example:
        >>> found = tfdistill.tflite.layer_error(student, "student.tflite", x)
        >>> [row.name for row in found.layers], found.layers[1].layers
        (['image', 'relu', 'pool', 'logits'], ('conv', 'norm', 'relu'))
        >>> found.worst.own_error == max(row.own_error for row in found.layers)
        True
        >>> found.plot("layers.png").name
        'layers.png'
    """

    model: str
    path: str
    sha256: str
    samples: int
    layers: tuple[LayerError, ...]
    unmatched: tuple[str, ...] = ()

    @property
    def worst_first(self) -> tuple[LayerError, ...]:
        """The rows by `own_error`, the largest first."""
        return tuple(sorted(self.layers, key=lambda row: -row.own_error))

    @property
    def worst(self) -> LayerError:
        """The row with the largest `own_error`."""
        return self.worst_first[0]

    def plot(self, path: PathLike) -> pathlib.Path:
        """Draws both errors of every layer, in the order of the graph.

        Args:
            path: The picture to write, ending in .png, .svg or .pdf; it appears whole or not at all.

        Returns:
            The path.

        Raises:
            MissingPackageError: without matplotlib.
        """
        from tfdistill.report.layer_plots import layer_error_picture

        return layer_error_picture(self, pathlib.Path(path))

    def summary(self) -> dict[str, typing.Any]:
        """Returns the fields of the first table."""
        return {"model": self.model, "path": self.path, "samples": self.samples, "worst": self.worst.name, "unmatched": self.unmatched}

    def parts(self) -> dict[str, typing.Any]:
        """Returns the table of the layers, the worst first."""
        return {"layers": self.worst_first}


@explains_arguments(x="give the samples as data=", calibration="give the samples as data=")
def layer_error(model: keras.Model | PathLike, file: PathLike, data: Data, max_samples: int = MAX_SAMPLES) -> LayerErrors:
    """Compares every layer's output in a .tflite file with that of the float model, and says in which layer the error arises.

    An error of the first layer is seen in all layers behind it. So there are two figures for each layer: the whole difference to the float model, and the part that
    arises there, for which the float layer is run on what the file computed before it. The layer with the largest part is the one to look at: to leave it wider,
    to mend its range, its weights, or the data if it is an input.

    Layers and tensors belong together by the names that the converter writes into a file, in which the layers' names stand; this library shortens them, but keeps the layers' names. A
    fused operation counts for the last of its layers. Tensors without a layer's name, as in files of other tools, are taken for the layer whose float output
    goes together with them, by a correlation of at least 0.95. The file runs in LiteRT's built-in kernels, as XNNPACK keeps no tensors inside.

    Args:
        model: The float Keras model, or what else `export_tflite` takes. Of a model that is quantized already, its simulated rounding is what the file is compared with.
        file: The .tflite file.
        data: Samples as the model takes them, in any form that `export_tflite` takes for calibration; labels are not used.
        max_samples: Largest number of samples, at least 1: evenly spaced ones of arrays, the first of a dataset.

    Returns:
        `LayerErrors`; `print` shows the layers, the worst first.

    Raises:
        ConfigurationError: if there is no such file.
        DataError: if the samples do not fit the model.
        ModelError, BridgeError: if the model has no tf_keras form, whose layers are run.
        ExportError, RuntimeUnavailableError: if the file is damaged or does not run.
        VerificationError: if its inputs are not those of the model.

    Example:
        >>> found = tfdistill.tflite.layer_error(student, "student.tflite", x)
        >>> found.samples, found.worst.own_error < 0.1
        (64, True)
    """
    validate.whole_number("max_samples", max_samples, at_least=1)
    model, source = exportable(model), read_file(file)
    signature = describe(model)
    samples = collect(data, signature, "comparison", 1, max_samples)
    opened = open_file(source, xnnpack=False, keep_tensors=True, shapes=_shapes(signature, samples))
    entries = _paired_inputs(opened, model, signature, str(file))
    model, signature = as_in_file(model, signature, opened.outputs)
    _require_shapes(entries, samples, str(file), model.name)
    size = signature.inputs[0].batch or min(_BATCH, samples.count)
    calls = LayerCalls(rebuild.open_model(model), size, [samples.inputs[i.name].shape[1:] for i in signature.inputs])
    tensors = [t for t in computed_tensors(source) if t.index not in {info.index for info in opened.inputs.values()}]
    inside, run = _inputs_inside(entries, tensors), None
    sums: dict[tuple[str, str], ErrorSums] = {}
    with progress("comparing layers", samples.count) as advance:
        for batch in samples.batches(size):
            count = len(next(iter(batch.values())))
            batch = pad_batch(batch, size)
            arrays = [batch[i.name] for i in signature.inputs]
            floats = calls.floats(arrays)
            if run is None:
                values = _run_file(opened, entries, batch, [*inside.values(), *(t.index for t in tensors)])
                found = matches(calls.calls, calls.makers, _outputs(opened, signature, calls), tensors, floats, values)
                run = calls.of_file(set(found))
            else:
                values = _run_file(opened, entries, batch, [*inside.values(), *(match.tensor for match in found.values())])
            read = [values[inside[i.name]].reshape(batch[i.name].shape) for i in signature.inputs]
            local = run(read, {name: values[match.tensor] for name, match in found.items()})
            for i, array, given in zip(signature.inputs, arrays, read, strict=True):
                sums.setdefault(("input", i.key), ErrorSums()).add(array[:count], array[:count], given[:count])
            for name, match in found.items():
                sums.setdefault(("call", name), ErrorSums()).add(floats[name][:count], local[name][:count], values[match.tensor][:count])
            advance(count)
    operations, behind = {t.index: t.operation for t in tensors}, calls.behind(set(found))
    rows = [LayerError(i.key, (), "", "input", **sums["input", i.key].figures()) for i in signature.inputs]
    for call in calls.calls:
        if match := found.get(call.name):
            figures = sums["call", call.name].figures()
            rows.append(LayerError(call.name, behind[call.name], operations.get(match.tensor, ""), match.by, **figures))
    told = {name for names in behind.values() for name in names}
    unmatched = tuple(call.name for call in calls.calls if call.path not in told)
    return LayerErrors(model.name, str(file), source.sha256, samples.count, tuple(rows), unmatched)


def _shapes(signature, samples):
    free = any(None in i.shape for i in signature.inputs)
    return {i.name: (i.batch or 1, *samples.inputs[i.name].shape[1:]) for i in signature.inputs} if free else None


def _paired_inputs(opened, model, signature, file):
    """Dict of the name of a model's input -> `TensorInfo` of the file's: by their names, or by their order in a file of another tool."""
    if len(opened.inputs) != len(signature.inputs):
        require_inputs(opened, model, signature, file)
    names = [i.name for i in signature.inputs]
    return opened.inputs if set(opened.inputs) == set(names) else dict(zip(names, opened.inputs.values(), strict=True))


def _require_shapes(entries, samples, file, name):
    for key, info in entries.items():
        if info.shape[1:] != (shape := samples.inputs[key].shape[1:]):
            raise VerificationError(
                f"'{file}' takes the input '{key}' in the shape {info.shape[1:]}, the model '{name}' in {shape}.",
                "a file that was exported from this model",
            )


def _inputs_inside(entries, tensors):
    """Dict of input name -> index of the tensor that the file computes on: of an input of floats that it quantizes first, the integers."""
    first = {t.reads: t.index for t in reversed(tensors) if t.operation == "QUANTIZE"}
    return {name: first.get(info.index, info.index) for name, info in entries.items()}


def _outputs(opened, signature, calls):
    """Indices of the file's outputs in the order of the model's: by their names, or else by their order."""
    names = list(signature.name_outputs(calls.outputs))
    infos = opened.outputs if set(names) == set(opened.outputs) else dict(zip(names, opened.outputs.values(), strict=False))
    return [infos[name].index if name in infos else -1 for name in names]


def _run_file(opened, entries, batch, indices):
    """Runs a file on a batch of samples; returns a dict of index of tensor -> (samples, elements), of those that hold real values."""
    found, step = {}, opened.batch_size
    count = len(next(iter(batch.values())))
    for start in range(0, count, step):
        part = {name: array[start : start + step] for name, array in batch.items()}
        size = len(next(iter(part.values())))
        part = pad_batch(part, step) if size < step else part
        opened.reset()
        arrays = {info.index: info.quantize(part[name]) for name, info in entries.items()}
        opened.set_inputs({name: arrays[info.index] for name, info in opened.inputs.items()})
        opened.invoke()
        for index, values in opened.read_tensors(indices).items():
            if values.size and values.size % step == 0 and (values.dtype.kind == "f" or index in {i.index for i in opened.inputs.values()}):
                found.setdefault(index, []).append(values.reshape(step, -1)[:size])
    return {index: np.concatenate(parts) for index, parts in found.items()}
