"""Measures the ranges of a quantized model on calibration data, without labels and without training."""

import math
import typing

import numpy as np

from tfdistill.bridge.adopt import introspection
from tfdistill.bridge.adopt.layers import input_quantizers, named_layers
from tfdistill.bridge.adopt.states import initial_states, reset_states
from tfdistill.bridge.adopt.trained_ranges import not_finite as not_finite_places
from tfdistill.bridge.integer.measuring import Histograms, Widest
from tfdistill.bridge.wrappers.input_quantizers import range_of_input, unrounded_inputs
from tfdistill.bridge.wrappers.quantization import is_quantized_layer, measured_by
from tfdistill.compress.quantize.clipping import best_range
from tfdistill.convert.finite import not_finite
from tfdistill.utils.progress import progress

MINMAX, MSE = "minmax", "mse"
BATCH = 32
# A range is that of the float model, unless that of the rounded one is wider by this factor.
MOST_NOISE = 1.5


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
        methods: Dict of path of layer to `"minmax"` or `"mse"`.

    Returns:
        List of `MeasuredRange`.

    Raises:
        InvariantError: if a layer computes NaN or infinite numbers on the data; the first one is named.
    """
    runner = Runner(model, signature, samples)
    _forget_ranges(model)
    _measure_inputs(model, signature, samples)
    runner.run(Widest(rounding=False))
    if first := next(not_finite_places(model.legacy), None):
        raise not_finite(model.name, first)
    ranges = list(_ranges(model))
    of_floats = {id(low): (float(low), float(high)) for _, _, low, high in ranges}
    runner.run(Widest(rounding=True))
    for _, _, low, high in ranges:
        lowest, highest = of_floats[id(low)]
        # What rounding adds is noise, whose largest values are rare, unless it is nearly all that there is.
        if float(high) - float(low) <= MOST_NOISE * (highest - lowest):
            low.assign(lowest)
            high.assign(highest)
    clipped = {id(low) for path, _, low, _ in ranges if methods.get(path) == MSE}
    counts = runner.run(Histograms(clipped)) if clipped else {}
    found = []
    for path, what, low, high in ranges:
        lowest, highest = float(low), float(high)
        if id(low) in counts:
            for variable, end in zip((low, high), best_range(counts[id(low)], lowest, highest), strict=True):
                variable.assign(end)
        found.append(MeasuredRange(path, what, lowest, highest, float(low), float(high)))
    return found


def _forget_ranges(model):
    """Lets the first values that are seen take the place of ranges that were measured before."""
    for layer in named_layers(model.legacy).values():
        if is_quantized_layer(layer):
            for _, _, batches in layer.ranges.values():
                if batches is not None:
                    batches.assign(0.0)


def _measure_inputs(model, signature, samples):
    quantizers = {layer.name.removeprefix("quantize_"): layer for layer in input_quantizers(model.legacy)}
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
        most = signature.inputs[0].batch or BATCH
        # Batches of one size, so that only few samples are repeated to fill the last one.
        self._size = signature.inputs[0].batch or math.ceil(samples.count / math.ceil(samples.count / most))

    def run(self, measuring):
        """Measures all ranges once.

        Args:
            measuring: `Widest` or `Histograms`.

        Returns:
            Dict of id of a range's minimum variable to the histogram of all samples; empty for `Widest`.
        """
        import tensorflow as tf

        keys, totals, step = [], [], None

        def measure(arrays):
            self._model.legacy(self._signature.pack(arrays), training=False)
            keys[:] = counts = getattr(measuring, "counts", {})
            return list(counts.values())

        unrounded = [] if measuring.rounding else input_quantizers(self._model.legacy)
        with (
            progress("calibrating", self._samples.count) as advance,
            measured_by(measuring),
            unrounded_inputs(unrounded),
            initial_states(self._model) as states,
        ):
            for batch in self._batches():
                reset_states(states)
                step = step or tf.function(measure, autograph=False).get_concrete_function(batch)
                counts = [np.asarray(found, np.float64) for found in step(batch)]
                totals = [total + found for total, found in zip(totals, counts, strict=True)] if totals else counts
                advance(self._size)
        return dict(zip(keys, totals, strict=True))

    def _batches(self):
        import tensorflow as tf

        for batch in self._samples.batches(self._size):
            missing = self._size - len(next(iter(batch.values())))
            yield {name: tf.constant(np.concatenate([array, np.repeat(array[-1:], missing, 0)])) for name, array in batch.items()}
