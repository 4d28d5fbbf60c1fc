"""How a layer is quantized: the settings of its quantization wrapper."""

import typing

from tfdistill.bridge.integer.rounding import FLOAT_FORM


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
        replaced: Pairs (name of a form or activation function, name of the form that is computed in its place).
    """

    weights: tuple[QuantizedWeight, ...] = ()
    activations: tuple[str, ...] = ()
    output: bool = True
    form: str = ""
    observed: bool = False
    replaced: tuple[tuple[str, str], ...] = ()


def are_floats(quantization):
    """Whether a layer with this `Quantization` (or None) has a part that is computed in float, in the file too."""
    return quantization is not None and any(form.startswith(FLOAT_FORM) for _, form in quantization.replaced)


def without_floats(quantization):
    """Returns a `Quantization` (or None) without the parts that are computed in float."""
    if quantization is None:
        return None
    return quantization._replace(replaced=tuple(pair for pair in quantization.replaced if not pair[1].startswith(FLOAT_FORM)))
