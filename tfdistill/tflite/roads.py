"""Who makes integers of a float model: the bridge, whose graph quantization-aware training has too, TensorFlow's converter, or litert-quantizer."""

import contextlib
import contextvars
import dataclasses
import functools
import typing
import warnings

from tfdistill.bridge.adopt.adopt import AdoptedModel
from tfdistill.bridge.adopt.trained_ranges import quantized_layers, wide_layers
from tfdistill.compress.quantize.calibrate import Quantize, quantized_on
from tfdistill.compress.quantize.outer_layers import NothingInFourBits, in_four_bits
from tfdistill.convert.converter import needs_calibration
from tfdistill.convert.quantizer import Quantization
from tfdistill.errors import ConfigurationError, DataError, TfdistillError
from tfdistill.tflite.inspection.preserved import require_bits_of_variant
from tfdistill.tflite.runtimes import TARGETS_OF_RUNTIMES
from tfdistill.utils import validate

BRIDGE: typing.Final = "bridge"
CONVERTER: typing.Final = "converter"
QUANTIZER: typing.Final = "quantizer"
Road = typing.Literal["auto", "bridge", "converter", "quantizer"]
# Variant -> the roads that lead to it, the one of `"auto"` first. The converter makes the other variants alone.
_ROADS = {"int8": (BRIDGE, CONVERTER), "int8_int4_mixed": (BRIDGE, QUANTIZER), "int4_weights": (QUANTIZER,)}


_step = contextvars.ContextVar("_step", default=None)
_kept = contextvars.ContextVar("_kept", default=None)


@contextlib.contextmanager
def quantized_by(step):
    """While open, the bridge makes integers with this `Quantize` instead of its defaults."""
    token = _step.set(step)
    try:
        yield
    finally:
        _step.reset(token)


@contextlib.contextmanager
def kept_wider(kept):
    """While open, litert-quantizer gives these weights more bits than the variant: dict of (operation, name of the tensor that it writes) to 8 or 32."""
    token = _kept.set(kept)
    try:
        yield
    finally:
        _kept.reset(token)


@dataclasses.dataclass(frozen=True)
class Taken:
    """The road that was taken.

    Attributes:
        road: `"bridge"`, `"converter"` or `"quantizer"`; None where no integers were made, or the model had its own.
        reason: Why another road took the place of the bridge; empty if none did.
        result: What `write` returned.
        warnings: What the user is to be warned of.
        wide: Names of the layers that should have activations of 16 bits.
    """

    road: str | None
    reason: str
    result: typing.Any
    warnings: tuple[str, ...] = ()
    wide: tuple[str, ...] = ()


def require_road(road, variant):
    """Refuses a road that does not exist, or does not lead to a variant.

    Raises:
        ConfigurationError: naming the road and the variant.
    """
    validate.one_of("road", road, typing.get_args(Road))
    roads = _ROADS.get(variant.name, (CONVERTER,))
    if road != "auto" and road not in roads:
        takers = [name for name, takes in _ROADS.items() if road in takes]
        raise ConfigurationError(
            f"road='{road}' for the variant '{variant.name}'.",
            f"the variant {' or '.join(takers)}"
            if road != CONVERTER
            else f"road='{roads[0]}', as TensorFlow's converter makes no weights of 4 bits",
            f"road='auto' or road='{roads[0]}'",
        )


def take_road(road, model, signature, variant, samples, write, runtime=None, adjust=None, io="float32", batch_size=1):
    """Writes the file of a model on the road that is asked for; with `"auto"` on the bridge, or else on the other one that leads to the variant.

    Args:
        road: One of `Road`.
        model: The model.
        signature: Its `ModelSignature`.
        variant: A `Variant`.
        samples: Calibration `Samples`; None without.
        write: Function of a model (the given one, or its quantized form), and of a `Quantization` that makes integers of a file of floats where that is to be done:
            converts it and checks the file.
        runtime: What is to open the file, one of `tfdistill.runtime.versions.RUNTIMES`; None for today's LiteRT.
        adjust: Function of the bridge's quantized model that changes its ranges before it is written; None for none.
        io: Type of float inputs and outputs.
        batch_size: Batch size of the file; None if it is free.

    Returns:
        `Taken`.

    Raises:
        TfdistillError: from the bridge if that is asked for; with `"auto"`, from the other road if both fail.
    """
    if variant.name == "int4_weights":
        return Taken(QUANTIZER, "", write(model, Quantization(model.name, variant, io, None, batch_size, kept=_kept.get() or {})))
    ready = isinstance(model, AdoptedModel) and quantized_layers(model.legacy)
    if ready:
        require_bits_of_variant(model, variant)
    if samples is None or ready:
        if road == QUANTIZER:
            raise _no_road(model, ready, variant)
        wide = tuple(wide_layers(model.legacy)) if ready else ()
        return Taken(CONVERTER if samples is not None else None, "", write(model), wide=wide)
    by_quantizer = Quantization(model.name, variant, io, samples, batch_size, runtime is None, road == QUANTIZER)
    if road == QUANTIZER:
        return Taken(QUANTIZER, "", write(model, by_quantizer))
    if road == CONVERTER or variant.name not in _ROADS:
        return Taken(CONVERTER, "", write(model))
    step = Quantize(target=TARGETS_OF_RUNTIMES.get(runtime, "xnnpack"))
    try:
        with warnings.catch_warnings():
            # Those of the bridge are about a model that the user would train or save; this one is neither.
            warnings.simplefilter("ignore")
            chosen = _step.get()
            if chosen is None:
                chosen = functools.partial(in_four_bits, step) if variant.weight_bits == 4 else step
            quantized, notes = quantized_on(chosen, model, signature, samples)
        if adjust is not None:
            adjust(quantized)
        return Taken(BRIDGE, "", write(quantized), tuple(notes), tuple(wide_layers(quantized.legacy)))
    except (DataError, NothingInFourBits):
        raise
    except Exception as error:  # of the user's layers too, which the converter may take all the same
        if road == BRIDGE:
            raise
        refused = error
    other = _ROADS[variant.name][1]
    try:
        result = write(model, by_quantizer if other == QUANTIZER else None)
    except TfdistillError as error:
        raise error from refused
    reason = getattr(refused, "happened", f"{type(refused).__name__}: {refused}")
    maker = "litert-quantizer" if other == QUANTIZER else "TensorFlow's converter"
    told = f"The integers of '{model.name}' were made by {maker} (road='{other}'), as the bridge refused the model: {reason}"
    return Taken(other, reason, result, (told,))


def _no_road(model, ready, variant):
    """Returns the error of road='quantizer' for a model that it is not for: one without calibration data, or one with ranges of its own."""
    if not ready:
        return needs_calibration(variant, model.name)
    return ConfigurationError(
        f"road='{QUANTIZER}' for '{model.name}', which is quantized.",
        "a model in floats, of which it makes integers",
        "leave road= out: the integers of the model are used as they are",
    )
