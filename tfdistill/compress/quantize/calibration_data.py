"""Whether calibration data can be what a model was made for: that it varies, and that it has the scale of what the model's normalizations have seen."""

import numpy as np

from tfdistill.bridge.adopt import introspection
from tfdistill.convert.samples import require_variation

# Samples that the statistics of a normalization are compared on.
_SAMPLES = 64
# Distance from the mean and spread of the data, in standard deviations of the data of training, may be off by this factor.
_FACTOR = 5.0
# Statistics that are no further from 0 and 1 than this are not yet those of data: after ten steps with a momentum of 0.99 they have moved by a tenth.
_INITIAL = 0.1


def packed_batches(signature, samples, size=32):
    """Yields all samples, batch by batch, as a model takes its inputs; the last one is filled up where the model has a batch of fixed size.

    Args:
        signature: `ModelSignature`.
        samples: `Samples`.
        size: Batch size where the model leaves it free.
    """
    fixed = signature.inputs[0].batch
    for batch in samples.batches(fixed or size):
        yield signature.pack({name: np.resize(array, (fixed or len(array), *array.shape[1:])) for name, array in batch.items()})


def check_calibration(opened, signature, samples):
    """Checks calibration data before it is measured.

    Args:
        opened: `rebuild.Opened` of the float model.
        signature: `ModelSignature` of the samples.
        samples: Calibration `Samples`.

    Returns:
        List of sentences to warn the user by: that the model's first normalization gets values on another scale than those of its training.

    Raises:
        DataError: if all samples are equal.
    """
    require_variation(samples)
    return list(_scale_notes(opened, signature, samples))


def _scale_notes(opened, signature, samples):
    """Yields a sentence if the first normalization of the model gets values on another scale than those of its training."""
    found = next(((path, layer) for path, layer in opened.layers.items() if _is_trained(layer)), None)
    if found is None:
        return
    path, layer = found
    kept = np.linspace(0, samples.count - 1, min(samples.count, _SAMPLES)).round().astype(int)
    x = _seen_by(layer, opened.legacy, signature.pack({i.name: samples.inputs[i.name][kept] for i in signature.inputs}))
    if x is None:
        return
    mean, variance = (np.asarray(value, "float64").reshape(-1) for value in _statistics(layer))
    deviation = np.sqrt(variance)
    axes = tuple(axis % x.ndim for axis in np.atleast_1d(layer.axis)) if layer.axis is not None else ()
    others = tuple(axis for axis in range(x.ndim) if axis not in axes)
    offset = x.mean(others).reshape(-1) - mean
    spread = x.std(others).reshape(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        far = np.nanmedian(np.sqrt(offset**2 + spread**2) / deviation)
        wide = np.nanmedian(spread / deviation)
    if far > _FACTOR or wide < 1 / _FACTOR:
        low, high = float((mean - 3 * deviation).min()), float((mean + 3 * deviation).max())
        data = "; ".join(
            f"'{i.key}' from {samples.inputs[i.name].min():.4g} to {samples.inputs[i.name].max():.4g}" for i in signature.inputs
        )
        yield (
            f"The calibration data seems to be on another scale than the data of training: '{path}' ({introspection.kind_of(layer)}) gets values "
            f"from {x.min():.4g} to {x.max():.4g}, and was trained on values from about {low:.4g} to {high:.4g}. The calibration data holds {data}. "
            "Give samples that are preprocessed as in training; for images, mind a division by 255."
        )


def _is_trained(layer):
    """Whether a layer is a normalization with statistics of data; those of a BatchNormalization are 0 and 1 at first, and move away from them slowly."""
    kind = introspection.kind_of(layer)
    if kind == "Normalization":
        return not layer.invert
    if kind != "BatchNormalization":
        return False
    return bool(np.abs(np.asarray(layer.moving_mean)).max() > _INITIAL or np.abs(np.asarray(layer.moving_variance) - 1).max() > _INITIAL)


def _statistics(layer):
    return (layer.mean, layer.variance) if introspection.kind_of(layer) == "Normalization" else (layer.moving_mean, layer.moving_variance)


def _seen_by(layer, legacy, inputs):
    """Returns the values that one layer of a tf_keras model gets, as an array; None if the model does not call it."""
    seen, call = [], layer.call

    def look(x, *args, **kwargs):
        seen.append(np.asarray(x, "float64"))
        return call(x, *args, **kwargs)

    # Past tf_keras's attribute setter, as the layer's own call comes back at once.
    vars(layer)["call"] = look
    try:
        legacy(inputs, training=False)
    finally:
        del vars(layer)["call"]
    return seen[0] if seen else None
