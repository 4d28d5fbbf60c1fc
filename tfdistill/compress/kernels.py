"""The kernels of a layer, which of their axes are summed and which are channels, and the multiply-accumulates of a layer."""

import dataclasses
import math

import keras
import numpy as np

from tfdistill.bridge import imports
from tfdistill.bridge.adopt import introspection
from tfdistill.graph.keras_internals import is_keras_own
from tfdistill.graph.opening import COLLECTIONS

MATRIX, DEPTHWISE_FILTERS, LOOKUP = "matrix", "depthwise filters", "lookup table"

DEPTHWISE = ("DepthwiseConv1D", "DepthwiseConv2D")
NORMALIZATIONS = (
    "BatchNormalization",
    "LayerNormalization",
    "GroupNormalization",
    "UnitNormalization",
    "Normalization",
    "SyncBatchNormalization",
)

_SEPARABLE = ("SeparableConv1D", "SeparableConv2D")
_TRANSPOSED = ("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose")
_CELLS = ("SimpleRNNCell", "LSTMCell", "GRUCell", "ConvLSTMCell")
_ATTENTION = ("_query_dense", "_key_dense", "_value_dense", "_gate_dense", "_output_dense")

# Class name -> attributes of its own kernels. Keras 3 and tf_keras use the same names, except in depthwise convolutions: of their two names the
# first that is there is used.
_KERNELS = {
    **dict.fromkeys(("Dense", "EinsumDense", "Conv1D", "Conv2D", "Conv3D", *_TRANSPOSED), ("kernel",)),
    **dict.fromkeys(DEPTHWISE, ("depthwise_kernel", "kernel")),
    **dict.fromkeys(_SEPARABLE, ("depthwise_kernel", "pointwise_kernel")),
    **dict.fromkeys(_CELLS, ("kernel", "recurrent_kernel")),
    "Embedding": ("embeddings",),
    "ReversibleEmbedding": ("embeddings", "reverse_embeddings"),
}

# Class name -> attributes of the layers inside. In a class of neither table, every attribute that is a layer, or a list or dict of layers, is searched; of
# classes that are not the user's, the public ones.
_INNER = {
    "MultiHeadAttention": _ATTENTION,
    "GroupedQueryAttention": _ATTENTION,  # keras.layers.GroupQueryAttention
    "Bidirectional": ("forward_layer", "backward_layer"),
    "TimeDistributed": ("layer",),
    "RNN": ("cell",),
    "ConvRNN": ("cell",),
    "StackedRNNCells": ("cells",),
}

_PER_OUTPUT_POSITION = ("Dense", "Conv1D", "Conv2D", "Conv3D", *_SEPARABLE, *DEPTHWISE)


@dataclasses.dataclass(frozen=True)
class Kernel:
    """One kernel of a layer.

    Attributes:
        attribute: Its path from the user's layer: `"kernel"`, `"forward_layer.cell.kernel"`, `"cell.cells.0.kernel"`.
        shape: Its shape.
        inputs: The axes that one output is summed over; the last one is consecutive in a .tflite file.
        outputs: The axes of the output channels. For depthwise filters those are the input channel and the multiplier; the sum is over
            space alone.
        kind: `MATRIX`, `DEPTHWISE_FILTERS` or `LOOKUP` (an embedding, whose rows are looked up, not summed).
    """

    attribute: str
    shape: tuple
    inputs: tuple
    outputs: tuple
    kind: str = MATRIX

    @property
    def size(self):
        """Number of weights."""
        return math.prod(self.shape)

    @property
    def rows(self):
        """Number of weights that one output channel has."""
        return math.prod(self.shape[axis] for axis in self.inputs)

    @property
    def columns(self):
        """Number of output channels."""
        return math.prod(self.shape[axis] for axis in self.outputs)

    def matrix(self, value):
        """Returns the kernel `value` as an array of shape (rows, columns)."""
        return np.transpose(value, (*self.inputs, *self.outputs)).reshape(self.rows, self.columns)


def kernels_of(layer):
    """Lists the kernels of a live Keras 3 or tf_keras layer, with or without wrappers.

    Layers inside it (projections of attention, directions, cells) are searched, models inside it only where the layer is one of the user's that runs as it is.

    Returns:
        List of `Kernel`.
    """
    found, seen = [], set()
    for attribute, owner in _owners(introspection.computing_layer(layer)):
        variable = introspection.weight_named(layer, attribute)
        if variable is None or id(variable) in seen:
            continue
        seen.add(id(variable))
        kernel = _kernel(attribute, tuple(variable.shape), owner)
        if kernel.inputs:  # otherwise it is an EinsumDense that only scales
            found.append(kernel)
    return found


def prunable_attributes(layer):
    """Returns the attribute paths of the kernels of `layer`; empty if there are none."""
    return tuple(kernel.attribute for kernel in kernels_of(layer))


def known_as(layer, names):
    """Returns the name among `names` that is the class of `layer`, or of the nearest class that it derives from; None if there is none."""
    return next((kind.__name__ for kind in type(layer).__mro__ if kind.__name__ in names), None)


def _owners(layer, path=""):
    """Yields pairs (attribute path, layer that has the attribute) of what may be a kernel in `layer`."""
    name = known_as(layer, {*_KERNELS, *_INNER})
    if name in _KERNELS:
        present = [attribute for attribute in _KERNELS[name] if hasattr(layer, attribute)]
        yield from ((path + attribute, layer) for attribute in (present[:1] if name in DEPTHWISE else present))
        return
    for attribute in _INNER[name] if name else _attributes(layer):
        value = getattr(layer, attribute, None)
        for place, inner in _items(value).items():
            if _is_layer(inner) or (isinstance(inner, keras.Model) and _is_of_the_user(layer)):
                yield from _owners(inner, f"{path}{attribute}{place}.")


def _attributes(layer):
    """Lists the attributes of a layer that may hold layers: in a class of the user's, private ones too."""
    if isinstance(layer, keras.Model):
        return ["layers"]
    foreign = _is_of_the_user(layer)
    return [name for name in vars(layer) if name not in COLLECTIONS and (foreign or not name.startswith("_"))]


def _is_of_the_user(layer):
    """Whether a layer is a Keras 3 layer of a class that Keras does not have, or a model, which is only searched inside such a layer."""
    return isinstance(layer, keras.layers.Layer) and (isinstance(layer, keras.Model) or not is_keras_own(type(layer)))


def _items(value):
    """Returns a dict of the rest of a path to what may be a layer there: a list's items by their numbers, a dict's by keys that a path can have."""
    if isinstance(value, dict):
        return {f".{key}": item for key, item in value.items() if isinstance(key, str) and key.isidentifier()}
    return {f".{i}": item for i, item in enumerate(value)} if isinstance(value, (list, tuple)) else {"": value}


def _is_layer(value):
    kinds, models = (keras.layers.Layer, imports.tf_keras().layers.Layer), (keras.Model, imports.tf_keras().Model)
    return isinstance(value, kinds) and not isinstance(value, models)


def _kernel(attribute, shape, owner):
    rank, name = len(shape), known_as(owner, _KERNELS)
    if name in DEPTHWISE or attribute.endswith("depthwise_kernel"):
        return Kernel(attribute, shape, tuple(range(rank - 2)), (rank - 2, rank - 1), DEPTHWISE_FILTERS)
    if name in _TRANSPOSED:
        return Kernel(attribute, shape, (*range(rank - 2), rank - 1), (rank - 2,))
    if name == "EinsumDense":
        operands, _, result = owner.equation.replace(" ", "").replace("...", "").partition("->")
        labels = operands.partition(",")[2]
        outputs = tuple(axis for axis in range(rank) if labels[axis] in result)
        return Kernel(attribute, shape, tuple(axis for axis in range(rank) if axis not in outputs), outputs)
    return Kernel(attribute, shape, tuple(range(rank - 1)), (rank - 1,), LOOKUP if attribute.rpartition(".")[2] == "embeddings" else MATRIX)


def parameters(layer):
    """Counts the parameters of the user's layer, without the variables of a wrapper."""
    own = {id(variable) for variable in introspection.own_variables(layer)}
    return sum(math.prod(weight.shape) for weight in layer.weights if id(weight) not in own)


def macs(layer):
    """Counts the multiply-accumulates of a tf_keras layer per example.

    Returns:
        An int; None for layers whose count is not known: other classes, unknown sizes, several calls with different shapes.
    """
    inner = introspection.unwrap(layer)
    if type(inner).__name__ not in _PER_OUTPUT_POSITION or len(layer.inbound_nodes) != 1:
        return None
    shape = layer.output_shape
    channels_first = getattr(inner, "data_format", None) == "channels_first"
    positions = shape[2:] if channels_first else shape[1:-1]
    if None in positions:
        return None
    kernels = sum(math.prod(weight.shape) for weight in inner.weights if "kernel" in weight.name)
    return math.prod(positions) * kernels


def zeros(value):
    """Counts the exact zeros of an array."""
    return int(value.size - np.count_nonzero(value))
