"""What rounding does to a layer: how far the outputs of two right ones may be apart."""

import numpy as np

from tfdistill.bridge.parity.run import arrays, difference

# Distance from 1 to the next number. All other kinds of numbers have to be equal.
EPSILON = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
# Noise stays below this, so that neither it nor what a layer makes of it overflows.
_LARGEST = {"float64": 1e300, "float32": 1e37, "float16": 3e4, "bfloat16": 1e37}
# How many such steps two right layers may be apart. Layers of the tests and of keras.applications need 2 on a CPU; other kernels may need more.
_STEPS = 8
# A channel of few values may by chance hardly answer to one change of its inputs.
CHANGES = 4
# What a layer answers is believed up to this share of its outputs' scale: where a step function jumps, the answer is no measure of rounding.
_MOST = 1e-2


def stepped(value, rng):
    """Returns an array moved by one step of its precision, up or down at random; whole numbers stay."""
    step = EPSILON.get(value.dtype.name, 0.0)
    return (value * (1.0 + step * rng.choice([-1.0, 1.0], value.shape))).astype(value.dtype) if step else value


def channels(array):
    """Returns an array as rows of channels (the last axis), in double precision."""
    array = np.asarray(array, "float64")
    return array.reshape(-1, array.shape[-1] if array.ndim > 1 else 1) if array.size else np.zeros((0, 1))


def largest_excess(kept, made):
    """Returns the largest `excess_of` any pair of outputs."""
    return max(excess_of(ours, theirs) for ours, theirs in zip(kept, arrays(made), strict=True))


def excess_of(ours, theirs, answer=0.0):
    """Returns the largest share, over the channels, of what rounding explains.

    Each channel has its own scale, or the loudest would hide what is wrong in a quiet one that the next normalization makes loud. Where large numbers
    cancel, rounding is large beside what is left of them: there `answer`, how far a channel moves when the last bits of inputs and weights change, says how large.
    """
    if not np.isfinite(difference(ours, theirs)[0]):
        return np.inf
    a, b = (np.where(np.isfinite(x), x, 0.0) for x in (channels(ours), channels(theirs)))
    error, scale = (x.max(axis=0, initial=0.0) for x in (np.abs(a - b), np.abs(a)))
    explained = _STEPS * EPSILON.get(ours.dtype.name, 0.0) * scale + np.minimum(_STEPS * answer, _MOST * scale.max(initial=0.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.where(error > 0.0, error / explained, 0.0).max(initial=0.0))


def _far(value, rng):
    most, finite = _LARGEST[value.dtype.name], value[np.isfinite(value)].astype("float64")
    reach = min(max(4.0, float(np.abs(finite).max(initial=0.0))), most**0.5)
    return np.clip(value.astype("float64") + reach * rng.uniform(-2.0, 2.0, value.shape), -most, most)


def noises(tensors):
    """Yields dicts of arrays like `tensors`, the floats among them as noise: far around their values, reaching 8 at least, and near zero."""
    rng, values = np.random.default_rng(1), dict(zip(tensors, arrays(list(tensors.values())), strict=True))
    floats = {key: value for key, value in values.items() if value.dtype.name in EPSILON and value.size}
    if not floats:
        return
    far = {key: _far(value, rng) for key, value in floats.items()}
    near = {key: rng.uniform(-1e-3, 1e-3, value.shape) for key, value in floats.items()}
    for noise in (far, near):
        yield {**values, **{key: value.astype(floats[key].dtype) for key, value in noise.items()}}
