"""What rounding explains: how far the outputs of two layers that compute the same may be apart."""

import numpy as np

from tfdistill.bridge.parity.run import arrays, difference

# Distance from 1 to the next number. All other kinds of numbers have to be equal.
EPSILON = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
# Noise stays below this, so that neither it nor the layer's output overflows.
_LARGEST = {"float64": 1e300, "float32": 1e37, "float16": 3e4, "bfloat16": 1e37}
# How many such steps two equal layers may be apart. Layers of the tests and of keras.applications need 2 on a CPU; other kernels may need more.
_STEPS = 8
# How often last bits are changed at random to measure a response: a channel of few values may by chance hardly move at one change of its inputs.
REPEATS = 4
# A response counts up to this share of the outputs' scale: where a step function jumps, it is no measure of rounding.
_LARGEST_RESPONSE = 1e-2


def stepped(value, rng):
    """Returns an array moved by one step of its precision, up or down at random; whole numbers stay."""
    step = EPSILON.get(value.dtype.name, 0.0)
    return (value * (1.0 + step * rng.choice([-1.0, 1.0], value.shape))).astype(value.dtype) if step else value


def channels(array):
    """Returns an array as rows of channels (the last axis), in double precision."""
    array = np.asarray(array, "float64")
    return array.reshape(-1, array.shape[-1] if array.ndim > 1 else 1) if array.size else np.zeros((0, 1))


def largest_excess(ours, theirs):
    """Returns the largest `excess_of` any pair of arrays."""
    return max(excess_of(one, other) for one, other in zip(ours, theirs, strict=True))


def excess_of(ours, theirs, response=0.0):
    """Returns the largest difference over the channels, as a share of what rounding explains: two arrays agree where it is at most 1.

    Each channel has its own scale. With one scale for all, the largest channel would hide a fault in a small one, which the next normalization makes large.
    Where large numbers cancel, rounding is large relative to their difference; `response` is its measure there.

    Args:
        ours: Array; its last axis are channels.
        theirs: Array.
        response: How far each channel moves when the last bits of inputs and weights change.
    """
    if ours.dtype == theirs.dtype and np.array_equal(ours, theirs):
        return 0.0
    if not np.isfinite(difference(ours, theirs)[0]):
        return np.inf
    a, b = (np.where(np.isfinite(x), x, 0.0) for x in (channels(ours), channels(theirs)))
    error, scale = (x.max(axis=0, initial=0.0) for x in (np.abs(a - b), np.abs(a)))
    explained = _STEPS * EPSILON.get(ours.dtype.name, 0.0) * scale + np.minimum(
        _STEPS * response, _LARGEST_RESPONSE * scale.max(initial=0.0)
    )
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
