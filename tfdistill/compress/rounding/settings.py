"""Settings of learned rounding, and which layers of a model have it."""

import dataclasses
import typing

from tfdistill.compress.selection import select_values, settings_by_layer
from tfdistill.errors import ConfigurationError
from tfdistill.utils import validate

NEAREST: typing.Final = "nearest"
ADAROUND: typing.Final = "adaround"
MAX: typing.Final = "max"
MSE: typing.Final = "mse"


@dataclasses.dataclass(frozen=True)
class AdaRound:
    """Settings of AdaRound: whether each weight is rounded up or down is learned, so that the outputs of its layer stay those of the float model.

    Layer after layer: a layer gets the inputs that the layers before it give quantized, and is to give the outputs of the float model, after its activation; the last
    layer of a residual block after the sum, so that it makes up for the errors that the skip connection brings along. A variable for each weight says how far it is
    rounded up; gradient descent moves it, and a term of growing weight moves it to 0 or 1. No labels are needed.

    What is learned is kept where it makes less error on the calibration data than rounding to nearest, which a layer has otherwise.

    Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization" (2020), https://arxiv.org/abs/2004.10568.

    Args:
        steps: Steps of gradient descent for each layer, at least 1.
        scales: How the size of a step of the weights is found, for each output channel or for a whole layer, as the file has it: `"mse"`, where the squared error of
            rounding and clipping the weights is least; `"max"`, so that the largest weight is the last step, and none is clipped.
        seed: Seed of the order in which samples are taken.

    Raises:
        ConfigurationError: if a setting has a wrong value.

    Example:
        >>> quantize = tfdistill.compress.Quantize(weight_bits=4, rounding=tfdistill.compress.AdaRound(steps=50))
        >>> quantize.plan(student, dry_run=False).row("conv").reason
        'weights quantized, 4 bits, rounding learned, bias corrected'
    """

    steps: int = 500
    scales: typing.Literal["mse", "max"] = MSE
    seed: int = 0

    def __post_init__(self):
        object.__setattr__(self, "steps", validate.whole_number("steps", self.steps, owner="AdaRound"))
        validate.one_of("scales", self.scales, (MSE, MAX))
        object.__setattr__(self, "seed", validate.whole_number("seed", self.seed, at_least=0, owner="AdaRound"))


# What a user may give for all layers, or for those that a selector matches.
Way = typing.Literal["nearest", "adaround"] | AdaRound


def checked(rounding):
    """Returns the setting `rounding=` of a step, a copy where it is a dict.

    Raises:
        ConfigurationError: if it has a wrong value.
    """
    rounding, given = settings_by_layer("rounding", rounding, "'nearest', 'adaround' or AdaRound(...)")
    for way in given:
        if not isinstance(way, AdaRound) and (not isinstance(way, str) or way not in (NEAREST, ADAROUND)):
            raise ConfigurationError(
                f"rounding={rounding!r}.",
                "'nearest', 'adaround', AdaRound with settings, or a dict of layer names and patterns to these",
                "give AdaRound(...), not the class" if way is AdaRound else None,
            )
    return rounding


def ways(layers, rounding):
    """Returns the settings of the layers whose rounding is to be learned.

    Args:
        layers: Dict of path to live layer.
        rounding: What `checked` returned.

    Returns:
        Tuple of a dict of path to `AdaRound`, and the set of the paths that were named outright.

    Raises:
        ModelError: if a name or pattern matches no layer.
    """
    found, named = select_values(layers, rounding)
    learned = {path: AdaRound() if way == ADAROUND else way for path, way in found.items() if way != NEAREST}
    return learned, named & learned.keys() if isinstance(rounding, dict) else set()


def is_learned(rounding):
    """Whether a setting `rounding=` asks for any learned rounding."""
    return any(way != NEAREST for way in (rounding.values() if isinstance(rounding, dict) else [rounding]))


def most_bits(rounding):
    """Returns the bits up to which weights are learned: 4, or 8 where the user names layers, which are then those that are wanted."""
    return 8 if isinstance(rounding, dict) else 4
