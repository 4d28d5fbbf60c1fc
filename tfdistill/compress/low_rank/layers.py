"""Which layers can be factorized, and by which methods."""

import keras

from tfdistill.compress.low_rank.convolutions import ConvForm, CPForm, SeparableForm, SpatialForm, TuckerForm
from tfdistill.compress.low_rank.forms import (
    AUTO,
    CP,
    SPATIAL_SVD,
    SVD,
    TUCKER,
    DenseForm,
    EinsumForm,
    EmbeddingForm,
    MatrixForm,
    Unfit,
    kernel_of,
)
from tfdistill.graph.carriers import HeldWeight
from tfdistill.graph.layers import has_attention_scores

_layers = keras.layers
_CONVOLUTIONS = {SVD: ConvForm, SPATIAL_SVD: SpatialForm, TUCKER: TuckerForm, CP: CPForm}
FORMS: dict[type, dict] = {
    _layers.Dense: {SVD: DenseForm},
    _layers.EinsumDense: {SVD: EinsumForm},
    _layers.Embedding: {SVD: EmbeddingForm},
    _layers.Conv1D: _CONVOLUTIONS,
    _layers.Conv2D: _CONVOLUTIONS,
    _layers.SeparableConv1D: {SVD: SeparableForm},
    _layers.SeparableConv2D: {SVD: SeparableForm},
}


def read_elsewhere(graph):
    """Returns the ids of variables that a graph reads beside the layers that own them, such as a table that outputs are multiplied with."""
    held = {id(call.operation.weight) for call in graph.calls if isinstance(call.operation, HeldWeight)}
    return held | {id(x) for call in graph.calls for x in keras.tree.flatten((call.args, call.kwargs)) if isinstance(x, keras.Variable)}


def why_whole(layer, elsewhere):
    """Returns the reason why a layer cannot be factorized by any method; None where it can.

    Args:
        layer: Layer or operation.
        elsewhere: What `read_elsewhere` returns.
    """
    kind = type(layer)
    if isinstance(layer, (_layers.DepthwiseConv1D, _layers.DepthwiseConv2D)):
        return "a depthwise convolution sums over no channels"
    if kind not in FORMS:
        return (
            "the kernels of attention are left as they are"
            if has_attention_scores(layer)
            else f"no factorization of a {kind.__name__} is known"
        )
    if getattr(layer, "groups", 1) > 1:
        return "a grouped convolution sums over few channels"
    if getattr(layer, "lora_enabled", False) or getattr(layer, "quantization_mode", None):
        return "its kernel has LoRA weights or is quantized"
    if any(getattr(layer, f"{name}_constraint", None) for name in ("kernel", "pointwise", "embeddings")):
        return "its kernel has a constraint, which its factors could not keep"
    if id(kernel_of(layer)) in elsewhere:
        return "its kernel is read elsewhere, too"
    return None


def forms_of(layer, calls, method, grams):
    """Returns the forms that a layer can take, in the order of preference at one rank.

    Args:
        layer: Layer of a class in `FORMS`.
        calls: Its `FlatCall`s.
        method: One of `METHODS`, or `AUTO` for all that need no iterations that may fail.
        grams: Dict of (id of layer, method) to what `responses` measured.

    Raises:
        Unfit: if the method does not work on the layer.
    """
    known = FORMS[type(layer)]
    if method != AUTO and method not in known:
        raise Unfit(f"{method!r} is for convolutions")
    found, reason = [], None
    for name in (SPATIAL_SVD, SVD, TUCKER) if method == AUTO else (method,):
        if name not in known or (name == TUCKER and method == AUTO and set(layer.kernel_size) == {1}):
            continue
        kind = known[name]
        try:
            found.append(kind(layer, calls, grams.get((id(layer), name))) if issubclass(kind, MatrixForm) else kind(layer, calls))
        except Unfit as unfit:
            reason = unfit
    if reason is not None and not found:
        raise reason
    return found
