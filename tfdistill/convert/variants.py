"""The kinds of .tflite files that can be exported, with the limits that each is verified against."""

import dataclasses
from typing import Literal

from tfdistill.errors import ConfigurationError, nearest

VariantName = Literal["float32", "float16", "dynamic_range", "int8", "int16x8", "int4_weights", "int8_int4_mixed"]
IoType = Literal["auto", "float32", "int8", "uint8", "int16"]


@dataclasses.dataclass(frozen=True)
class Tolerances:
    """Limits for the difference between a .tflite file and its Keras model.

    Errors are divided by the output's scale: the larger of its range and its largest magnitude over the samples, because float rounding
    grows with the magnitude and quantization steps grow with the range. For regression outputs, and outputs of unknown task, each index of
    the last axis may have a unit of its own; its errors are also divided by its own range. A limit of None is not checked.

    Two limits apply as soon as any limit is set: an index that varies in Keras must be predicted better than by a constant, and the
        accuracy must not drop
    by more than `max_accuracy_drop`. `Tolerances()` checks nothing and only measures.

    Attributes:
        max_relative_error: Upper limit of the largest absolute error divided by the scale, for each output and index; 0 or more.
        max_relative_mean_error: Upper limit of the mean absolute error divided by the scale, for each output and index; 0 or more.
        min_argmax_agreement: Lower limit (0 to 1) of the share of decided samples on which file and model predict the same class. A sample
            is decided when the first and second score of Keras are more than 0.1 of the scale apart: closer scores may share one
            quantization step. For integer outputs, the lower limit of the share of equal elements.
        min_r_squared: Lower limit (at most 1) of the coefficient of determination against Keras of an index that has its own unit: 1 is
            equal, 0 is no better than a constant.
        max_accuracy_drop: Upper limit of the drop in accuracy (0 to 1) on the labels. The file fails if the whole 95 % interval of its
            drop, paired on the same samples, lies above the limit. None means 0.01, which MLPerf Inference allows for quantized models.
        max_error_rise: The same for regression: upper limit of the rise of the mean absolute error, as a share of the error of the best
            constant; 0 or more.

    Example:
        >>> limits = tfdistill.tflite.Tolerances(min_argmax_agreement=0.5)
        >>> record = tfdistill.verify("student.tflite", keras.models.load_model("student.keras"), x, variant="int8", tolerances=limits)
        >>> record.argmax_agreement > 0.5
        True
    """

    max_relative_error: float | None = None
    max_relative_mean_error: float | None = None
    min_argmax_agreement: float | None = None
    min_r_squared: float | None = None
    max_accuracy_drop: float | None = None
    max_error_rise: float | None = None

    def __post_init__(self) -> None:
        if self.min_r_squared is not None and self.min_r_squared > 1:
            raise ConfigurationError(f"min_r_squared={self.min_r_squared} cannot be reached.", "at most 1, or None for no limit")
        for name in ("max_relative_error", "max_relative_mean_error", "max_accuracy_drop", "max_error_rise"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ConfigurationError(f"{name}={value} is negative.", "0 or more, or None for no limit")
        if self.min_argmax_agreement is not None and not 0 <= self.min_argmax_agreement <= 1:
            raise ConfigurationError(f"min_argmax_agreement={self.min_argmax_agreement} is not a share.", "a number from 0 to 1, or None")


DECIDED_MARGIN = 0.1
DEFAULT_ACCURACY_DROP = 0.01


@dataclasses.dataclass(frozen=True)
class Variant:
    """One kind of .tflite file.

    Attributes:
        name: The value of `export_tflite(variant=...)`.
        io: Types that its inputs and outputs may have; the first is that of `io="auto"`. Only float inputs and outputs change their type:
            indices of an embedding stay int32.
        integer_only: Whether the file must not hold float tensors.
        tolerances: The default limits of its verification.
        means: What the name means.
        takes_trained_ranges: Whether a model that was trained quantization-aware can be exported as this variant.
        activation_bits: Bits of the activations in the file: 32 for floats, 16 or 8.
        weight_bits: The fewest bits that weights have in the file.

    Example:
        >>> variant = tfdistill.tflite.VARIANTS["int8"]
        >>> variant.io, variant.integer_only
        (('int8', 'uint8', 'float32'), True)
    """

    name: VariantName
    io: tuple[str, ...]
    integer_only: bool
    tolerances: Tolerances
    means: str
    takes_trained_ranges: bool = False
    activation_bits: int = 32
    weight_bits: int = 32


# An R-squared of 0.5 is what an index reaches whose range is one and a half quantization steps wide.
_EIGHT_BITS = Tolerances(
    max_relative_mean_error=0.1, min_argmax_agreement=0.9, min_r_squared=0.5, max_accuracy_drop=DEFAULT_ACCURACY_DROP, max_error_rise=0.1
)
# A step of 4-bit weights is 1/7 of a channel's largest one, 18 times that of 8 bits: rounding alone changes what a layer computes by about a tenth of its spread,
# and the layers of a network add that up. Without training a few points of accuracy are the usual price (docs/variants.md), so 0.01 would refuse most files;
# these limits refuse those in which a layer is lost. Whoever trains for 4 bits gives the limits of int8.
_FOUR_BITS = Tolerances(
    max_relative_mean_error=0.15, min_argmax_agreement=0.8, min_r_squared=0.5, max_accuracy_drop=0.05, max_error_rise=0.25
)
VARIANTS: dict[VariantName, Variant] = {
    variant.name: variant
    for variant in (
        Variant(
            "float32",
            ("float32",),
            False,
            Tolerances(max_relative_error=1e-4, min_r_squared=0.999, max_accuracy_drop=0.001, max_error_rise=0.01),
            "weights and arithmetic in float32",
            True,
        ),
        Variant(
            "float16",
            ("float32",),
            False,
            # A float16 weight has a relative error of at most 2^-11; a deep network adds up a few dozen of them.
            Tolerances(
                max_relative_error=2e-2, min_argmax_agreement=0.98, min_r_squared=0.99, max_accuracy_drop=0.005, max_error_rise=0.05
            ),
            "weights stored in float16, arithmetic in float32",
            weight_bits=16,
        ),
        Variant(
            "dynamic_range",
            ("float32",),
            False,
            _EIGHT_BITS,
            "weights in int8, activations quantized at run time",
            weight_bits=8,
        ),
        Variant(
            "int8",
            ("int8", "uint8", "float32"),
            True,
            _EIGHT_BITS,
            "weights and activations in int8, ranges from calibration or training",
            takes_trained_ranges=True,
            activation_bits=8,
            weight_bits=8,
        ),
        Variant(
            "int16x8",
            ("int16", "float32"),
            True,
            # The steps of the activations are 256 times finer than those of int8; what remains is the rounding of the weights, at most
            # 1/254 of a channel's largest weight.
            Tolerances(
                max_relative_mean_error=0.02, min_argmax_agreement=0.97, min_r_squared=0.98, max_accuracy_drop=0.005, max_error_rise=0.05
            ),
            "weights in int8, activations in int16, ranges from calibration",
            activation_bits=16,
            weight_bits=8,
        ),
        Variant(
            "int4_weights",
            ("float32",),
            False,
            _FOUR_BITS,
            "weights stored in int4, those of depthwise and transposed convolutions in int8, arithmetic in float32",
            weight_bits=4,
        ),
        Variant(
            "int8_int4_mixed",
            ("int8", "uint8", "float32"),
            True,
            _FOUR_BITS,
            "activations in int8, weights in int4 but for the first and last layers and what has no 4-bit form, ranges from calibration or training",
            takes_trained_ranges=True,
            activation_bits=8,
            weight_bits=4,
        ),
    )
}


def variant_named(name):
    """Returns the `Variant` of that name.

    Raises:
        ConfigurationError: if there is none; the message names the nearest.
    """
    if name not in VARIANTS:
        raise ConfigurationError(f"There is no variant '{name}'.", f"one of {', '.join(VARIANTS)}", nearest(str(name), VARIANTS))
    return VARIANTS[name]


def resolve_io(variant, io):
    """Returns the type of the float inputs and outputs: `io`, or the variant's default for `"auto"`.

    Raises:
        ConfigurationError: if the variant does not support it.
    """
    if io == "auto":
        return variant.io[0]
    if io not in variant.io:
        raise ConfigurationError(f"The variant '{variant.name}' cannot have io='{io}'.", f"'auto' or one of {', '.join(variant.io)}")
    return io
