"""Who makes integers of a float model from calibration data: the bridge, whose graph quantization-aware training has too, or TensorFlow's converter."""

import contextlib
import contextvars
import dataclasses
import typing
import warnings

from tfdistill.bridge.adopt.adopt import AdoptedModel
from tfdistill.bridge.adopt.trained_ranges import quantized_layers, wide_layers
from tfdistill.compress.quantize.calibrate import Quantize, quantized_on
from tfdistill.errors import ConfigurationError, DataError, TfdistillError
from tfdistill.tflite.runtimes import TARGETS_OF_RUNTIMES
from tfdistill.utils import validate

BRIDGE: typing.Final = "bridge"
CONVERTER: typing.Final = "converter"
Road = typing.Literal["auto", "bridge", "converter"]
# The variants whose integers the bridge can make.
_BRIDGED = ("int8",)


_step = contextvars.ContextVar("_step", default=None)


@contextlib.contextmanager
def quantized_by(step):
    """While open, the bridge makes integers with this `Quantize` instead of its defaults."""
    token = _step.set(step)
    try:
        yield
    finally:
        _step.reset(token)


@dataclasses.dataclass(frozen=True)
class Taken:
    """The road that was taken.

    Attributes:
        road: `"bridge"` or `"converter"`; None without calibration.
        reason: Why the converter took the place of the bridge; empty if it did not.
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
    validate.one_of("road", road, ("auto", BRIDGE, CONVERTER))
    if road == BRIDGE and variant.name not in _BRIDGED:
        raise ConfigurationError(
            f"road='{BRIDGE}' for the variant '{variant.name}'.", f"the variant {', '.join(_BRIDGED)}", f"road='auto' or road='{CONVERTER}'"
        )


def take_road(road, model, signature, variant, samples, write, runtime=None, adjust=None):
    """Writes the file of a model on the road that is asked for; with `"auto"` on the bridge, or else on the converter's.

    Args:
        road: `"auto"`, `"bridge"` or `"converter"`.
        model: The model.
        signature: Its `ModelSignature`.
        variant: A `Variant`.
        samples: Calibration `Samples`; None without.
        write: Function of a model (the given one, or its quantized form): converts it and checks the file.
        runtime: What is to open the file, one of `tfdistill.runtime.versions.RUNTIMES`; None for today's LiteRT.
        adjust: Function of the bridge's quantized model that changes its ranges before it is written; None for none.

    Returns:
        `Taken`.

    Raises:
        TfdistillError: from the bridge if that is asked for; with `"auto"`, from the converter if both roads fail.
    """
    ready = isinstance(model, AdoptedModel) and quantized_layers(model.legacy)
    if samples is None or ready:
        wide = tuple(wide_layers(model.legacy)) if ready else ()
        return Taken(CONVERTER if samples is not None else None, "", write(model), wide=wide)
    if road == CONVERTER or variant.name not in _BRIDGED:
        return Taken(CONVERTER, "", write(model))
    try:
        with warnings.catch_warnings():
            # Those of the bridge are about a model that the user would train or save; this one is neither.
            warnings.simplefilter("ignore")
            step = _step.get() or Quantize(target=TARGETS_OF_RUNTIMES.get(runtime, "xnnpack"))
            quantized, notes = quantized_on(step, model, signature, samples)
        if adjust is not None:
            adjust(quantized)
        return Taken(BRIDGE, "", write(quantized), tuple(notes), tuple(wide_layers(quantized.legacy)))
    except DataError:
        raise
    except Exception as error:  # of the user's layers too, which the converter may take all the same
        if road == BRIDGE:
            raise
        refused = error
    try:
        result = write(model)
    except TfdistillError as error:
        raise error from refused
    reason = getattr(refused, "happened", f"{type(refused).__name__}: {refused}")
    told = f"The integers of '{model.name}' were made by TensorFlow's converter (road='{CONVERTER}'), as the bridge refused the model: {reason}"
    return Taken(CONVERTER, reason, result, (told,))
