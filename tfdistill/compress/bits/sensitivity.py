"""What the outputs lose or win where one layer has other bits than 8."""

import dataclasses

from tfdistill.bridge.adopt.adopt import AdoptedModel
from tfdistill.bridge.adopt.trained_ranges import quantized_layers
from tfdistill.compress import rebuild
from tfdistill.compress.bits.choices import choices
from tfdistill.compress.bits.record import LayerBits
from tfdistill.compress.bits.switches import FLOAT, OTHER, Switches, worst_share
from tfdistill.compress.quantize.calibrate import Quantize, quantized_on
from tfdistill.errors import ConfigurationError, ModelError
from tfdistill.utils.progress import progress

# An int16x8 operation has biases of int64 where an int8 one has int32.
_WIDE_BIAS = 4


def require_eight_bits(step):
    """Refuses a step that says bits itself.

    Raises:
        ConfigurationError: naming the setting.
    """
    if step.weight_bits != 8 or step.activation_bits != 8:
        raise ConfigurationError(
            f"step has weight_bits={step.weight_bits!r}, activation_bits={step.activation_bits!r}.",
            "8 bits everywhere, which are what other bits are compared with",
            "leave both out of Quantize",
        )


def require_float(model):
    """Refuses a model that is quantized already, whose ranges and weights were made for its bits.

    Raises:
        ModelError: naming the model.
    """
    if isinstance(model, AdoptedModel) and quantized_layers(model.legacy):
        raise ModelError(f"'{model.name}' is quantized already.", "a float model", "give the model as it was before it was quantized")


def sensitivities(model, signature, calibration, samples, step=None, bits=(4, 8, 16)):
    """Measures the error of the outputs with each layer alone at 4 and at 16 bits, all others at 8.

    Args:
        model: A float model.
        signature: Its `ModelSignature`.
        calibration: Calibration `Samples`.
        samples: `Samples` to measure on.
        step: `Quantize` of 8 bits; None for the defaults. Biases are not corrected.
        bits: The bits that are asked for.

    Returns:
        Tuple of `LayerBits`, all at 8 bits, and the float model's outputs on the samples, as a dict of output name to array.
    """
    step = dataclasses.replace(step or Quantize(), bias_correction=False)
    # Both are opened anew for each use, as they hold the layers of one quantized model.
    possible = choices(step, rebuild.open_model(model))
    quantized, _ = quantized_on(step, model, signature, calibration)
    others = {}
    places = {}
    for choice in possible:
        for wanted, path, settings in ((4, choice.path, choice.narrow), (16, choice.rounds, choice.wide)):
            if settings is not None and wanted in bits:
                others.setdefault(path, []).append(settings)
                places[choice.path, wanted] = path, OTHER + len(others[path]) - 1
    switches = Switches(quantized, signature, others)
    rows = []
    with progress("rounding each layer with other bits", len(places) + 2) as advance:
        floats = switches.run(samples, switches.positions(dict.fromkeys(switches.names, FLOAT)))
        advance()
        base = worst_share(floats, switches.run(samples, switches.positions()))
        advance()
        for choice in possible:
            errors = {}
            for wanted in (4, 16):
                if (choice.path, wanted) in places:
                    path, position = places[choice.path, wanted]
                    errors[wanted] = worst_share(floats, switches.run(samples, switches.positions({path: position})))
                    advance()
            rows.append(
                LayerBits(
                    name=choice.path,
                    bits=8,
                    why=choice.why_not,
                    error_8_bits=base,
                    error_4_bits=errors.get(4),
                    error_16_bits=errors.get(16),
                    bytes_8_bits=choice.weights,
                    bytes_4_bits=(choice.weights + 1) // 2 if 4 in errors else None,
                    bytes_16_bits=choice.weights + _WIDE_BIAS * choice.channels if 16 in errors else None,
                )
            )
    return tuple(rows), floats
