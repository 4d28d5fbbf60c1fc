"""Decides how each layer is trained quantized: which of its weights and tensors are rounded, and what the converter fuses or folds.

The numerics are those of TFLite's 8-bit scheme, https://ai.google.dev/edge/litert/models/quantization_spec: weights symmetric, per channel in convolutions and
per tensor in dense layers; activations affine, per tensor. What becomes one integer operation is rounded once: a convolution, the BatchNormalization after
it and the ReLU after that share one range, that of the ReLU. What is special to a class of layer is in `layer_table`.
"""

import math
import typing

from tfdistill.bridge.adopt import introspection
from tfdistill.bridge.adopt.introspection import kind_of
from tfdistill.bridge.integer.activations import RELU
from tfdistill.bridge.integer.recurrent import cells_of, is_known
from tfdistill.bridge.integer.rounding import FLOAT
from tfdistill.bridge.recurrent_kernels import is_standard_lstm
from tfdistill.bridge.wrappers.quantization_settings import Quantization, QuantizedWeight
from tfdistill.compress import kernels
from tfdistill.compress.quantize.consumers import FIXED, activation_of
from tfdistill.compress.quantize.fusion import among, folds, fused, relu_alone, rescales_kernel
from tfdistill.compress.quantize.layer_table import (
    COMPUTING_MERGE_MODES,
    FUSIBLE_ACTIVATIONS,
    LOOKING_UP,
    form_of,
    passes,
    reads_indices,
    rule_of,
    unavailable,
)
from tfdistill.compress.quantize.scores import with_scores
from tfdistill.compress.step import AUTO

WEIGHTS, OUTPUT, INSIDE = "weights and output trained quantized", "output trained quantized", "weights trained quantized"
PASSES, FUSED = "adds no range of its own", "rounded with the layer behind it"
UNROLLED = "weights and states trained quantized"
# Size of a step of each cell in the file, whatever its units (`benchmarks/recurrent.py`).
_KIB_OF_A_STEP = {"GRUCell": 1.3, "LSTMCell": 1.1, "SimpleRNNCell": 0.25}
# Of a GRU, whatever its units: processor time to convert a step; and processor time before the first step of training, whatever its steps, as a graph of training
# has one of them in a loop. Measured by `benchmarks/first_step.py`.
_SECONDS_OF_A_STEP, _SECONDS_OF_A_LAYER = 0.1, 2
RESCALED = "folded into the layer behind it, which is trained quantized"
FOLDED = "folded into the layer before it, which is trained quantized"
CALIBRATED = "calibrated, not trained quantized"
LEFT_OUT, MEASURED = "left out by layers= or exclude=", "rounded in the file alone, over the ranges that training sees"

# TFLite has an integer operation for a whole LSTM, whose ranges cannot be trained, and none for any other loop. Up to so many steps are written out instead.
MOST_STEPS = 128

_NOTHING = Quantization(output=False)


class LayerQuantization(typing.NamedTuple):
    """How one layer is trained quantized.

    Attributes:
        done: Whether the layer is trained quantized; otherwise it is excluded, calibrated by the converter, or float only.
        reason: What is done, or why it is not.
        quantization: What is rounded in the layer; in an excluded one, what the file alone rounds. None where nothing is.
        possible: Whether the file can compute the layer in integers; True for an excluded layer.
        members: Dict of a clustered weight's path to the int32 array of its weights' clusters.
    """

    done: bool
    reason: str
    quantization: Quantization | None = None
    possible: bool = True
    members: typing.Any = None

    def left_out(self):
        """Returns the decision for the same layer where the user excludes it: training still measures its ranges, which the file needs."""
        reason = f"{LEFT_OUT}: {MEASURED}" if self.quantization else f"{LEFT_OUT}: {self.reason}"
        return LayerQuantization(False, reason, self.quantization and self.quantization._replace(observed=True))

    def keeping(self, zeros, clusterings):
        """Returns this decision with the structure of the weights kept, including weights that are not rounded.

        Args:
            zeros: Dict of a weight's path to the number of its zeros that stay.
            clusterings: Dict of a weight's path to its `Clustering`, or None.
        """
        kept = self.quantization or _NOTHING
        rounded = {w.path for w in kept.weights}
        floats = tuple(QuantizedWeight(path, FLOAT) for path in zeros if path not in rounded and (zeros[path] or clusterings[path]))
        weights = tuple(
            w._replace(sparse=zeros[w.path] > 0, clusters=clusterings[w.path].clusters if clusterings[w.path] else 0)
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


def layer_quantizations(places, chosen, bits, activation_bits=8, unroll=AUTO):
    """Decides how every layer is trained quantized.

    Args:
        places: Dict of path to `Place`.
        chosen: Set of the paths of the layers that are to be trained quantized.
        bits: Dict of path to bits of weights, 8 or 4, of the chosen layers.
        activation_bits: 8 or 16; with 16, activations are not rounded, as rounding to 65,536 steps does not affect training.
        unroll: Whether recurrent layers are written out step by step: always, never, or, with `"auto"`, up to `MOST_STEPS` steps.

    Returns:
        Dict of path to `LayerQuantization`.
    """
    places = with_scores(places)
    # Excluded layers are rounded in the file alone, so they are never fused with layers that are trained quantized.
    groups = {inside: {id(p.layer): p for p in places.values() if (p.path in chosen) is inside} for inside in (True, False)}
    bits = {path: bits.get(path, 8) for path in places}
    whole = activation_bits == 8
    most = {AUTO: MOST_STEPS, True: math.inf, False: 0}[unroll] if whole else None

    def decide(path, place):
        inside, kind = path in chosen, kind_of(place.layer)
        if not inside and not whole:
            return LayerQuantization(False, f"{LEFT_OUT}: {CALIBRATED}")
        if not rule_of(kind).integers:
            found = LayerQuantization(False, f"TFLite computes a {kind} in float only", possible=False)
        elif rule_of(kind).recurrent:
            found = _recurrent(place, most)
        else:
            found = _rounded(place, groups[inside], bits) if whole else _rounded_weights(place)
        return found if inside else found.left_out()

    return {path: decide(path, place) for path, place in places.items()}


def _rounded_weights(place):
    """Decides about a layer with 16-bit activations: weights are rounded to the grid that the converter, which calibrates everything, finds by itself."""
    found = tuple(QuantizedWeight(k.attribute, 8, k.outputs) for k in kernels.kernels_of(place.layer) if k.kind != kernels.LOOKUP)
    return (
        LayerQuantization(True, INSIDE, Quantization(found, output=False))
        if found
        else LayerQuantization(True, "16-bit activations are calibrated")
    )


def _rounded(place, known, bits):
    """Decides about a layer that is not recurrent, with 8-bit activations."""
    layer, kind = place.layer, kind_of(place.layer)
    if reason := unavailable(place, kind):
        return LayerQuantization(False, reason, possible=False)
    moves, held = passes(layer, kind), kernels.kernels_of(layer)
    if not _is_float(place) or (moves and not held) or _carries_indices(place, known):
        form = form_of(place, kind) if passes(layer, kind) else ""
        quantization = Quantization(output=False, form=form, scores=place.scores, hides=place.hides)
        return LayerQuantization(True, PASSES, quantization if form else None)
    if kind == "BatchNormalization" and folds(among(place.source, known), known, bits):
        quantization = Quantization(output=not fused(place, known, bits))
        return LayerQuantization(True, FOLDED, quantization if quantization.output else None)
    if activation_of(layer) in FIXED and not held:
        form = form_of(place, kind) if kind == "Softmax" else ""
        return LayerQuantization(True, f"{PASSES}: the file's is fixed", Quantization(output=False, form=form) if form else None)
    if kind == "Rescaling" and rescales_kernel(place, known, bits):
        return LayerQuantization(True, RESCALED, Quantization(output=False, form="rescaling folded"))
    weights = _weights(layer, kind, bits[place.path], folding=folds(place, known, bits))
    # The output of a lookup has the range of its table. An output whose range the converter fixes would be rounded a second time in any other.
    output = kind not in LOOKING_UP and not moves and activation_of(layer) not in FIXED and not fused(place, known, bits)
    form = RELU if relu_alone(place, known, bits) else form_of(place, kind)
    quantization = Quantization(
        weights, _activations(layer, kind), output, form, positive=place.positive, scores=place.scores, hides=place.hides
    )
    reason = (WEIGHTS if quantization.output else INSIDE) if weights else OUTPUT if quantization.output else FUSED
    if weights and bits[place.path] < 8:
        given, used = bits[place.path], weights[0].bits
        reason += f", {used} bits" + ("" if used == given else f", as TFLite has no {given}-bit {kind}")
    return LayerQuantization(True, reason, quantization if quantization != _NOTHING else None)


def _recurrent(place, most):
    """Decides about a recurrent layer: it is written out if it has at most `most` steps, or was built with `unroll=True`; with None, never."""
    layer, kind = place.layer, kind_of(place.layer)
    inner = introspection.computing_layer(layer)
    directions = [inner.forward_layer, inner.backward_layer] if kind == "Bidirectional" else [inner]
    unrolled = all(getattr(direction, "unroll", False) for direction in directions)
    whole = not place.masked and all(kind_of(direction) == "LSTM" and is_standard_lstm(direction) for direction in directions)
    known = inner is layer and is_known(layer) and not any(direction.stateful for direction in directions)
    if most is not None and known and place.length is not None and (unrolled or place.length <= most):
        quantization = Quantization(
            _weights(layer, kind, 8, folding=False), output=getattr(layer, "merge_mode", None) in COMPUTING_MERGE_MODES, form="recurrent"
        )
        size = place.length * sum(_KIB_OF_A_STEP[type(cell).__name__] for cell in cells_of(layer))
        seconds = max(1.0, _SECONDS_OF_A_STEP * place.length)
        cost = f"about {size:.0f} KiB and {seconds:.0f} s of conversion, and {_SECONDS_OF_A_LAYER} s before the first training step"
        return LayerQuantization(True, f"{UNROLLED}, {place.length} steps written out in the file: {cost}", quantization)
    fix = ""
    if most is not None and known:
        fix = "; give it a fixed length to have it written out" if place.length is None else "; unroll=True writes it out"
    if whole or unrolled:
        return LayerQuantization(False, f"{CALIBRATED}: its states have ranges of their own inside{fix}")
    return LayerQuantization(False, f"TFLite runs this {kind} as a loop, which its converter cannot make integer{fix}", possible=False)


def takes_bits(layer, bits):
    """Whether the kernels of a tf_keras layer can have that many bits in a file; True for a layer without kernels."""
    return bits == 8 or rule_of(kind_of(layer)).four_bits or not kernels.kernels_of(layer)


def _weights(layer, kind, bits, folding):
    # A TimeDistributed has the kernels of the layer inside it.
    inner = kind_of(layer.layer) if kind == "TimeDistributed" else kind
    # A folded normalization scales each channel: the converter then gives a dense layer a scale per channel, too.
    per_channel = rule_of(inner).per_channel or (folding and bits == 8)
    return tuple(
        QuantizedWeight(kernel.attribute, bits if rule_of(kind).four_bits else 8, kernel.outputs if per_channel else ())
        for kernel in kernels.kernels_of(layer)
    )


def _activations(layer, kind):
    """Lists the paths of the activation functions inside a layer that are separate operations in the file."""
    if introspection.computing_layer(layer) is not layer:
        return ()
    has_kernel = kind not in ("Activation", "Softmax") and hasattr(layer, "activation")
    return ("activation",) if has_kernel and activation_of(layer) not in FUSIBLE_ACTIVATIONS else ()


def _is_float(place):
    return any(dtype.startswith(("float", "bfloat")) for dtype in place.dtypes)


def _carries_indices(place, known, passed=()):
    """Whether the output of a layer is only read as indices, which must not be rounded.

    Args:
        place: The `Place` of the layer.
        known: Dict of id of layer to `Place`.
        passed: Ids of the layers that lead here: one that is called several times can read itself, which says nothing.
    """
    passed = {*passed, id(place.layer)}
    readers = [reader for reader in place.readers if id(reader) not in passed]
    return bool(readers) and all(reader is not None and _reads_indices(reader, place.layer, known, passed) for reader in readers)


def _reads_indices(layer, source, known, passed):
    place = known.get(id(layer))
    return reads_indices(layer, source) or (place is not None and _carries_indices(place, known, passed))
