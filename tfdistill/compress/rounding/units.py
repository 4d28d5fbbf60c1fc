"""Which weights of a model have their rounding learned, and up to where the output of their layer is compared with that of the float model."""

import typing

from tfdistill.bridge.adopt import introspection
from tfdistill.bridge.wrappers.quantization_settings import QuantizedWeight
from tfdistill.compress.quantize.biases import CORRECTABLE

# Layers that multiply what they are called on by kernels. Of a table of vectors there is nothing to weigh up, and a loop over steps is too long for gradients.
_CLASSES = CORRECTABLE | {"MultiHeadAttention", "GroupedQueryAttention"}
# Layers that belong to the one before them if they alone read it: the normalization that is folded into it, and its activation.
_TAIL = {"BatchNormalization", "ReLU", "Activation", "LeakyReLU", "ELU", "PReLU"}
LEARNED, CLUSTERED = "rounding learned", "rounded to nearest, as clusters would not stay"


class Unit(typing.NamedTuple):
    """A layer whose rounding is learned.

    Attributes:
        path: Path of the layer.
        weights: Its weights that are learned, a tuple of `QuantizedWeight`.
        tail: Paths of the layers behind it whose output is compared; empty if it is its own.
        runs: How often it runs in one run of the model.
    """

    path: str
    weights: tuple[QuantizedWeight, ...]
    tail: tuple[str, ...]
    runs: int

    @property
    def end(self):
        """Path of the layer whose output is compared."""
        return self.tail[-1] if self.tail else self.path


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


def _tail(place, places):
    known, found = {id(other.layer): other for other in places.values()}, []
    while place.reader is not None:
        place = known[id(place.reader)]
        if place.calls != 1 or place.source is None or introspection.kind_of(place.layer) not in _TAIL:
            break
        found.append(place.path)
    return tuple(found)
