"""How each layer is trained quantized: which of its weights, which of its tensors, and what the converter fuses or folds.

The numerics are those of TFLite's 8-bit scheme, https://ai.google.dev/edge/litert/models/quantization_spec: weights symmetric, per channel in convolutions and
per tensor in dense layers; activations affine, per tensor. Whatever becomes one integer operation is rounded once: a convolution, the BatchNormalization behind
it and the ReLU behind that have one range, the last one's.
"""

import math
import typing

from tfdistill.bridge.adopt import introspection
from tfdistill.bridge.adopt.introspection import kind_of
from tfdistill.bridge.integer.recurrent import is_known
from tfdistill.bridge.integer.rounding import FLOAT
from tfdistill.bridge.wrappers.quantization import Quantization, QuantizedWeight
from tfdistill.compress import kernels
from tfdistill.compress.quantize.consumers import FIXED, READ_INDICES, activation_of, operation_of
from tfdistill.compress.quantize.fusion import among, folds, fused
from tfdistill.compress.step import AUTO

WEIGHTS, OUTPUT, INSIDE = "weights and output trained quantized", "output trained quantized", "weights trained quantized"
PASSES, FUSED = "adds no range of its own", "rounded with the layer behind it"
UNROLLED = "weights and states trained quantized"
FOLDED = "folded into the layer before it, which is trained quantized"
CALIBRATED = "calibrated, not trained quantized"
LEFT_OUT, MEASURED = "left out by layers= or exclude=", "rounded in the file alone, over the ranges that training sees"

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
# Activations that the converter fuses into the operation before them.
_FUSIBLE = {"linear", "relu", "relu6"}

_NO_INTEGERS = {"Conv3D", "Conv3DTranspose", "AveragePooling3D", "MaxPooling3D"}
# TFLite has an integer operation for a whole LSTM, whose ranges cannot be trained, and none for any other loop: up to so many steps are written out instead.
MOST_STEPS = 128
# Ways in which a Bidirectional computes something of what its directions give.
_NEW_VALUES = ("sum", "mul", "ave")
_RECURRENT = {"LSTM", "GRU", "SimpleRNN", "RNN", "Bidirectional", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"}

_NORMALIZATIONS = {
    "BatchNormalization": "normalization alone",
    "GroupNormalization": "group normalization",
    "LayerNormalization": "layer normalization",
}
_ON_INPUTS = {"Rescaling": "rescaling", "Normalization": "standardization"}
_FORMS = {
    "AveragePooling2D": "average pooling",
    "ELU": "elu",
    "GlobalAveragePooling1D": "average of steps",
    "Masking": "masking",
    "MultiHeadAttention": "attention",
    "SeparableConv1D": "separable",
    "SeparableConv2D": "separable",
}
_FOUR_BITS = {"Conv2D", "DepthwiseConv2D", "SeparableConv2D", "Dense", "EinsumDense", "MultiHeadAttention"}
_PER_CHANNEL = {
    *("Conv1D", "Conv2D", "DepthwiseConv1D", "DepthwiseConv2D", "SeparableConv1D", "SeparableConv2D", "Conv1DTranspose", "Conv2DTranspose")
}


_NOTHING = Quantization(output=False)


class LayerQuantization(typing.NamedTuple):
    """How one layer is trained quantized.

    Attributes:
        done: Whether it is; otherwise it was left out, or the converter calibrates it, or cannot make it integer.
        reason: What is done, or why it is not.
        quantization: What is rounded in it, in a layer that was left out by the file alone; None where there is nothing.
        possible: Whether the file can compute it in integers; True of what was left out.
        members: Dict of a clustered weight's path to the int32 array of its weights' clusters.
    """

    done: bool
    reason: str
    quantization: Quantization | None = None
    possible: bool = True
    members: typing.Any = None

    def left_out(self):
        """Returns the treatment of the same layer where the user does not want it trained quantized: its ranges are measured all the same, for the file."""
        reason = f"{LEFT_OUT}: {MEASURED}" if self.quantization else f"{LEFT_OUT}: {self.reason}"
        return LayerQuantization(False, reason, self.quantization and self.quantization._replace(observed=True))

    def keeping(self, zeros, clusterings):
        """Returns this treatment with the structure of the weights kept, those too that are not rounded.

        Args:
            zeros: Dict of a weight's path to the number of its zeros that stay.
            clusterings: Dict of a weight's path to its `Clustering`, or None.
        """
        kept = self.quantization or _NOTHING
        rounded = {w.path for w in kept.weights}
        floats = tuple(QuantizedWeight(path, FLOAT) for path in zeros if path not in rounded and (zeros[path] or clusterings[path]))
        weights = tuple(
            w._replace(sparse=zeros[w.path] > 0, clusters=clusterings[w.path].count if clusterings[w.path] else 0)
            for w in (*kept.weights, *floats)
        )
        if not weights:
            return self
        clustered = {w.path: clusterings[w.path] for w in weights if w.clusters}
        reason, count = self.reason, sum(zeros[w.path] for w in weights)
        reason += f", {count:,} zeros kept" if count else ""
        for found in clustered.values():
            reason += f", {found.values} values{' per channel' if found.per_channel else ''} kept"
        return self._replace(
            reason=reason,
            quantization=kept._replace(weights=weights),
            members={path: found.members for path, found in clustered.items()},
        )


def treatments(places, chosen, bits, activation_bits=8, unroll=AUTO):
    """Decides how every layer is trained quantized.

    Args:
        places: Dict of path to `Place`.
        chosen: Set of the paths of the layers that are to be trained quantized.
        bits: Dict of path to bits of weights, 8 or 4, of the chosen layers.
        activation_bits: 8 or 16; with 16, activations are not rounded, as 65,536 steps are none to training.
        unroll: Whether recurrent layers are written out step by step: always, never, or with `"auto"` up to `MOST_STEPS` steps.

    Returns:
        Dict of path to `LayerQuantization`.
    """
    # What was left out is rounded in the file alone, so none of it is one operation with what is trained.
    groups = {inside: {id(p.layer): p for p in places.values() if (p.path in chosen) is inside} for inside in (True, False)}
    bits = {path: bits.get(path, 8) for path in places}
    whole = activation_bits == 8
    most = {AUTO: MOST_STEPS, True: math.inf, False: 0}[unroll] if whole else None

    def decide(path, place):
        inside, kind = path in chosen, kind_of(place.layer)
        if not inside and not whole:
            return LayerQuantization(False, f"{LEFT_OUT}: {CALIBRATED}")
        if kind in _NO_INTEGERS:
            found = LayerQuantization(False, f"TFLite computes a {kind} in float only", possible=False)
        elif kind in _RECURRENT:
            found = _recurrent(place, most)
        else:
            found = _treatment(place, groups[inside], bits) if whole else _treatment_of_weights(place)
        return found if inside else found.left_out()

    return {path: decide(path, place) for path, place in places.items()}


def _treatment_of_weights(place):
    """Decides for activations of 16 bits: every weight is on the grid that the converter, which calibrates everything, finds by itself."""
    found = tuple(QuantizedWeight(k.attribute, 8, k.outputs) for k in kernels.kernels_of(place.layer) if k.kind != kernels.LOOKUP)
    return (
        LayerQuantization(True, INSIDE, Quantization(found, output=False))
        if found
        else LayerQuantization(True, "16-bit activations are calibrated")
    )


def _treatment(place, known, bits):
    layer, kind = place.layer, kind_of(place.layer)
    if not _is_float(place) or _passes(layer, kind) or _carries_indices(place, known):
        form = _form(place, kind) if kind == "Masking" else ""
        return LayerQuantization(True, PASSES, Quantization(output=False, form=form) if form else None)
    if kind == "BatchNormalization" and folds(among(place.source, known), known, bits):
        quantization = Quantization(output=not fused(place, known, bits))
        return LayerQuantization(True, FOLDED, quantization if quantization.output else None)
    if activation_of(layer) in FIXED and not kernels.kernels_of(layer):
        return LayerQuantization(True, f"{PASSES}: the file's is fixed")
    weights = _weights(layer, kind, bits[place.path], folding=folds(place, known, bits))
    # What is looked up in a table has the table's own range; of what has a fixed one, any other would be rounded a second time, in float.
    output = kind != "Embedding" and activation_of(layer) not in FIXED and not fused(place, known, bits)
    quantization = Quantization(weights, _activations(layer, kind), output, _form(place, kind))
    reason = (WEIGHTS if quantization.output else INSIDE) if weights else OUTPUT if quantization.output else FUSED
    if weights and bits[place.path] < 8:
        wanted, got = bits[place.path], weights[0].bits
        reason += f", {got} bits" + ("" if got == wanted else f", as TFLite has no {wanted}-bit {kind}")
    return LayerQuantization(True, reason, quantization if quantization != _NOTHING else None)


def _recurrent(place, most):
    """Decides for a recurrent layer, which is written out if it has at most so many steps, or was built to be; with None, whatever it is, not at all."""
    layer, kind = place.layer, kind_of(place.layer)
    inner = introspection.computing_layer(layer)
    directions = [inner.forward_layer, inner.backward_layer] if kind == "Bidirectional" else [inner]
    asked = all(getattr(direction, "unroll", False) for direction in directions)
    whole = not place.masked and all(kind_of(direction) == "LSTM" and direction._could_use_gpu_kernel for direction in directions)
    known = inner is layer and is_known(layer) and not any(direction.stateful for direction in directions)
    if most is not None and known and place.length is not None and (asked or place.length <= most):
        quantization = Quantization(
            _weights(layer, kind, 8, folding=False), output=getattr(layer, "merge_mode", None) in _NEW_VALUES, form="recurrent"
        )
        return LayerQuantization(True, f"{UNROLLED}, {place.length} steps written out", quantization)
    fix = ""
    if most is not None and known:
        fix = "; give it a fixed length to have it written out" if place.length is None else "; unroll=True writes it out"
    if whole or asked:
        return LayerQuantization(False, f"{CALIBRATED}: its states have ranges of their own inside{fix}")
    return LayerQuantization(False, f"TFLite runs this {kind} as a loop, which its converter cannot make integer{fix}", possible=False)


def takes_bits(layer, bits):
    """Whether the weights of a tf_keras layer, if it has any to quantize, can have that many bits in a file."""
    return bits == 8 or kind_of(layer) in _FOUR_BITS or not kernels.kernels_of(layer)


def _weights(layer, kind, bits, folding):
    # A TimeDistributed has the kernels of the layer inside it.
    inner = kind_of(layer.layer) if kind == "TimeDistributed" else kind
    # A folded normalization scales each channel: the converter then gives a dense layer, too, a scale for each.
    per_channel = inner in _PER_CHANNEL or (folding and bits == 8)
    return tuple(
        QuantizedWeight(kernel.attribute, bits if kind in _FOUR_BITS else 8, kernel.outputs if per_channel else ())
        for kernel in kernels.kernels_of(layer)
    )


def _activations(layer, kind):
    """Lists the paths of the activation functions inside a layer that are operations of their own in the file."""
    if introspection.computing_layer(layer) is not layer:
        return ()
    has_kernel = kind not in ("Activation", "Softmax") and hasattr(layer, "activation")
    return ("activation",) if has_kernel and activation_of(layer) not in _FUSIBLE else ()


def _form(place, kind):
    layer = place.layer
    inner = introspection.computing_layer(layer)
    if inner is not layer:
        # Any other hosted layer computes by itself.
        return "grouped attention" if kind == "GroupedQueryAttention" and not getattr(inner, "use_gate", False) else ""
    if kind in _NORMALIZATIONS:
        # The last axis, of at most four, is what a depthwise convolution has scales for.
        axes = layer.axis if isinstance(layer.axis, (list, tuple)) else [layer.axis]
        last = place.rank is not None and 2 <= place.rank <= 4 and [axis % place.rank for axis in axes] == [place.rank - 1]
        return _NORMALIZATIONS[kind] if last and (kind != "GroupNormalization" or place.sized) else ""
    if kind in _ON_INPUTS:
        flat = place.rank is not None and 2 <= place.rank <= 4 and layer.output_shape[-1] is not None
        last = kind == "Rescaling" or (list(layer._keep_axis) in ([], [place.rank - 1]) and not layer.invert)
        return _ON_INPUTS[kind] if flat and last else ""
    if kind == "GlobalAveragePooling1D" and place.length is None:
        return ""
    padded = kind == "AveragePooling2D" and layer.padding != "valid"
    channels_last = getattr(layer, "data_format", "channels_last") == "channels_last"
    return _FORMS.get(kind, "") if channels_last and not padded else ""


def _is_float(place):
    return any(dtype.startswith(("float", "bfloat")) for dtype in place.dtypes)


def _passes(layer, kind):
    if kind == "UpSampling2D":
        return layer.interpolation == "nearest"
    return kind in _PASSING or operation_of(layer) in _PASSING_OPERATIONS or (kind == "Activation" and activation_of(layer) == "linear")


def _carries_indices(place, known):
    """Whether what a layer computes ends as indices, which must not be rounded."""
    readers = [reader and (known.get(id(reader)) or reader) for reader in place.readers]
    return bool(readers) and all(
        reader is not None
        and (kind_of(getattr(reader, "layer", reader)) in READ_INDICES or (hasattr(reader, "readers") and _carries_indices(reader, known)))
        for reader in readers
    )
