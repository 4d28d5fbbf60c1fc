"""The biases of a model that is quantized without training."""

import numpy as np

from tfdistill.bridge.adopt import introspection
from tfdistill.bridge.adopt.trained_ranges import quantized_layers


def biases_of(layer):
    """Lists the variables of a live layer that are biases of channels."""
    return [
        weight for weight in introspection.weights_of(layer) if weight.name.rpartition("/")[2].startswith("bias") and weight.shape.rank == 1
    ]


def make_biases_unequal(model):
    """Moves one bias of each layer whose biases are all one number other than 0 by the last bit of it.

    The converter keeps such biases as a single number, and rounds that by the scale of the first channel where each channel has its own.

    Args:
        model: `AdoptedModel` with quantizers.
    """
    for layer in quantized_layers(model.legacy):
        for bias in biases_of(layer):
            values = np.array(bias)
            if len(values) > 1 and values[0] != 0 and (values == values[0]).all():
                values[0] = np.nextafter(values[0], np.inf, dtype=values.dtype)
                bias.assign(values)
