"""Which weights of a model have their rounding learned, and up to where the output of their layer is compared with that of the float model."""

import typing

from tfdistill.bridge.adopt import introspection
from tfdistill.bridge.wrappers.quantization_settings import QuantizedWeight
from tfdistill.compress.quantize.biases import CORRECTABLE

# Layers that multiply what they are called on by kernels. Of a table of vectors there is nothing to weigh up, and a loop over steps is too long for gradients.
_CLASSES = CORRECTABLE | {"MultiHeadAttention", "GroupedQueryAttention"}
# Layers that belong to the one before them if they alone read it: the normalization that is folded into it, and its activation.
_TAIL = {"BatchNormalization", "ReLU", "Activation", "LeakyReLU", "ELU", "PReLU"}
_SUM = "Add"
LEARNED, CLUSTERED = "rounding learned", "rounded to nearest, as clusters would not stay"


class Behind(typing.NamedTuple):
    """A layer behind the one whose rounding is learned, of which the output is compared.

    Attributes:
        path: Path of the layer.
        other: Of a sum of two: path of the layer that gives the other one, which runs before; None for all else.
        first: Whether that other one is the first of the two.
    """

    path: str
    other: str | None = None
    first: bool = False


class Unit(typing.NamedTuple):
    """A layer whose rounding is learned.

    Attributes:
        path: Path of the layer.
        weights: Its weights that are learned, a tuple of `QuantizedWeight`.
        tail: The layers `Behind` it up to the one whose output is compared; empty if it is its own.
        runs: How often it runs in one run of the model.
    """

    path: str
    weights: tuple[QuantizedWeight, ...]
    tail: tuple[Behind, ...]
    runs: int

    @property
    def end(self):
        """Path of the layer whose output is compared."""
        return self.tail[-1].path if self.tail else self.path

    @property
    def others(self):
        """Paths of the layers whose outputs are added to its own."""
        return [behind.other for behind in self.tail if behind.other is not None]


def units_of(places, decided, wanted, bits):
    """Finds the layers whose rounding is learned.

    Args:
        places: Dict of path to `Place`.
        decided: Dict of path to `LayerQuantization`.
        wanted: Paths of the layers for which the user wants it.
        bits: Weights of more bits are rounded to nearest.

    Returns:
        Dict of path to `Unit`, in the order of the model.
    """
    found = {}
    for path, place in places.items():
        weights = _weights(place, decided[path], bits) if path in wanted else ()
        if weights and not any(weight.clusters for weight in weights):
            found[path] = Unit(path, weights, _tail(place, places), place.runs)
    return found


def told(path, place, decision, units, bits):
    """Returns what the plan says of the rounding of a layer for which the user wants it learned; empty where there is nothing to say.

    Args:
        path: Path of the layer.
        place: Its `Place`.
        decision: Its `LayerQuantization`.
        units: What `units_of` returned.
        bits: As for `units_of`.
    """
    if path in units:
        return LEARNED
    return CLUSTERED if _weights(place, decision, bits) else ""


def _weights(place, decision, bits):
    if not decision.done or decision.quantization is None or introspection.kind_of(place.layer) not in _CLASSES:
        return ()
    return tuple(weight for weight in decision.quantization.weights if weight.bits <= bits)


def _tail(start, places):
    """Returns the layers behind a place that belong to it.

    The sum at the end of a residual block does, too: what the other branch has gathered of errors can then be made up for, which nothing else does.
    """
    known, found, place = {id(other.layer): other for other in places.values()}, [], start
    while place.reader is not None:
        before, place = place, known[id(place.reader)]
        kind = introspection.kind_of(place.layer)
        if place.calls == 1 and kind == _SUM and len(place.sources) == 2:
            first = place.sources[1] is before.layer
            other = known.get(id(place.sources[0 if first else 1]))
            if other is None or other.runs != 1 or other.layer is before.layer or not _leads_to(other, start, known):
                break
            found.append(Behind(place.path, other.path, first))
        elif place.calls == 1 and place.source is not None and kind in _TAIL:
            found.append(Behind(place.path))
        else:
            break
    return tuple(found)


def _leads_to(place, end, known):
    """Whether a layer is read, directly or through others, by another one, so that it runs before it."""
    waiting, seen = [end], set()
    while waiting:
        for source in waiting.pop().sources:
            if source is place.layer:
                return True
            if id(source) in known and id(source) not in seen:
                seen.add(id(source))
                waiting.append(known[id(source)])
    return False
