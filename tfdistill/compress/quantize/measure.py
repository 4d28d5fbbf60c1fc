"""Measures the ranges of a quantized model on calibration data, without labels and without training."""

import typing

import numpy as np

from tfdistill.bridge.adopt import introspection
from tfdistill.bridge.adopt.layers import named_layers
from tfdistill.bridge.adopt.states import initial_states, reset_states
from tfdistill.bridge.integer.measuring import Histograms, Widest
from tfdistill.bridge.wrappers.quantization import is_quantized_layer, measured_by, range_of_input
from tfdistill.compress.quantize.clipping import best_range
from tfdistill.utils.progress import progress

MINMAX, MSE, AUTO = "minmax", "mse", "auto"
BATCH = 32
# With "auto" a tensor is clipped where that divides its squared error by at least this.
LEAST_GAIN = 2.0


class MeasuredRange(typing.NamedTuple):
    """One tensor of the file and the range that it was given.

    Attributes:
        path: Path of the layer.
        what: Which of its tensors: `"output"`, or the name of one inside.
        lowest: Smallest value that the tensor had, at most 0.
        highest: Largest value, at least 0.
        low: Lower end of its range.
        high: Upper end of its range.
    """

    path: str
    what: str
    lowest: float
    highest: float
    low: float
    high: float


def measure_ranges(model, signature, samples, methods):
    """Sets every range of a quantized model by what its tensors are on calibration data.

    Args:
        model: `AdoptedModel` with quantizers.
        signature: `ModelSignature` of the samples.
        samples: Calibration `Samples`.
        methods: Dict of path of layer to `"minmax"`, `"mse"` or `"auto"`.

    Returns:
        List of `MeasuredRange`.
    """
    runner = Runner(model, signature, samples)
    _measure_inputs(model, signature, samples)
    runner.run(Widest())
    ranges = list(_ranges(model))
    wanted = {id(low): methods.get(path, MINMAX) for path, _, low, _ in ranges}
    histograms = Histograms(key for key, method in wanted.items() if method != MINMAX)
    counts = runner.run(histograms) if any(method != MINMAX for method in wanted.values()) else {}
    found = []
    for path, what, low, high in ranges:
        lowest, highest = float(low), float(high)
        if id(low) in counts:
            best = best_range(counts[id(low)], lowest, highest)
            if wanted[id(low)] == MSE or best.gain >= LEAST_GAIN:
                low.assign(best.low)
                high.assign(best.high)
        found.append(MeasuredRange(path, what, lowest, highest, float(low), float(high)))
    return found


def _measure_inputs(model, signature, samples):
    quantizers = {
        layer.name.removeprefix("quantize_"): layer
        for layer in named_layers(model.legacy, inputs=True).values()
        if introspection.is_input_quantizer(layer)
    }
    for name, i in zip(model.legacy.input_names, signature.inputs, strict=True):
        if name in quantizers:
            low, high = range_of_input(quantizers[name])
            values = samples.inputs[i.name]
            low.assign(min(float(values.min()), 0.0))
            high.assign(max(float(values.max()), 0.0))


def _ranges(model):
    for path, layer in named_layers(model.legacy).items():
        if is_quantized_layer(layer):
            for what, low, high in introspection.ranges_of(layer):
                yield path, what, low, high


class Runner:
    """Runs a model on samples, batch by batch.

    Args:
        model: `AdoptedModel`.
        signature: `ModelSignature` of the samples.
        samples: `Samples`.
    """

    def __init__(self, model, signature, samples):
        self._model, self._signature, self._samples = model, signature, samples
        self._size = signature.inputs[0].batch or BATCH

    def run(self, measuring):
        """Measures all ranges once.

        Args:
            measuring: `Widest` or `Histograms`.

        Returns:
            Dict of id of a range's minimum variable to the histogram of all samples; empty for `Widest`.
        """
        import tensorflow as tf

        keys = []

        @tf.function(autograph=False)
        def step(arrays):
            if isinstance(measuring, Histograms):
                measuring.clear()
            self._model.legacy(self._signature.pack(arrays), training=False)
            keys[:] = counts = getattr(measuring, "counts", {})
            return list(counts.values())

        totals = []
        with progress("calibrating", self._samples.count) as advance, measured_by(measuring), initial_states(self._model) as states:
            for batch in self._batches():
                reset_states(states)
                counts = [np.asarray(found, np.float64) for found in step(batch)]
                totals = counts if not totals else [total + found for total, found in zip(totals, counts, strict=True)]
                advance(self._size)
        return dict(zip(keys, totals, strict=True))

    def _batches(self):
        import tensorflow as tf

        for batch in self._samples.batches(self._size):
            count = len(next(iter(batch.values())))
            if count < self._size and self._signature.inputs[0].batch is not None:
                batch = {name: np.concatenate([array, np.repeat(array[-1:], self._size - count, 0)]) for name, array in batch.items()}
            yield {name: tf.constant(array) for name, array in batch.items()}
