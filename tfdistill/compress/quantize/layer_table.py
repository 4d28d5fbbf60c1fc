"""How TFLite computes each class of layer in integers: one row for all classes that are alike.

Classes are known by their names, which Keras 3 and tf_keras share.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from tfdistill.bridge import layer_facts
from tfdistill.bridge.adopt import introspection
from tfdistill.bridge.convert.layers import AUGMENTING
from tfdistill.bridge.integer import traced
from tfdistill.bridge.integer.activations import ACTIVATIONS, PRELU
from tfdistill.bridge.integer.pixels import ENLARGING
from tfdistill.bridge.integer.recognize import name_of
from tfdistill.compress.quantize.consumers import activation_of, known_function, operation_of
from tfdistill.graph.layers import IDLE, LOOKUPS


def _always(_):
    return True


def _never(_):
    return False


@dataclasses.dataclass(frozen=True)
class LayerRule:
    """How layers of some classes are quantized.

    Attributes:
        classes: Names of the classes.
        integers: Whether TFLite has an integer operation for them.
        passes: Function of a layer: whether its output has the range of its input, so that it needs none of its own.
        recurrent: Whether they are loops over steps.
        form: Name in `tfdistill.bridge.integer.layers.FORMS` of how they are computed in training, so that every integer tensor inside is rounded; empty
            for a layer that is called as it is.
        form_fits: Function of a `Place`: whether the layer there can be computed in that form.
        hosted: Whether the form is for a Keras 3 layer that tf_keras only hosts; other hosted layers are called as they are.
        folds: Whether a BatchNormalization behind them can be folded into them.
        four_bits: Whether their weights can have 4 bits in a file.
        per_channel: Whether their weights have a scale for each output channel.
        reads_indices: Whether their inputs are indices, whatever the type, which must not be rounded.
        needs_form: Whether TFLite cannot compute them but in their form.
    """

    classes: tuple[str, ...]
    integers: bool = True
    passes: Callable[[Any], bool] = _never
    recurrent: bool = False
    form: str = ""
    form_fits: Callable[[Any], bool] = _always
    hosted: bool = False
    folds: bool = False
    four_bits: bool = False
    per_channel: bool = False
    reads_indices: bool = False
    needs_form: bool = False


def _is_ranked(place):
    return place.rank is not None and place.rank >= 2


def _rescales(place):
    return _is_ranked(place) and place.layer.output_shape[-1] is not None


def _standardizes(place):
    return _is_ranked(place) and all(
        place.layer.output_shape[axis] is not None for axis in [-1, *layer_facts.standardized_axes(place.layer)]
    )


def _is_sized(place):
    return _is_ranked(place) and place.sized


def _has_inner_results(place):
    """Whether an activation is computed by several operations, or by another one than its own."""
    name = name_of(place.layer.activation)
    return name is None or name in ACTIVATIONS


def _is_bent_elsewhere(place):
    """Whether a ReLU is another function than max(x, 0) and relu6, which the converter fuses."""
    return (place.layer.max_value, float(place.layer.threshold), float(place.layer.negative_slope)) not in (
        (None, 0.0, 0.0),
        (6.0, 0.0, 0.0),
    )


def _counts_numbers(place):
    """Whether a CategoryEncoding has one input, of numbers in rows of known length."""
    return len(place.sources) == place.calls and place.length is not None


def _is_number_of_bin(place):
    return place.layer.output_mode == "int" and not getattr(place.layer, "sparse", False)


def _is_resized_by_tflite(place):
    return place.layer.interpolation in ("bilinear", "nearest") and not place.layer.crop_to_aspect_ratio


def _is_rewritten(place):
    if operation_of(place.layer) in PLAIN_OPERATIONS:
        traced_as = layer_facts.as_function(place.layer)[:2]
        return (place.scores and traced.hides_scores(*traced_as)) or (_may_be_neutral(place.layer) and traced.repeats_alone(*traced_as))
    known = known_function(place.layer)
    return known in ACTIVATIONS if known else traced.needs_rewriting(*layer_facts.as_function(place.layer), place.positive)


def _may_be_neutral(layer):
    return operation_of(layer) in _NEUTRAL_AT_TIMES and all(len(node.keras_inputs) == 1 for node in layer.inbound_nodes)


def _has_a_mask(place):
    """Whether a Softmax along one axis gets a mask beside its scores."""
    axis = place.layer.axis
    return (isinstance(axis, int) or len(axis) == 1) and (place.masked or layer_facts.is_called_with(place.layer, 1, "mask"))


def _has_length(place):
    return place.length is not None


def _merges_several(place):
    """Whether a layer that merges has results of its own between its inputs and its output."""
    least = 2 if introspection.kind_of(place.layer) == "Average" else 3
    return any(len(node.keras_inputs) >= least for node in place.layer.inbound_nodes)


def _averages(place):
    """Whether an AveragePooling has windows that do not depend on the size of its input, or an input of known size."""
    return place.layer.padding == "valid" or place.sized


def _repeats_pixels(place):
    return place.layer.interpolation == "nearest" and place.sized


def _is_ungated(place):
    return not getattr(introspection.computing_layer(place.layer), "use_gate", False)


def _keeps_scale_of_pixels(layer):
    """Whether TFLite enlarges images without a scale of its own for the result."""
    return layer.interpolation in ("nearest", "bilinear")


def _is_identity(layer):
    return activation_of(layer) == "linear"


RULES = (
    LayerRule(("Softmax",), form="masked_softmax", form_fits=_has_a_mask),
    LayerRule(("Dense",), folds=True, four_bits=True),
    LayerRule(("EinsumDense",), four_bits=True),
    LayerRule(("Conv1D", "DepthwiseConv1D", "Conv1DTranspose", "Conv2DTranspose"), folds=True, per_channel=True),
    LayerRule(("Conv2D", "DepthwiseConv2D"), folds=True, four_bits=True, per_channel=True),
    LayerRule(("SeparableConv1D",), form="separable", folds=True, per_channel=True),
    LayerRule(("SeparableConv2D",), form="separable", folds=True, four_bits=True, per_channel=True),
    LayerRule(("Conv3D", "Conv3DTranspose", "AveragePooling3D", "MaxPooling3D"), integers=False),
    LayerRule(("LSTM", "GRU", "SimpleRNN", "RNN", "Bidirectional", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"), recurrent=True),
    LayerRule(("MultiHeadAttention",), form="attention", four_bits=True),
    LayerRule(("GroupedQueryAttention",), form="grouped attention", form_fits=_is_ungated, hosted=True),
    LayerRule(("BatchNormalization",), form="normalization alone", form_fits=_is_ranked),
    LayerRule(("GroupNormalization",), form="group normalization", form_fits=_is_sized),
    LayerRule(("LayerNormalization",), form="layer normalization", form_fits=_is_ranked),
    LayerRule(("RMSNormalization",), form="root mean square normalization", form_fits=_is_ranked, hosted=True),
    LayerRule(("UnitNormalization",), form="unit normalization", form_fits=_is_ranked),
    LayerRule(("Rescaling",), form="rescaling", form_fits=_rescales),
    LayerRule(("Normalization",), form="standardization", form_fits=_standardizes),
    LayerRule(("AveragePooling1D", "AveragePooling2D"), form="average pooling", form_fits=_averages),
    LayerRule(("Add", "Multiply", "Average"), form="merge of several", form_fits=_merges_several),
    LayerRule(("GlobalAveragePooling1D",), form="average of steps", form_fits=_has_length),
    # In training it changes the kernel of the layer inside, which is no operation on tensors.
    LayerRule(("SpectralNormalization",)),
    LayerRule(("ELU",), form="elu"),
    LayerRule(("PReLU",), form=PRELU),
    LayerRule(("ReLU",), form="relu", form_fits=_is_bent_elsewhere),
    LayerRule(("KerasOperation", "TFOpLambda", "Lambda"), form="operation", form_fits=_is_rewritten),
    LayerRule(("Masking",), form="masking", passes=_always),
    LayerRule(("Embedding",), reads_indices=True),
    LayerRule(("ReversibleEmbedding",), form="reversible embedding", hosted=True, reads_indices=True),
    LayerRule(("CategoryEncoding",), form="category encoding", form_fits=_counts_numbers, reads_indices=True, needs_form=True),
    LayerRule(("Discretization",), passes=_always, form="discretization", form_fits=_is_number_of_bin, needs_form=True),
    LayerRule(LOOKUPS, reads_indices=True, needs_form=True),
    LayerRule(("UpSampling2D",), passes=_keeps_scale_of_pixels, form=ENLARGING, form_fits=_repeats_pixels),
    LayerRule(("Activation",), passes=_is_identity, form="activation", form_fits=_has_inner_results),
    LayerRule(("MaxPooling1D", "MaxPooling2D", "GlobalMaxPooling1D", "GlobalMaxPooling2D", "GlobalMaxPooling3D"), passes=_always),
    LayerRule(("Cropping1D", "Cropping2D", "Cropping3D", "ZeroPadding1D", "ZeroPadding2D", "ZeroPadding3D"), passes=_always),
    LayerRule(("UpSampling1D", "UpSampling3D", "Flatten", "Reshape", "Permute", "RepeatVector"), passes=_always),
    LayerRule((*IDLE, "InputLayer", "WithMask", "CenterCrop", "RandomCrop"), passes=_always),
    LayerRule(AUGMENTING, passes=_always),
    LayerRule(("RandomFlip", "RandomRotation", "RandomTranslation", "RandomZoom", "RandomContrast", "RandomBrightness"), passes=_always),
    LayerRule(("RandomHeight", "RandomWidth"), passes=_always),
    LayerRule(("Resizing",), passes=_always, form="resizing", form_fits=_is_resized_by_tflite, needs_form=True),
)
_BY_CLASS = {name: rule for rule in RULES for name in rule.classes}

# Operations of keras.ops, and of TensorFlow on tensors of Keras, whose output has the range of their input.
PASSING_OPERATIONS = {
    *("Reshape", "Transpose", "Squeeze", "ExpandDims", "GetItem", "Flatten", "Swapaxes", "Moveaxis", "Ravel", "Identity", "Split"),
    *("BroadcastTo", "Tile", "Repeat", "Roll", "Flip", "Slice"),
    *("reshape", "transpose", "squeeze", "expand_dims", "__operators__.getitem", "identity", "split", "stop_gradient"),
}
# The same, by their settings: what is padded with, or a cast to the type that the input has, for example.
_MOVING_AT_TIMES = {"Cast", "Pad", "Take", "Unstack", "cast", "pad", "gather", "unstack"}
# The same, where they read one tensor and a constant that changes nothing.
_NEUTRAL_AT_TIMES = {"Add", "Subtract", "Multiply", "Divide", "TrueDivide"}
_NEUTRAL_AT_TIMES |= {"__operators__.add", "__operators__.sub", "__operators__.mul", "math.add", "math.subtract", "math.multiply"}
# Operations that are one operation of TFLite's, which need not be traced to be known.
PLAIN_OPERATIONS = PASSING_OPERATIONS | {
    *("Add", "Subtract", "Multiply", "Maximum", "Minimum", "Matmul", "Concatenate", "Mean", "Sum", "Max", "Min"),
    *("__operators__.add", "__operators__.sub", "__operators__.mul", "math.add", "math.subtract", "math.multiply", "concat", "matmul"),
}
# Classes whose output has the range of their table, or is rounded by their form.
LOOKING_UP = ("Embedding", "ReversibleEmbedding")
# Activations that the converter fuses into the operation before them.
FUSIBLE_ACTIVATIONS = {"linear", "relu", "relu6"}
# Ways in which a Bidirectional merges its directions by computing a new tensor.
COMPUTING_MERGE_MODES = ("sum", "mul", "ave")


def rule_of(kind):
    """Returns the `LayerRule` of a class name; for a class in no row, that of a layer that is called as it is and has a range of its own."""
    return _BY_CLASS.get(kind) or LayerRule((kind,))


# Classes without a rule of their own, of which every file can hold an operation, or several.
_PLAIN_CLASSES = {"Subtract", "Maximum", "Minimum", "Concatenate", "LeakyReLU", "GlobalAveragePooling2D"}


def is_in_every_file(kind):
    """Whether the layers of a class, with channels last and a known activation, can be in a .tflite file of any variant: integers are computed in float, too."""
    rule = _BY_CLASS.get(kind)
    if rule is None:
        return kind in _PLAIN_CLASSES
    return rule.integers and not rule.recurrent and not rule.needs_form and rule.form != "operation"  # a Lambda may be any


def passes(layer, kind):
    """Whether the output of a layer has the range of its input, or of its weights: by its rule, as an operation, or because what tf_keras hosts turns out to
    move elements only, whichever way it is called."""
    hosted = introspection.computing_layer(layer) is not layer and kind not in _BY_CLASS
    moves = (hosted or _may_be_neutral(layer) or operation_of(layer) in _MOVING_AT_TIMES) and all(
        traced.only_moves(*layer_facts.as_function(layer, call)[:2]) for call in range(max(1, len(layer.inbound_nodes)))
    )
    return rule_of(kind).passes(layer) or operation_of(layer) in PASSING_OPERATIONS or moves


def reads_indices(layer, source):
    """Whether what a layer reads of another one are indices, whatever the type, which must not be rounded.

    Args:
        layer: The layer, without wrappers.
        source: The other one, without wrappers.
    """
    return rule_of(introspection.kind_of(layer)).reads_indices and not layer_facts.is_reversed(layer, source)


def unavailable(place, kind):
    """Returns why TFLite cannot compute the layer of a `Place`; empty where it can, in integers or not."""
    if rule_of(kind).needs_form and not form_of(place, kind):
        settings = [f"{name}={getattr(place.layer, name)!r}" for name in ("output_mode", "interpolation") if hasattr(place.layer, name)]
        return f"TFLite has no {kind}" + (f" of {', '.join(settings)}" if settings else "")
    floats = float_operations(place, kind)
    return f"TFLite computes {', '.join(floats)} in float only" if floats else ""


def float_operations(place, kind):
    """Lists the operations that TFLite computes in float only: those of an activation of the user's, of a function, or of a layer of Keras 3 without a rule."""
    layer = place.layer
    if operation_of(layer) in PLAIN_OPERATIONS or known_function(layer):
        return []
    if kind in ("KerasOperation", "TFOpLambda", "Lambda") or (introspection.computing_layer(layer) is not layer and kind not in _BY_CLASS):
        return traced.without_integers(*layer_facts.as_function(layer)[:2], place.positive)
    function = getattr(layer, "activation", None)
    if name_of(function) is None:
        return traced.without_integers(*layer_facts.activation_as_function(layer))
    return []


def form_of(place, kind):
    """Returns the name of the form in which the layer of a `Place` is computed in training; empty for a layer that is called as it is."""
    layer, rule = place.layer, rule_of(kind)
    hosted = introspection.computing_layer(layer) is not layer
    if hosted and kind not in _BY_CLASS and _is_rewritten(place):
        return "operation"
    if rule.hosted is not hosted:
        return ""
    channels_last = getattr(layer, "data_format", "channels_last") == "channels_last"
    return rule.form if rule.form and channels_last and rule.form_fits(place) else ""
