"""How each layer is trained quantized: which of its weights, which of its tensors, and what the converter fuses or folds.

The numerics are those of TFLite's 8-bit scheme, https://ai.google.dev/edge/litert/models/quantization_spec: weights symmetric, per channel in convolutions and
per tensor in dense layers; activations affine, per tensor. Whatever becomes one integer operation is rounded once: a convolution, the BatchNormalization behind
it and the ReLU behind that have one range, the last one's.
"""

import typing

from tfdistill.compress import kernels
from tfdistill.legacy import adopt_scope as scope
from tfdistill.legacy.adopt_quantizing import Quantization, QuantizedWeight

WEIGHTS, OUTPUT, INSIDE = "weights and output trained quantized", "output trained quantized", "weights trained quantized"
PASSES, FUSED = "adds no range of its own", "rounded with the layer behind it"
FOLDED = "folded into the layer before it, which is trained quantized"
CALIBRATED = "calibrated, not trained quantized"

# Layers whose output has the range of their input.
_PASSING = {
    *(f"{kind}{n}D" for kind in ("Cropping", "ZeroPadding", "MaxPooling", "GlobalMaxPooling", "SpatialDropout") for n in (1, 2, 3)),
    *("UpSampling1D", "UpSampling3D", "Flatten", "Reshape", "Permute", "RepeatVector", "Masking", "ActivityRegularization"),
    *("Dropout", "GaussianDropout", "GaussianNoise", "AlphaDropout", "Identity", "InputLayer"),
}
# The same among the operations of keras.ops, and of TensorFlow on tensors of Keras.
_PASSING_OPERATIONS = {
    *("Reshape", "Transpose", "Squeeze", "ExpandDims", "GetItem", "Flatten", "Swapaxes", "Moveaxis", "Ravel", "Identity"),
    *("reshape", "transpose", "squeeze", "expand_dims", "__operators__.getitem", "identity", "stop_gradient"),
}
# Activations whose range the converter fixes, and those that it fuses into the operation before them.
_FIXED = {"softmax", "sigmoid", "tanh", "Softmax", "Sigmoid", "Tanh"}
# They read indices, whatever the type.
_READ_INDICES = {"Embedding", "CategoryEncoding", "IntegerLookup", "Hashing"}
_FUSIBLE = {"linear", "relu", "relu6"}

_NO_INTEGERS = {"Conv3D", "Conv3DTranspose", "AveragePooling3D", "MaxPooling3D"}
_RECURRENT = {"LSTM", "GRU", "SimpleRNN", "RNN", "Bidirectional", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"}

_FOLDING = {"Conv2D", "DepthwiseConv2D", "SeparableConv2D", "Dense", "Conv1D", "DepthwiseConv1D", "SeparableConv1D"}
_NORMALIZATIONS = {
    "BatchNormalization": "normalization alone",
    "GroupNormalization": "group normalization",
    "LayerNormalization": "layer normalization",
}
_ON_INPUTS = {"Rescaling": "rescaling", "Normalization": "standardization"}
_FORMS = {
    "AveragePooling2D": "average pooling",
    "ELU": "elu",
    "MultiHeadAttention": "attention",
    "SeparableConv1D": "separable",
    "SeparableConv2D": "separable",
}
_FOUR_BITS = {"Conv2D", "DepthwiseConv2D", "SeparableConv2D", "Dense", "EinsumDense", "MultiHeadAttention"}
_PER_CHANNEL = {
    *("Conv1D", "Conv2D", "DepthwiseConv1D", "DepthwiseConv2D", "SeparableConv1D", "SeparableConv2D", "Conv1DTranspose", "Conv2DTranspose")
}


_NOTHING = Quantization(output=False)


class Treatment(typing.NamedTuple):
    """How one layer is trained quantized.

    Attributes:
        done: Whether it is; otherwise the converter calibrates it, or cannot make it integer.
        reason: What is done, or why it is not.
        quantization: What is rounded in it; None where there is nothing.
        possible: Whether the file can compute it in integers.
        members: Dict of a clustered weight's path to the int32 array of its weights' clusters.
    """

    done: bool
    reason: str
    quantization: Quantization | None = None
    possible: bool = True
    members: typing.Any = None

    def keeping(self, zeros, clusterings):
        """Returns this treatment with the structure of the weights kept.

        Args:
            zeros: Dict of a weight's path to the number of its zeros that stay.
            clusterings: Dict of a weight's path to its `Clustering`, or None.
        """
        weights = tuple(
            w._replace(sparse=zeros[w.path] > 0, clusters=clusterings[w.path].count if clusterings[w.path] else 0)
            for w in self.quantization.weights
        )
        clustered = {w.path: clusterings[w.path] for w in weights if w.clusters}
        reason, kept = self.reason, sum(zeros[w.path] for w in weights)
        reason += f", {kept:,} zeros kept" if kept else ""
        for found in clustered.values():
            reason += f", {found.values} values{' per channel' if found.per_channel else ''} kept"
        return self._replace(
            reason=reason,
            quantization=self.quantization._replace(weights=weights),
            members={path: found.members for path, found in clustered.items()},
        )


def treatments(places, chosen, bits, activation_bits=8):
    """Decides how every layer is trained quantized.

    Args:
        places: Dict of path to `Place`.
        chosen: Set of the paths of the layers that are to be trained quantized.
        bits: Dict of path to bits of weights, 8 or 4, of the chosen layers.
        activation_bits: 8 or 16; with 16, activations are not rounded, as 65,536 steps are none to training.

    Returns:
        Dict of path to `Treatment`; None for those not chosen.
    """
    known = {id(place.layer): place for place in places.values() if place.path in chosen}
    decide = _treatment if activation_bits == 8 else _treatment_of_weights
    return {path: decide(place, known, bits) if path in chosen else None for path, place in places.items()}


def _treatment_of_weights(place, known, bits):
    """Decides for activations of 16 bits: every weight is on the grid that the converter, which calibrates everything, finds by itself."""
    kind = _kind(place.layer)
    if kind in _NO_INTEGERS or kind in _RECURRENT:
        return _treatment(place, known, bits)
    found = tuple(QuantizedWeight(k.attribute, 8, k.outputs) for k in kernels.kernels_of(place.layer) if k.kind != kernels.LOOKUP)
    return Treatment(True, INSIDE, Quantization(found, output=False)) if found else Treatment(True, "16-bit activations are calibrated")


def _treatment(place, known, bits):
    layer, kind = place.layer, _kind(place.layer)
    if kind in _NO_INTEGERS:
        return Treatment(False, f"TFLite computes a {kind} in float only", possible=False)
    if kind in _RECURRENT:
        return _recurrent(layer, kind)
    if not any(dtype.startswith(("float", "bfloat")) for dtype in place.dtypes) or _passes(layer, kind) or _carries_indices(place, known):
        return Treatment(True, PASSES)
    if kind == "BatchNormalization" and _folds(_known(place.source, known), known, bits):
        quantization = Quantization(output=not _fused(place, known, bits))
        return Treatment(True, FOLDED, quantization if quantization.output else None)
    if _activation(layer) in _FIXED and not kernels.kernels_of(layer):
        return Treatment(True, f"{PASSES}: the file's is fixed")
    weights = _weights(layer, kind, bits[place.path], folding=_folds(place, known, bits))
    # What is looked up in a table has the table's own range; of what has a fixed one, any other would be rounded a second time, in float.
    output = kind != "Embedding" and _activation(layer) not in _FIXED and not _fused(place, known, bits)
    quantization = Quantization(weights, _activations(layer, kind), output, _form(place, kind))
    reason = (WEIGHTS if quantization.output else INSIDE) if weights else OUTPUT if quantization.output else FUSED
    if weights and bits[place.path] < 8:
        wanted, got = bits[place.path], weights[0].bits
        reason += f", {got} bits" + ("" if got == wanted else f", as TFLite has no {wanted}-bit {kind}")
    return Treatment(True, reason, quantization if quantization != _NOTHING else None)


def _recurrent(layer, kind):
    inner = layer.forward_layer if kind == "Bidirectional" else layer
    if _kind(inner) != "LSTM" and not getattr(inner, "unroll", False):
        told = f"TFLite runs a {_kind(inner)} as a loop, which its converter cannot make integer: build it with unroll=True"
        return Treatment(False, told, possible=False)
    return Treatment(False, f"{CALIBRATED}: its state has ranges of its own inside")


def takes_bits(layer, bits):
    """Whether the weights of a tf_keras layer, if it has any to quantize, can have that many bits in a file."""
    return bits == 8 or _kind(layer) in _FOUR_BITS or not kernels.kernels_of(layer)


def _weights(layer, kind, bits, folding):
    # A TimeDistributed has the kernels of the layer inside it.
    inner = _kind(layer.layer) if kind == "TimeDistributed" else kind
    # A folded normalization scales each channel: the converter then gives a dense layer, too, a scale for each.
    per_channel = inner in _PER_CHANNEL or (folding and bits == 8)
    return tuple(
        QuantizedWeight(kernel.attribute, bits if kind in _FOUR_BITS else 8, kernel.outputs if per_channel else ())
        for kernel in kernels.kernels_of(layer)
    )


def _activations(layer, kind):
    """Lists the paths of the activation functions inside a layer that are operations of their own in the file."""
    if scope.computing_layer(layer) is not layer:
        return ()
    has_kernel = kind not in ("Activation", "Softmax") and hasattr(layer, "activation")
    return ("activation",) if has_kernel and _activation(layer) not in _FUSIBLE else ()


def _form(place, kind):
    layer = place.layer
    if scope.computing_layer(layer) is not layer:
        return ""  # a hosted layer computes by itself
    if kind in _NORMALIZATIONS:
        # The last axis, of at most four, is what a depthwise convolution has scales for.
        axes = layer.axis if isinstance(layer.axis, (list, tuple)) else [layer.axis]
        last = place.rank is not None and 2 <= place.rank <= 4 and [axis % place.rank for axis in axes] == [place.rank - 1]
        return _NORMALIZATIONS[kind] if last and (kind != "GroupNormalization" or place.sized) else ""
    if kind in _ON_INPUTS:
        flat = place.rank is not None and 2 <= place.rank <= 4 and layer.output_shape[-1] is not None
        last = kind == "Rescaling" or (list(layer._keep_axis) in ([], [place.rank - 1]) and not layer.invert)
        return _ON_INPUTS[kind] if flat and last else ""
    padded = kind == "AveragePooling2D" and layer.padding != "valid"
    channels_last = getattr(layer, "data_format", "channels_last") == "channels_last"
    return _FORMS.get(kind, "") if channels_last and not padded else ""


def _fused(place, known, bits):
    """Whether what stands behind a layer takes its output without rounding it."""
    reader = _known(place.reader, known)
    if reader is None or reader.calls != 1:
        return False
    kind = _kind(place.layer)
    if _folds(place, known, bits):
        return True
    if _kind(reader.layer) == "Concatenate":
        # All parts get the range of the whole; a fixed one cannot.
        return _activation(place.layer) not in _FIXED
    return _is_relu(reader.layer) and (kind in ("Add", "BatchNormalization") or _is_linear(place.layer, kind))


def _folds(place, known, bits):
    """Whether a BatchNormalization behind a layer disappears in its kernel and bias."""
    reader = _known(place.reader, known) if place is not None else None
    if reader is None or _kind(reader.layer) != "BatchNormalization" or reader.calls != 1 or reader.rank is None:
        return False
    kind = _kind(place.layer)
    # What is folded into a dense layer gives its channels scales of their own, which 4 bits have there not.
    return _is_linear(place.layer, kind) and list(reader.layer.axis) == [reader.rank - 1] and not (kind == "Dense" and bits[place.path] < 8)


def _is_linear(layer, kind):
    return kind in _FOLDING and _activation(layer) == "linear"


def _is_relu(layer):
    """Whether the converter can fuse a layer into the operation before it."""
    if _kind(layer) == "ReLU":
        return layer.max_value in (None, 6) and layer.negative_slope == 0 and layer.threshold == 0
    return _kind(layer) == "Activation" and _activation(layer) in ("relu", "relu6")


def _passes(layer, kind):
    if kind == "UpSampling2D":
        return layer.interpolation == "nearest"
    return kind in _PASSING or _operation(layer) in _PASSING_OPERATIONS or (kind == "Activation" and _activation(layer) == "linear")


def _carries_indices(place, known):
    """Whether what a layer computes ends as indices, which must not be rounded."""
    readers = [reader and (known.get(id(reader)) or reader) for reader in place.readers]
    return bool(readers) and all(
        reader is not None
        and (_kind(getattr(reader, "layer", reader)) in _READ_INDICES or (hasattr(reader, "readers") and _carries_indices(reader, known)))
        for reader in readers
    )


def _operation(layer):
    """Returns the name of the operation that a layer stands for, of keras.ops or of TensorFlow; None for any other layer."""
    return getattr(layer, "operation_name", None) or getattr(layer, "symbol", None)


def _known(layer, known):
    return None if layer is None else known.get(id(layer))


def _kind(layer):
    return type(scope.computing_layer(layer)).__name__


def _activation(layer):
    if _kind(layer) == "Softmax":
        return "softmax"
    if _operation(layer) is not None:
        return _operation(layer)
    function = getattr(layer, "activation", None)
    return getattr(function, "__name__", type(function).__name__) if function is not None else "linear"
