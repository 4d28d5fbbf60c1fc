"""Finds samples that stretch a quantization range, and input features that the quantization steps are too coarse for."""

import warnings

import numpy as np

from tfdistill import tasks

# With fewer samples it is unknown which of them is unusual.
_FEW = 16
# Samples are extreme if the range is at least `STRETCH` times that of all others. At most this share of the samples can be extreme.
STRETCH = 5.0
MOST_EXTREME = 0.05
# A feature is coarse if its range is fewer steps than this.
FEW_STEPS = 8
# Coarse features are reported if rounding them changes more than this share of an output's variation or decisions in the Keras model.
COARSE_LOSS = 0.05
# Samples are on another scale than the file's integers if one of the two ranges is this many times as wide.
OTHER_SCALE = 20.0
_SHOWN = 8


def stretching_samples(low, high):
    """Finds the few samples without which a quantization range would be at most a fifth as wide.

    A range reaches from the smallest to the largest value and includes 0, as in TFLite.

    Args:
        low: Smallest value of each sample, (samples,).
        high: Largest value of each sample, (samples,).

    Returns:
        Array of positions, the most extreme first. At most 5 % of the samples (but at least one) can be extreme; empty if there are none.

    Example:
        >>> values = np.r_[np.linspace(-1, 1, 40), 900.0]
        >>> stretching_samples(values, values)
        array([40])
    """
    low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
    if len(low) < _FEW:
        return np.arange(0)
    centre = np.median((low + high) / 2)
    order = np.argsort(-np.maximum(high - centre, centre - low), kind="stable")
    whole = _width(low, high)
    for count in range(1, max(1, int(MOST_EXTREME * len(order))) + 1):
        rest = order[count:]
        if 0 < STRETCH * _width(low[rest], high[rest]) <= whole:
            return order[:count]
    return order[:0]


def _width(low, high):
    return max(float(high.max()), 0.0) - min(float(low.min()), 0.0)


def extreme_calibration(samples, signature):
    """Describes the calibration samples that stretch the integer range of an input.

    Args:
        samples: Calibration `Samples`.
        signature: The model's `ModelSignature`.

    Returns:
        Dict of input name -> sentence, for each input that has such samples.
    """
    notes = {}
    for i in signature.inputs:
        array = samples.inputs[i.name]
        if array.dtype.kind != "f" or not array.size:
            continue
        rows = array.reshape(samples.count, -1)
        extreme = stretching_samples(rows.min(1), rows.max(1))
        if not len(extreme):
            continue
        rest = np.delete(rows, extreme, axis=0)
        steps = 255 * _width(rest, rest) / _width(rows, rows)
        named = _listed(sorted(int(p) for p in samples.positions[extreme]))
        notes[i.name] = (
            f"Calibration {'sample' if len(extreme) == 1 else 'samples'} {named} of input '{i.key}' {'reaches' if len(extreme) == 1 else 'reach'} "
            f"from {rows[extreme].min():.4g} to {rows[extreme].max():.4g}, all others from {rest.min():.4g} to {rest.max():.4g}: "
            f"these get {steps:.1f} of the 255 steps of int8. "
            f"Leave {'it' if len(extreme) == 1 else 'them'} out of the calibration data, or clip the input."
        )
    return notes


def coarse_inputs(steps, reference, expected, samples, signature, outputs, known=()):
    """Describes the input features that the quantization steps of the file are too coarse for.

    The Keras model is run on inputs whose coarse features are rounded as in the file. Only features whose rounding changes its decisions or
    outputs are
    reported: a feature of few steps that the model hardly uses is harmless.

    Args:
        steps: Result of `input_steps`.
        reference: The model's `Reference`.
        expected: Its outputs for `samples`.
        samples: `Samples`.
        signature: The model's `ModelSignature`.
        outputs: Dict of output name -> `OutputComparison`.
        known: Names of inputs to leave out, because the reason of their coarse steps is reported already.

    Returns:
        List of sentences, one for each such input.
    """
    notes = []
    for i in signature.inputs:
        array = samples.inputs[i.name]
        if i.name in known or i.name not in steps or array.dtype.kind != "f" or array.ndim < 2:
            continue
        step, zero, kind = steps[i.name]
        spread = _ordinary_spread(array)
        coarse = np.flatnonzero((spread > 0) & (spread < FEW_STEPS * step))
        if not len(coarse):
            continue
        limits = np.iinfo(kind)
        rounded = array.copy()
        rounded[..., coarse] = (np.clip(np.round(array[..., coarse] / step) + zero, limits.min, limits.max) - zero) * step
        lost = _loss(expected, reference({**samples.inputs, i.name: rounded}), outputs)
        if lost <= COARSE_LOSS:
            continue
        own_step = _width_of_features(array)[coarse] / 255
        splittable = coarse[spread[coarse] >= FEW_STEPS * own_step]
        features = ", ".join(f"{j} ({spread[j] / step:.2g} steps)" for j in coarse[:_SHOWN]) + (", ..." if len(coarse) > _SHOWN else "")
        notes.append(
            f"The file reads input '{i.key}' in steps of {step:.4g}, too coarse for "
            f"{'feature' if len(coarse) == 1 else 'features'} {features}: rounding "
            f"{'it' if len(coarse) == 1 else 'them'} alone costs the Keras model {min(lost, 1):.0%} of an output's variation or decisions. "
            "Normalize the features before they reach the model"
            + (f", or give {_listed([int(j) for j in splittable])} inputs of their own." if len(splittable) == len(coarse) else ".")
        )
    return notes


def coarse_features(array, steps=FEW_STEPS):
    """Finds the features of an input that get few of the 255 steps of int8, as one scale is for all of them.

    Args:
        array: Samples (samples, ..., features) of floats.
        steps: A feature whose range is fewer steps than this is coarse. One that does not vary is not.

    Returns:
        Tuple of the size of a step, an array of the indices of the coarse features, and the number of steps of each of these.
    """
    step = _width(array, array) / 255
    spread = _ordinary_spread(array)
    coarse = np.flatnonzero((spread > 0) & (spread < steps * step))
    return step, coarse, spread[coarse] / step


def other_ranges(steps, samples, signature):
    """Describes the inputs whose samples lie on another scale than the integers of the file, such as 0 to 255 where it reads 0 to 1.

    Args:
        steps: Result of `input_steps`.
        samples: `Samples`.
        signature: The model's `ModelSignature`.

    Returns:
        List of sentences, one for each such input, with both ranges.
    """
    notes = []
    for i in signature.inputs:
        array = samples.inputs[i.name]
        if i.name not in steps or array.dtype.kind != "f" or not array.size:
            continue
        step, zero, kind = steps[i.name]
        limits = np.iinfo(kind)
        width, read = _width(array, array), (limits.max - limits.min) * step
        if width * OTHER_SCALE > read and width < read * OTHER_SCALE:
            continue
        low, high = ((int(limit) - zero) * step for limit in (limits.min, limits.max))
        notes.append(
            f"Input '{i.key}' reaches from {array.min():.4g} to {array.max():.4g} in these samples, but the file reads {low:.4g} to {high:.4g}, "
            "as in its calibration data: one of the two is scaled otherwise."
        )
    return notes


def _ordinary_spread(array):
    """Returns the range of each feature over the samples that are not extreme."""
    by_sample = array.reshape(len(array), -1, array.shape[-1])
    low, high = by_sample.min(1), by_sample.max(1)
    spread = np.empty(array.shape[-1])
    for j in range(len(spread)):
        kept = np.setdiff1d(np.arange(len(array)), stretching_samples(low[:, j] - np.median(low[:, j]), high[:, j] - np.median(low[:, j])))
        spread[j] = high[kept, j].max() - low[kept, j].min()
    return spread


def _width_of_features(array):
    columns = tasks.columns(array)
    return np.maximum(columns.max(0), 0) - np.minimum(columns.min(0), 0)


def _loss(expected, rounded, outputs):
    """Returns the largest share of an index's variation, or of an output's decisions, by which two outputs of the Keras model differ."""
    lost = 0.0
    for name, output in outputs.items():
        before, after = expected[name], rounded[name]
        if output.equal_share is not None:
            lost = max(lost, float((before != after).mean()))
        elif output.argmax_agreement is not None and output.task is not None:
            lost = max(lost, float((before.argmax(-1) != after.argmax(-1)).mean()))
        elif output.worst_indices:
            kept = tasks.r_squared(before, after)[[i.index for i in output.worst_indices]]
            lost = max(lost, 1 - float(np.nanmin(kept)))
    return lost


def _listed(numbers):
    return ", ".join(map(str, numbers[:_SHOWN])) + (", ..." if len(numbers) > _SHOWN else "")


def warn(notes):
    """Issues a `UserWarning` for each note, at the line that called the public function."""
    for note in notes:
        warnings.warn(note, UserWarning, stacklevel=3)
