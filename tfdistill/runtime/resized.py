"""Whether a file that was resized to another batch still computes what it computes sample by sample."""

import numpy as np

# Kernels take other paths for other batches, and round otherwise: as a share of an output's largest value, and in steps of an integer one.
_SHARE, _STEPS = 1e-3, 1.5


def has_free_batch(model):
    """Whether the file declares that all its inputs take any batch."""
    return all(info.signature and info.signature[0] is None for info in model.inputs.values())


def computes_the_same(resized, own, inputs):
    """Compares a file resized to a batch with itself at the batch that it was made for.

    A file may be made for one sample without saying so: with a sum or a constant that goes over the batch. Resized, it runs and mixes the samples.

    Args:
        resized: `TFLiteModel` at the batch of the inputs.
        own: The same file at its own batch.
        inputs: Dict of input name -> array (samples, ...).
    """
    many, single = resized.run(inputs), own.run(inputs)
    for name, expected in single.items():
        found, scale = many[name], own.outputs[name].scale or 0.0
        if found.shape != expected.shape:
            return False
        largest = np.abs(expected[np.isfinite(expected)]).max(initial=0.0)
        if not np.allclose(found, expected, rtol=0, atol=_SHARE * largest + _STEPS * scale, equal_nan=True):
            return False
    return True
