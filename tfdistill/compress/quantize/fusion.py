"""Which layers the converter fuses into one operation, so that their result is rounded once."""

from tfdistill.bridge.adopt.introspection import kind_of
from tfdistill.compress.quantize.consumers import FIXED, activation_of, operation_of
from tfdistill.compress.quantize.layer_table import rule_of


def among(layer, known):
    """Returns the `Place` of a layer in a dict of id of layer to place; None if it is not there, or the layer is None."""
    return None if layer is None else known.get(id(layer))


def fused(place, known, bits):
    """Whether the only layer that reads a layer's output takes it without rounding it."""
    reader = among(place.reader, known)
    if reader is None or reader.calls != 1:
        return False
    kind = kind_of(place.layer)
    if folds(place, known, bits):
        return True
    if kind_of(reader.layer) == "Concatenate":
        # All parts get the range of the whole; a part whose range the converter fixes cannot.
        return activation_of(place.layer) not in FIXED
    return _is_relu(reader.layer) and (kind in ("Add", "BatchNormalization") or _is_linear(place.layer, kind))


def relu_alone(place, known, bits):
    """Whether a layer is a ReLU or ReLU6 that the converter fuses into no operation before it."""
    source = among(place.source, known)
    return _is_relu(place.layer) and place.rank is not None and (source is None or not fused(source, known, bits))


def folds(place, known, bits):
    """Whether the converter folds a BatchNormalization that follows a layer into the layer's kernel and bias."""
    reader = among(place.reader, known) if place is not None else None
    if reader is None or kind_of(reader.layer) != "BatchNormalization" or reader.calls != 1 or reader.rank is None:
        return False
    kind = kind_of(place.layer)
    # Folding into a dense layer needs a scale per channel, which its 4-bit weights do not have.
    return _is_linear(place.layer, kind) and list(reader.layer.axis) == [reader.rank - 1] and not (kind == "Dense" and bits[place.path] < 8)


def rescales_kernel(place, known, bits):
    """Whether the file folds a Rescaling into the kernel and bias of the one layer that reads it.

    An offset cannot be where the reader pads with zeros, which are not rescaled.
    """
    reader = among(place.reader, known)
    if reader is None or reader.calls != 1 or reader.source is not place.layer or bits[reader.path] != 8:
        return False
    layer = reader.layer
    numbers = all(isinstance(value, (int, float)) for value in (place.layer.scale, place.layer.offset)) and place.layer.scale
    if not numbers or kind_of(layer) not in ("Conv1D", "Conv2D", "DepthwiseConv2D", "Dense"):
        return False
    return not place.layer.offset or (layer.use_bias and getattr(layer, "padding", "valid") == "valid")


def _is_linear(layer, kind):
    return rule_of(kind).folds and activation_of(layer) == "linear"


def _is_relu(layer):
    """Whether the converter can fuse a layer into the operation before it."""
    if kind_of(layer) == "ReLU":
        return layer.max_value in (None, 6) and layer.negative_slope == 0 and layer.threshold == 0
    return (kind_of(layer) == "Activation" or operation_of(layer) is not None) and activation_of(layer) in ("relu", "relu6")
