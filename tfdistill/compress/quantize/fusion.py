"""What the converter makes one operation of, so that it is rounded once."""

from tfdistill.bridge.adopt.introspection import kind_of
from tfdistill.compress.quantize.consumers import FIXED, activation_of

_FOLDING = {
    *("Dense", "Conv1D", "Conv2D", "DepthwiseConv1D", "DepthwiseConv2D", "SeparableConv1D", "SeparableConv2D"),
    *("Conv1DTranspose", "Conv2DTranspose"),
}


def among(layer, known):
    """Returns the `Place` of a layer, or of None, in a dict of id of layer to place; None if it is not there."""
    return None if layer is None else known.get(id(layer))


def fused(place, known, bits):
    """Whether what stands behind a layer takes its output without rounding it."""
    reader = among(place.reader, known)
    if reader is None or reader.calls != 1:
        return False
    kind = kind_of(place.layer)
    if folds(place, known, bits):
        return True
    if kind_of(reader.layer) == "Concatenate":
        # All parts get the range of the whole; a fixed one cannot.
        return activation_of(place.layer) not in FIXED
    return _is_relu(reader.layer) and (kind in ("Add", "BatchNormalization") or _is_linear(place.layer, kind))


def folds(place, known, bits):
    """Whether a BatchNormalization behind a layer disappears in its kernel and bias."""
    reader = among(place.reader, known) if place is not None else None
    if reader is None or kind_of(reader.layer) != "BatchNormalization" or reader.calls != 1 or reader.rank is None:
        return False
    kind = kind_of(place.layer)
    # What is folded into a dense layer gives its channels scales of their own, which 4 bits have there not.
    return _is_linear(place.layer, kind) and list(reader.layer.axis) == [reader.rank - 1] and not (kind == "Dense" and bits[place.path] < 8)


def _is_linear(layer, kind):
    return kind in _FOLDING and activation_of(layer) == "linear"


def _is_relu(layer):
    """Whether the converter can fuse a layer into the operation before it."""
    if kind_of(layer) == "ReLU":
        return layer.max_value in (None, 6) and layer.negative_slope == 0 and layer.threshold == 0
    return kind_of(layer) == "Activation" and activation_of(layer) in ("relu", "relu6")
