"""Learned rounding as a part of post-training quantization: which layers have it, what the plan says of it, and what is refused."""

from tfdistill.compress.rounding.adaround import learn_rounding
from tfdistill.compress.rounding.record import remember
from tfdistill.compress.rounding.settings import is_learned, most_bits, ways
from tfdistill.compress.rounding.units import told, units_of
from tfdistill.errors import ModelError


def rounding_told(rounding, layers, places, decided):
    """Says how the weights of layers are rounded for which the user wants it learned.

    Args:
        rounding: The setting, as `settings.checked` returned it.
        layers: Dict of path to live layer.
        places: Dict of path to `Place`.
        decided: Dict of path to `LayerQuantization`.

    Returns:
        Dict of path to a text for the plan.
    """
    if not is_learned(rounding):
        return {}
    wanted, _ = ways(layers, rounding)
    units = units_of(places, decided, wanted, most_bits(rounding))
    return {path: told(path, places[path], decided[path], units, most_bits(rounding)) for path in wanted if path in places}


def rounded_as_learned(made, rounding, layers, places, decided, signature, samples):
    """Learns the rounding of the weights of a quantized model.

    Args:
        made: `AdoptedModel` with measured ranges, whose weights are changed.
        rounding: The setting, as `settings.checked` returned it.
        layers: Dict of path to live layer of the model without quantizers.
        places: Dict of path to `Place` in it.
        decided: Dict of path to `LayerQuantization`.
        signature: `ModelSignature` of the samples.
        samples: Calibration `Samples`.

    Raises:
        ModelError: if there is nothing to learn, or not in a layer that was named; or if the model does not run with many samples at once.
    """
    wanted, named = ways(layers, rounding)
    units = units_of(places, decided, wanted, most_bits(rounding))
    if not units:
        raise ModelError(
            f"rounding={rounding!r}, but '{made.name}' has no weights whose rounding could be learned.",
            f"kernels of {'4 or 8' if most_bits(rounding) == 8 else '4'} bits, without clusters",
            "leave out rounding="
            if most_bits(rounding) == 8
            else "give weight_bits=4, or rounding={'*': 'adaround'} for weights of 8 bits",
        )
    for path in wanted:
        if path in named and path not in units:
            raise ModelError(
                f"The rounding of '{path}' cannot be learned: {told(path, places[path], decided[path], units, 8) or 'it has no kernel that is quantized'}.",
                fix=f"leave '{path}' out of rounding=",
            )
    remember(made, learn_rounding(made, units, wanted, places, signature, samples))
