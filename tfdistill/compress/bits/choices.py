"""What each layer of a model can have: weights of 4 bits, activations of 16, and why not."""

import dataclasses
import math
import typing

from tfdistill.bridge.adopt.introspection import kind_of, weight_named
from tfdistill.compress.quantize import consumers
from tfdistill.compress.quantize.layer_table import rule_of
from tfdistill.compress.quantize.wide import rounded_by, rounds_activations
from tfdistill.convert.wide.operations import is_widened


class Choice(typing.NamedTuple):
    """What one layer can have.

    Attributes:
        path: Path of the layer.
        weights: Number of its weights that are rounded.
        channels: Number of its biases.
        narrow: `Quantization` with weights of 4 bits; None if it cannot have them.
        rounds: Path of the layer that rounds what it computes; itself, or the last one of those that it is fused with.
        wide: `Quantization` of that one with activations of 16 bits; None if it cannot have them.
        why_not: Why one of the two is not there; empty if both are.
    """

    path: str
    weights: int
    channels: int
    narrow: typing.Any
    rounds: str
    wide: typing.Any
    why_not: str


def choices(step, opened):
    """Lists what the layers of a model can have, those that round weights or activations.

    Args:
        step: `Quantize`.
        opened: `rebuild.Opened` of the model.

    Returns:
        List of `Choice`, in the order of the layers. Layers that are fused share one.
    """
    decided = step._decide(opened)[0]
    narrow = dataclasses.replace(step, weight_bits=4)._decide(opened)[0]
    places = consumers.places(opened.legacy)
    known, bits = {id(place.layer): place for place in places.values()}, dict.fromkeys(places, 8)
    operations = {
        row.name: row.operations for row in step._plan(opened, *step._decide(opened)[:2], step._aware._tried(opened, decided, True)).rows
    }
    ends = {path: rounded_by(place, known, bits).path for path, place in places.items() if decided[path].done}
    members = {}
    for path, end in ends.items():
        members.setdefault(end, []).append(path)
    found = []
    for path, end in ends.items():
        weighted = [one for one in members[end] if _weights(decided[one])]
        # One row for what is fused: that of its kernel. Several kernels share the range of one Concatenate, which has a row of its own.
        own = len(weighted) > 1 and path == end and path not in weighted
        if not own and path not in (weighted or [end]):
            continue
        alone = len(weighted) <= 1 or own
        reasons, wide = [], None
        if alone:
            wide, reason = _wide(decided[end], places[end], [name for one in members[end] for name in operations.get(one, ())])
            reasons += [reason] if reason else []
        four = _narrow(decided[path], narrow[path])
        if _weights(decided[path]) and four is None:
            reasons.append(f"TFLite has no 4-bit {kind_of(places[path].layer)}")
        sizes = [math.prod(weight_named(places[path].layer, weight.path).shape) for weight in _weights(decided[path])]
        if not sizes and not rounds_activations(decided[end].quantization or _NOTHING):
            continue
        channels = sum(weight_named(places[path].layer, w.path).shape[-1] for w in _weights(decided[path]))
        found.append(Choice(path, sum(sizes), int(channels), four, end, wide, "; ".join(reasons)))
    return found


class _Nothing(typing.NamedTuple):
    output: bool = False
    activations: tuple = ()
    form: str = ""


_NOTHING = _Nothing()


def _weights(decision):
    return [w for w in decision.quantization.weights if w.bits in (4, 8)] if decision.quantization else []


def _narrow(decision, narrow):
    """Returns the `Quantization` of a layer with weights of 4 bits; None if it has none."""
    if not any(weight.bits == 4 for weight in _weights(narrow)) or not _weights(decision):
        return None
    return decision.quantization._replace(weights=narrow.quantization.weights)


def _wide(decision, place, operations):
    """Returns the `Quantization` of a layer with activations of 16 bits, or None, and why."""
    quantization = decision.quantization
    if quantization is None or not rounds_activations(quantization):
        return None, ""
    if rule_of(kind_of(place.layer)).recurrent:
        return None, "recurrent layers have activations of 8 bits"
    if None in place.readers:
        return None, "what it computes is an output of the file, of 8 bits"
    lacking = sorted({name for name in operations if not is_widened(name)} - {"QUANTIZE", "DEQUANTIZE"})
    if lacking:
        return None, f"TFLite has no 16-bit {', '.join(lacking)}"
    return quantization._replace(wide=True), ""
