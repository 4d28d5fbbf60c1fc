"""What a file can be exported as: one table, names that decode."""

import dataclasses

from tfdistill.errors import ConfigurationError, nearest


@dataclasses.dataclass(frozen=True)
class Tolerances:
    """How far a file may be from its Keras model.

    Errors are relative to the output's scale: the larger of its range and its largest magnitude over the samples, since float rounding
    grows with magnitude and quantization steps grow with range. Where the indices of the last axis have units of their own (numbers, and outputs of which nothing says what they are for),
    they are relative to each index's own range as well. A limit of None is not checked.

    Two things fail whatever limits are set, unless none is: an index that varies in Keras and for which the file is no better than a constant; and a drop in accuracy beyond `max_accuracy_drop`.
    `Tolerances()` checks nothing and only measures.

    Attributes:
        max_relative_error: Bound of the largest absolute error divided by the scale, per output and index.
        max_relative_mean_error: Bound of the mean absolute error divided by the scale, per output and index.
        min_argmax_agreement: Least share (0 to 1) of the decided samples on which both name the same class. A sample is decided when
            Keras's first and second score are more than `DECIDED_MARGIN` of the scale apart: below that, two scores may fall into one
            quantization step and neither winner is wrong. For whole numbers, the least share of equal elements.
        min_r_squared: Least coefficient of determination against Keras of an index that has its own unit: 1 is equal, 0 as good as a constant.
        max_accuracy_drop: Bound of the drop in accuracy (0 to 1) on the labels: the file fails if the whole 95 % interval of its drop, paired on the same samples, lies above it. None is 0.01, what
            MLPerf Inference allows a quantized model.
        max_error_rise: The same for regression: bound of the rise of the mean absolute error, as a share of the error that the best constant would make.
    """

    max_relative_error: float | None = None
    max_relative_mean_error: float | None = None
    min_argmax_agreement: float | None = None
    min_r_squared: float | None = None
    max_accuracy_drop: float | None = None
    max_error_rise: float | None = None

    def __post_init__(self):
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
        name: What `export_tflite(variant=...)` calls it.
        io: Types its inputs and outputs may have; the first is what `io="auto"` means. Only float inputs and outputs are retyped: indices
            of an embedding stay int32.
        integer_only: Whether a float tensor inside it is an error.
        tolerances: What it is verified against unless the caller says otherwise.
        means: What the name means.
        takes_trained_ranges: Whether a model that was trained quantization-aware can be exported as this.
    """

    name: str
    io: tuple[str, ...]
    integer_only: bool
    tolerances: Tolerances
    means: str
    takes_trained_ranges: bool = False


# An index whose own range is a step and a half wide is followed to half of its variation.
_EIGHT_BITS = Tolerances(
    max_relative_mean_error=0.1, min_argmax_agreement=0.9, min_r_squared=0.5, max_accuracy_drop=DEFAULT_ACCURACY_DROP, max_error_rise=0.1
)
VARIANTS = {
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
            # A float16 weight is off by at most 2^-11 of itself; a deep net adds a few dozen of them up.
            Tolerances(
                max_relative_error=2e-2, min_argmax_agreement=0.98, min_r_squared=0.99, max_accuracy_drop=0.005, max_error_rise=0.05
            ),
            "weights stored in float16, arithmetic in float32",
        ),
        Variant(
            "dynamic_range",
            ("float32",),
            False,
            _EIGHT_BITS,
            "weights in int8, activations quantized as they come",
        ),
        Variant(
            "int8",
            ("int8", "uint8", "float32"),
            True,
            _EIGHT_BITS,
            "weights and activations in int8, ranges from calibration or training",
            takes_trained_ranges=True,
        ),
        Variant(
            "int16x8",
            ("int16", "float32"),
            True,
            # The activations' steps are 256 times finer than int8's; what is left is the rounding of the weights, at most 1/254 of a channel's largest.
            Tolerances(
                max_relative_mean_error=0.02, min_argmax_agreement=0.97, min_r_squared=0.98, max_accuracy_drop=0.005, max_error_rise=0.05
            ),
            "weights in int8, activations in int16, ranges from calibration",
        ),
    )
}


def variant_named(name):
    """Returns the `Variant` called `name`.

    Raises:
        ConfigurationError: if there is none; names the nearest.
    """
    if name not in VARIANTS:
        raise ConfigurationError(f"There is no variant '{name}'.", f"one of {', '.join(VARIANTS)}", nearest(str(name), VARIANTS))
    return VARIANTS[name]


def resolve_io(variant, io):
    """Returns the type of the float inputs and outputs: `io`, or the variant's own for `"auto"`.

    Raises:
        ConfigurationError: if the variant cannot have it.
    """
    if io == "auto":
        return variant.io[0]
    if io not in variant.io:
        raise ConfigurationError(f"The variant '{variant.name}' cannot have io='{io}'.", f"'auto' or one of {', '.join(variant.io)}")
    return io
