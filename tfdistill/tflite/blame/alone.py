"""What the rounding of each layer does to a quantized model: each layer alone quantized, and each layer alone left in float."""

import dataclasses
import typing

import keras
import numpy as np

from tfdistill.bridge.adopt.adopt import AdoptedModel
from tfdistill.bridge.adopt.trained_ranges import quantized_layers
from tfdistill.bridge.wrappers.quantization import is_quantized_layer
from tfdistill.compress.bits.switches import Switches, worst_share
from tfdistill.compress.quantize.calibrate import Quantize
from tfdistill.convert.samples import collect
from tfdistill.convert.signature import describe
from tfdistill.errors import ConfigurationError, ModelError
from tfdistill.records import Record
from tfdistill.tflite.source import exportable
from tfdistill.tflite.verification.comparison import compare
from tfdistill.tflite.verification.reference import by_output, training_hints
from tfdistill.tflite.verification.verify import lowest, tasks_by_output
from tfdistill.utils import validate
from tfdistill.utils.arguments import explains_arguments
from tfdistill.utils.progress import progress
from tfdistill.utils.types import Data, PathLike

MAX_SAMPLES = 64


@dataclasses.dataclass(frozen=True)
class LayerAlone(Record):
    """What the rounding of one layer does: of its weights, and of the outputs that have a range in it.

    Attributes:
        name: Path of the layer; name of the input for the rounding of an input.
        alone_error: Error of the outputs if nothing but this layer is rounded: root mean square of the difference to the float outputs, as a share of their standard
            deviation; of several outputs the largest.
        rest_error: The same if everything but this layer is rounded.
        gain: How much smaller the error of the quantized model is if this layer stays in float. Below 0 where its rounding cancels another.
        alone_accuracy: Accuracy (0 to 1) if nothing but this layer is rounded; None without labels of classes or decisions.
        rest_accuracy: The same if everything but this layer is rounded.

    Example:
        >>> found = tfdistill.tflite.layers_alone(student, x, calibration=x)
        >>> row = found.layers[0]
        >>> row.name, 0 < row.alone_error < 0.1, row.gain == found.quantized_error - row.rest_error
        ('image', True, True)
    """

    name: str
    alone_error: float
    rest_error: float
    gain: float
    alone_accuracy: float | None = None
    rest_accuracy: float | None = None


@dataclasses.dataclass(frozen=True)
class LayersAlone(Record):
    """The result of `layers_alone`.

    Attributes:
        model: Name of the model.
        samples: Number of samples.
        quantized_error: Error of the outputs with everything rounded, as `LayerAlone.alone_error`.
        float_accuracy: Accuracy (0 to 1) with nothing rounded; None without labels of classes or decisions.
        quantized_accuracy: The same with everything rounded.
        layers: The inputs, then the layers in the order of the model.

    Example:
        >>> found = tfdistill.tflite.layers_alone(student, (x, y), calibration=x)
        >>> [row.name for row in found.layers], found.float_accuracy is not None
        (['image', 'conv', 'relu', 'pool', 'logits'], True)
    """

    model: str
    samples: int
    quantized_error: float
    float_accuracy: float | None
    quantized_accuracy: float | None
    layers: tuple[LayerAlone, ...]

    @property
    def worst_first(self) -> tuple[LayerAlone, ...]:
        """The layers by `alone_error`, the largest first."""
        return tuple(sorted(self.layers, key=lambda row: -row.alone_error))

    def parts(self) -> dict[str, typing.Any]:
        """Returns the table of the layers, the worst first."""
        return {"layers": self.worst_first}


@explains_arguments(x="give the samples as data=")
def layers_alone(
    model: keras.Model | PathLike,
    data: Data,
    calibration: Data | None = None,
    step: Quantize | None = None,
    task: str | None = None,
    max_samples: int = MAX_SAMPLES,
) -> LayersAlone:
    """Measures what the rounding of each layer does to the outputs of an int8 model: with that layer alone rounded, and with all others rounded.

    The first says what a layer costs by itself, the second what is won where it stays wider. Both are measured on the rounding as the int8 file has it, by running
    the quantized graph, two times for each layer: no file is written and nothing is trained.

    Args:
        model: A Keras model, which is calibrated first; or one that `QuantizeAware` or `Quantize` returned, with its own ranges.
        data: Samples to measure on, in any form that `export_tflite` takes for calibration; a tuple (inputs, labels) gives accuracies too.
        calibration: Samples for the ranges of a float model; at least 16.
        step: Settings of the calibration: `tfdistill.compress.Quantize`. None takes the defaults. Biases are not corrected here, whatever it says.
        task: Task of the outputs, as `verify` takes it.
        max_samples: Largest number of samples that is measured on, at least 1.

    Returns:
        `LayersAlone`; `print` shows the layers, the worst first.

    Raises:
        ConfigurationError: if a quantized model is given with calibration data or settings.
        DataError: if samples or calibration data do not fit the model, or are missing.
        ModelError, BridgeError: if the model cannot be quantized, or was quantized by another library.

    Example:
        >>> found = tfdistill.tflite.layers_alone(student, x, calibration=x)
        >>> worst = found.worst_first[0]
        >>> worst.alone_error == max(row.alone_error for row in found.layers)
        True
    """
    validate.whole_number("max_samples", max_samples, at_least=1)
    quantized = _quantized(exportable(model), calibration, step)
    signature = describe(quantized)
    samples = collect(data, signature, "comparison", 1, max_samples)
    switches = Switches(quantized, signature)
    judge = _Judge(quantized, signature, samples, switches, task)
    count = len(switches.names)
    with progress("rounding each layer alone", 2 * count + 1) as advance:
        everything = judge(np.ones(count, bool))
        advance()
        rows = []
        for place, name in enumerate(switches.names):
            one = np.arange(count) == place
            alone, rest = judge(one), judge(~one)
            rows.append(LayerAlone(name, alone[0], rest[0], everything[0] - rest[0], alone[1], rest[1]))
            advance(2)
    return LayersAlone(quantized.name, samples.count, everything[0], judge.float_accuracy, everything[1], tuple(rows))


def _quantized(model, calibration, step):
    ready = isinstance(model, AdoptedModel) and quantized_layers(model.legacy)
    if not ready:
        # Corrected biases would stand against roundings that are switched off.
        return dataclasses.replace(step or Quantize(), bias_correction=False).apply(model, calibration=calibration)
    if calibration is not None or step is not None:
        raise ConfigurationError(
            f"'{model.name}' is quantized already, and {'step=' if step is not None else 'calibration='} was given.",
            "a float model, or a quantized one alone",
            "leave calibration= and step= out",
        )
    if any(not is_quantized_layer(layer) for layer in ready):
        raise ModelError(
            f"'{model.name}' was quantized by tensorflow-model-optimization, whose wrappers cannot be switched off.",
            "a model of QuantizeAware or Quantize",
            "give the float model, and calibration=",
        )
    return model


class _Judge:
    """Compares the outputs with some layers rounded with those of the float model."""

    def __init__(self, model, signature, samples, switches, task):
        self._samples, self._switches = samples, switches
        self._floats = switches.run(samples, np.zeros(len(switches.names), bool))
        names = list(self._floats)
        self._tasks, self._labels = tasks_by_output(task, names), by_output("labels", samples.labels, names)
        self._hints = training_hints(model, names)
        self.float_accuracy = None
        if self._labels:
            self.float_accuracy = self._accuracy(self._floats)

    def __call__(self, switches):
        """Returns the error and the accuracy, or None, with these layers rounded."""
        outputs = self._switches.run(self._samples, switches)
        return worst_share(self._floats, outputs), self._accuracy(outputs) if self._labels else None

    def _accuracy(self, outputs):
        compared = [
            compare(self._floats[name], outputs[name], labels, name, self._tasks.get(name), **self._hints[name])
            for name, labels in self._labels.items()
        ]
        return lowest(one.accuracy for one in compared)
