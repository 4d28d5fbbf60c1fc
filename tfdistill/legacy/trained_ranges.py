"""Whether quantization-aware training has moved the ranges of a model."""

import numpy as np

from tfdistill.errors import InvariantError
from tfdistill.legacy import adopt_scope as scope
from tfdistill.legacy.adopt import AdoptedModel


def quantized_layers(legacy):
    """Lists the quantization wrappers in a tf_keras model, this library's and TFMOT's."""
    return [layer for layer in legacy._flatten_layers() if scope.is_quantized(layer)]


def wrong_ranges(layer):
    """Yields what is wrong with the ranges of a quantization wrapper: every range starts at -6 to 6, and training moves it with the first batch."""
    for what, low, high in scope.ranges_of(layer):
        low, high = np.asarray(low), np.asarray(high)
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            yield f"'{layer.layer.name}' {what} is not finite"
        elif np.all(low == -6) and np.all(high == 6):
            yield f"'{layer.layer.name}' {what} is -6 to 6, as it began"


def require_trained_ranges(model):
    """Checks that training has set every range of a quantization-aware model.

    Args:
        model: A Keras model; one without quantizers has no ranges and passes.

    Raises:
        InvariantError: names every range that is as it began, or not finite.
    """
    layers = quantized_layers(model.legacy) if isinstance(model, AdoptedModel) else []
    wrong = [text for layer in layers for text in wrong_ranges(layer)]
    if wrong:
        raise InvariantError(
            f"Ranges of '{model.name}' were never trained: {'; '.join(wrong)}.",
            "ranges that training has seen data for",
            "train the model with fit",
        )
