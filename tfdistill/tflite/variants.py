"""What a file can be exported as: one table, names that decode."""

import dataclasses

from tfdistill.errors import ConfigurationError, nearest


@dataclasses.dataclass(frozen=True)
class Tolerances:
    """How far a file may be from its Keras model.

    Errors are relative to the output's scale: the larger of its range and its largest magnitude over the samples, since float rounding
    grows with magnitude and quantization steps grow with range. A limit of None is not checked.

    Attributes:
        max_relative_error: Bound of the largest absolute error divided by the scale, per output.
        max_relative_mean_error: Bound of the mean absolute error divided by the scale, per output.
        min_argmax_agreement: Least share (0 to 1) of the decided samples on which both name the same class. A sample is decided when
            Keras's first and second score are more than `DECIDED_MARGIN` of the scale apart: below that, two scores may fall into one
            quantization step and neither winner is wrong.
    """

    max_relative_error: float | None = None
    max_relative_mean_error: float | None = None
    min_argmax_agreement: float | None = None

    def __post_init__(self):
        for name in ("max_relative_error", "max_relative_mean_error"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ConfigurationError(f"{name}={value} is negative.", "0 or more, or None for no limit")
        if self.min_argmax_agreement is not None and not 0 <= self.min_argmax_agreement <= 1:
            raise ConfigurationError(f"min_argmax_agreement={self.min_argmax_agreement} is not a share.", "a number from 0 to 1, or None")


DECIDED_MARGIN = 0.1


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


VARIANTS = {
    variant.name: variant
    for variant in (
        Variant("float32", ("float32",), False, Tolerances(max_relative_error=1e-4), "weights and arithmetic in float32", True),
        Variant(
            "float16",
            ("float32",),
            False,
            # A float16 weight is off by at most 2^-11 of itself; a deep net adds a few dozen of them up.
            Tolerances(max_relative_error=2e-2, min_argmax_agreement=0.98),
            "weights stored in float16, arithmetic in float32",
        ),
        Variant(
            "dynamic_range",
            ("float32",),
            False,
            Tolerances(max_relative_mean_error=0.1, min_argmax_agreement=0.9),
            "weights in int8, activations quantized as they come",
        ),
        Variant(
            "int8",
            ("int8", "uint8", "float32"),
            True,
            Tolerances(max_relative_mean_error=0.1, min_argmax_agreement=0.9),
            "weights and activations in int8, ranges from calibration or training",
            takes_trained_ranges=True,
        ),
        Variant(
            "int16x8",
            ("int16", "float32"),
            True,
            Tolerances(max_relative_mean_error=0.1, min_argmax_agreement=0.9),
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
