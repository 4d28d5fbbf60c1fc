"""Which layers have activations of 16 bits in a model whose other activations have 8."""

from tfdistill.bridge.adopt.introspection import kind_of
from tfdistill.bridge.wrappers.quantization_settings import Quantization
from tfdistill.compress.quantize.consumers import FIXED, activation_of
from tfdistill.compress.quantize.fusion import among, fused
from tfdistill.compress.quantize.layer_table import rule_of
from tfdistill.compress.selection import select_values
from tfdistill.errors import ModelError


def is_mixed(bits):
    """Whether a setting of activation bits is by layer."""
    return isinstance(bits, dict)


def with_wide_layers(places, decided, layers, activation_bits, weight_bits):
    """Returns the decisions with wide activations in the layers that are to have them.

    What the converter fuses is rounded once, by the last layer of it, which then is the wide one.

    Args:
        places: Dict of path to `Place`.
        decided: Dict of path to `LayerQuantization`, with activations of 8 bits.
        layers: Dict of path to layer, with every layer of the model.
        activation_bits: Dict of names and patterns to 8 or 16.
        weight_bits: Dict of path to the bits of weights.

    Raises:
        ModelError: if a layer that was named outright has no activations that are rounded.
    """
    bits, named = select_values(layers, activation_bits)
    known = {id(place.layer): place for place in places.values()}
    weights = {path: weight_bits.get(path, 8) for path in places}
    changed = dict(decided)
    for path in (path for path in layers if bits.get(path) == 16):
        place = rounded_by(places[path], known, weights)
        # The range of a sigmoid needs no rounding; its tensor has a type all the same.
        fixed = activation_of(place.layer) in FIXED
        quantization = decided[place.path].quantization or Quantization(output=False)
        if not decided[place.path].done or not (fixed or rounds_activations(quantization)):
            if path in named:
                raise ModelError(
                    f"'{path}' cannot have activations of 16 bits: {decided[place.path].reason}.", "a layer that rounds what it computes"
                )
            continue
        if rule_of(kind_of(place.layer)).recurrent:
            if path in named:
                raise ModelError(f"'{path}' cannot have activations of 16 bits: recurrent layers have 8.", "a layer that is not recurrent")
            continue
        changed[place.path] = decided[place.path]._replace(
            quantization=quantization._replace(wide=True), reason=f"{decided[place.path].reason}, activations of 16 bits"
        )
    return changed


def rounded_by(place, known, weight_bits):
    """Returns the `Place` of the layer that rounds what a layer computes: the last one of those that the converter fuses with it.

    Args:
        place: `Place` of the layer.
        known: Dict of id of layer to `Place`.
        weight_bits: Dict of path to the bits of weights.
    """
    while (reader := among(place.reader, known)) is not None and fused(place, known, weight_bits):
        place = reader
    return place


def rounds_activations(quantization):
    """Whether a layer with this `Quantization` rounds anything but weights."""
    return bool(quantization.output or quantization.activations or quantization.form)
