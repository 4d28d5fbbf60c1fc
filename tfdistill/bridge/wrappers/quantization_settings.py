"""How a layer is quantized: the settings of its quantization wrapper."""

import typing

from tfdistill.bridge.integer.activations import ACTIVATIONS, PRELU_OF_PRODUCTS, RELU_OF_PRODUCT, REPLACEMENTS
from tfdistill.bridge.integer.layers import FORMS
from tfdistill.bridge.integer.normalizations import TWICE
from tfdistill.bridge.integer.pixels import ENLARGING_OF_PARTS
from tfdistill.bridge.integer.rounding import FLOAT_FORM
from tfdistill.errors import ModelError

# What may be computed in another form, and the forms that may take its place.
_OF_LAYERS = {ENLARGING_OF_PARTS, FLOAT_FORM, PRELU_OF_PRODUCTS, RELU_OF_PRODUCT, TWICE}
_REPLACED, _REPLACING = {*ACTIVATIONS, *FORMS, "softmax"}, _OF_LAYERS | set(REPLACEMENTS)


class QuantizedWeight(typing.NamedTuple):
    """How one weight of a layer is quantized.

    Attributes:
        path: Where it is, from the layer on: `"kernel"`, `"_query_dense.kernel"`.
        bits: 8, 4 or `tfdistill.bridge.integer.rounding.FLOAT`.
        axes: Its axes that have a scale for each index; empty for one scale.
        sparse: Whether the zeros that it has at the start stay.
        clusters: Number of values that it has at the start and keeps, over all channels where each has its own; 0 where it is free.
    """

    path: str
    bits: int = 8
    axes: tuple[int, ...] = ()
    sparse: bool = False
    clusters: int = 0


class Quantization(typing.NamedTuple):
    """How one layer is quantized.

    Attributes:
        weights: Its weights that are.
        activations: Paths of the activation functions whose input is an integer tensor of its own: `"activation"`.
        output: Whether its output is quantized; not where the converter fuses the next layer into this one.
        form: Name in `tfdistill.bridge.integer.layers.FORMS` of how it is computed instead of by itself, so that every integer tensor inside can be quantized; empty for
            the layer's own call.
        observed: Whether nothing is rounded until a file is made (`as_in_the_file`): training only measures the ranges.
        positive: Positions of the tensors that it is called on that are known not to be negative.
        scores: Whether its output is only read by softmaxes.
        replaced: Pairs (name of a form or activation function, name of the form that is computed in its place).
        hides: Whether numbers that hide scores may be in what it computes; with `scores` alone.
        wide: Whether its activations have 16 bits, among those of 8 bits of other layers.
    """

    weights: tuple[QuantizedWeight, ...] = ()
    activations: tuple[str, ...] = ()
    output: bool = True
    form: str = ""
    observed: bool = False
    positive: tuple[int, ...] = ()
    scores: bool = False
    replaced: tuple[tuple[str, str], ...] = ()
    hides: bool = False
    wide: bool = False


def read_settings(fields, name):
    """Makes the `Quantization` of a layer from what a saved model holds.

    Args:
        fields: A `Quantization`, or a list of its fields: files of earlier versions lack the last ones.
        name: Name of the layer, for errors.

    Raises:
        ModelError: if there are more fields, or one names a form that is not known: the layer would compute something else.
    """
    fields = list(fields)
    if len(fields) > len(Quantization._fields):
        raise _of_another_version(name, f"has {len(fields)} settings, of which {len(Quantization._fields)} are known")
    settings = Quantization(*fields)
    settings = settings._replace(
        weights=tuple(QuantizedWeight(path, bits, tuple(axes), *rest) for path, bits, axes, *rest in settings.weights),
        activations=tuple(settings.activations),
        positive=tuple(settings.positive),
        replaced=tuple((replaced, form) for replaced, form in settings.replaced),
    )
    if settings.form and settings.form not in FORMS:
        raise _of_another_version(name, f"is computed in the form {settings.form!r}, which is not known")
    if not isinstance(settings.wide, bool):
        raise _of_another_version(name, f"is as wide as {settings.wide!r}, which is not known")
    for replaced, form in settings.replaced:
        if replaced not in _REPLACED or form not in _REPLACING:
            raise _of_another_version(name, f"is computed with {form!r} in place of {replaced!r}, which is not known")
    return settings


def _of_another_version(name, what):
    return ModelError(
        f"The quantization-aware layer '{name}' {what}.",
        "settings of this version of tfdistill or of an earlier one",
        "load the model with the version that saved it, or quantize the float model again with Quantize or QuantizeAware",
    )


def are_floats(quantization):
    """Whether a layer with this `Quantization` (or None) has a part that is computed in float, in the file too."""
    return quantization is not None and any(form == FLOAT_FORM for _, form in quantization.replaced)


def without_floats(quantization):
    """Returns a `Quantization` (or None) without the parts that are computed in float."""
    if quantization is None:
        return None
    return quantization._replace(replaced=tuple(pair for pair in quantization.replaced if pair[1] != FLOAT_FORM))
