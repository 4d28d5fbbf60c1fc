"""Learns the rounding of a quantized model's weights, layer after layer, each on what the layers before it give with their own rounding.

Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization" (2020), https://arxiv.org/abs/2004.10568.
"""

import contextlib
import functools

import numpy as np

from tfdistill.bridge.adopt import introspection
from tfdistill.bridge.adopt.layers import named_layers
from tfdistill.bridge.adopt.states import initial_states
from tfdistill.bridge.wrappers.all_in_float import is_left_in_float
from tfdistill.bridge.wrappers.base import variable_at
from tfdistill.bridge.wrappers.given_weights import given_weights
from tfdistill.compress.rounding.calls import Call, Targets, first_of, kept_samples, run_with_all, seen_calls
from tfdistill.compress.rounding.grid import grid_of
from tfdistill.compress.rounding.learn import Rounding
from tfdistill.compress.rounding.record import LayerRounding, RoundingRecord
from tfdistill.compress.rounding.settings import MAX
from tfdistill.utils.progress import progress


def learn_rounding(model, units, settings, places, signature, samples):
    """Gives a quantized model weights that lie on the steps of its file, rounded up or down as learned.

    The model runs once, with all samples. What it gets to where a layer is to be called, the rounding of that layer is learned, and it goes on with the result.

    Args:
        model: `AdoptedModel` with measured ranges. Its weights are changed at the end, all at once.
        units: Dict of path to `Unit`, what `units_of` returned.
        settings: Dict of path to `AdaRound`.
        places: Dict of path to `Place` in the model without quantizers.
        signature: `ModelSignature` of the samples.
        samples: Calibration `Samples`.

    Returns:
        `RoundingRecord`.
    """
    kept = kept_samples(samples, places)
    inputs = signature.pack({name: array[kept] for name, array in samples.inputs.items()})
    layers, given, learned = named_layers(model.legacy), {}, {}
    targets = Targets(model, inputs, units, signature.inputs[0].batch)
    added = {}

    def look(unit, advance, own, args, kwargs):
        if not is_left_in_float() and unit.path not in learned:
            outputs, calls = targets.of(unit)
            # What a layer is called on later is not known yet: there it learns on what the float model calls it on.
            rounding = _rounding(layers, unit, own, [Call(args, kwargs), *calls[1:]], outputs, added, settings[unit.path].scales)
            seed = (settings[unit.path].seed, len(learned))
            learned[unit.path] = rounding.learn(settings[unit.path].steps, seed, advance)
            given[id(layers[unit.path])] = learned[unit.path].weights
            still = {other for path, waiting in units.items() if path not in learned for other in waiting.others}
            for other in added.keys() - still:
                del added[other]
        return own(*args, **kwargs)

    def keep(path, own, args, kwargs):
        outputs = own(*args, **kwargs)
        if not is_left_in_float():
            added[path] = first_of(outputs)
        return outputs

    with contextlib.ExitStack() as stack:
        stack.enter_context(initial_states(model))
        advance = stack.enter_context(progress("learning the rounding", sum(settings[path].steps for path in units)))
        stack.enter_context(given_weights(given))
        for path, unit in units.items():
            stack.enter_context(seen_calls(layers[path], functools.partial(look, unit, advance)))
        for other in {other for unit in units.values() for other in unit.others}:
            stack.enter_context(seen_calls(layers[other], functools.partial(keep, other)))
        run_with_all(model, inputs, signature.inputs[0].batch)
    rows = []
    for path, found in learned.items():
        rows.append(_row(units[path], layers[path], found))
        for name, value in found.weights.items():
            variable_at(introspection.unwrap(layers[path]), name).assign(value)
    return RoundingRecord(model.name, len(kept), tuple(rows))


def _rounding(layers, unit, own, calls, outputs, added, scales):
    """Returns the `Rounding` of a unit."""
    layer, values = layers[unit.path], _values(unit, layers[unit.path])
    grids, nearest = (
        {weight.path: grid_of(values[weight.path], weight.bits, weight.axes, way) for weight in unit.weights} for way in (scales, MAX)
    )
    sums = [added[path] for path in unit.others]

    def run(args, kwargs, sums):
        outputs, waiting = first_of(own(*args, **kwargs)), list(sums)
        for behind in unit.tail:
            if behind.other is not None:
                other = waiting.pop(0)
                outputs = [other, outputs] if behind.first else [outputs, other]
            outputs = layers[behind.path](outputs, training=False)
        return outputs

    nearest = {path: grid.rounded(grid.nearest) for path, grid in nearest.items()}
    return Rounding(layer, run, [call._replace(sums=tuple(sums)) for call in calls], outputs, grids, nearest)


def _values(unit, layer):
    """Returns a dict of a weight's path to its float32 array, with its zeros."""
    return {weight.path: np.asarray(layer.effective(weight)) for weight in unit.weights}


def _row(unit, layer, found):
    values, moved = _values(unit, layer), []
    for weight in unit.weights:
        grid = grid_of(values[weight.path], weight.bits, weight.axes, MAX)
        others = tuple(axis for axis in range(values[weight.path].ndim) if axis not in weight.axes)
        scale = np.maximum(np.abs(found.weights[weight.path]).max(others, keepdims=True), np.finfo("float32").tiny) / grid.last
        nearest = np.clip(np.round(values[weight.path] / scale), -grid.last, grid.last)
        moved.append((np.round(found.weights[weight.path] / scale) != nearest).reshape(-1))
    count = sum(len(one) for one in moved)
    power = found.power or 1.0
    return LayerRounding(
        name=unit.path,
        bits=min(weight.bits for weight in unit.weights),
        weights=count,
        nearest_error=found.nearest_error / power,
        error=found.error / power,
        learned=found.learned,
        moved=float(np.concatenate(moved).mean()),
    )
