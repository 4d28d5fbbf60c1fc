"""What a layer can become: its factorizations by each method, with their costs, errors and the layers that compute them."""

import abc
import functools
import math

import keras
import numpy as np

from tfdistill.compress.low_rank.factorize import MatrixFactors, share_lost
from tfdistill.compress.remake import made_again
from tfdistill.graph.flat import Value
from tfdistill.graph.macs import einsum_macs

SVD, SPATIAL_SVD, TUCKER, CP, AUTO = "svd", "spatial_svd", "tucker", "cp", "auto"
METHODS = (SVD, SPATIAL_SVD, TUCKER, CP)
WEIGHTS, OUTPUTS = "weights", "outputs"
_PLACES = ("first", "second", "third")


class Unfit(Exception):
    """Raised where a method does not work on a layer.

    Args:
        reason: Why, for the plan.
    """

    def __init__(self, reason):
        self.reason = reason
        super().__init__(reason)


def kernel_of(layer):
    """Returns the variable of a layer that is factorized."""
    if isinstance(layer, keras.layers.Embedding):
        return layer.embeddings
    return layer.pointwise_kernel if hasattr(layer, "pointwise_kernel") else layer.kernel


def input_shape(call):
    """Returns the shape of the first tensor that a call reads."""
    return next(x for x in keras.tree.flatten(call.args) if isinstance(x, Value)).shape


class Form(abc.ABC):
    """A factorization of one layer by one method.

    Args:
        layer: The layer.
        calls: Its `FlatCall`s.

    Attributes:
        method: `SVD` or the like.
        by: `OUTPUTS` if the outputs on data decide what counts, `WEIGHTS` if the kernel alone does.
        kernel_shape: Shape of the kernel.
    """

    method = SVD
    by = WEIGHTS

    def __init__(self, layer, calls):
        self.layer, self.calls = layer, calls
        self.kernel_shape = tuple(kernel_of(layer).shape)

    @property
    def kernel(self):
        """The kernel in NumPy, as float32; anew each time, as the forms of all layers are there at once and would hold a copy of the model each."""
        return keras.ops.convert_to_numpy(kernel_of(self.layer)).astype("float32", copy=False)

    @abc.abstractmethod
    def ranks(self, divisor):
        """Lists the ranks that may be chosen: multiples of `divisor` below the full rank."""

    @abc.abstractmethod
    def rank_of(self, given):
        """Returns the rank of this form for a number that the user gave, or a pair."""

    @abc.abstractmethod
    def sizes(self, rank):
        """Returns the numbers of weights of the kernels of the parts."""

    @abc.abstractmethod
    def macs(self, rank, call):
        """Returns the multiply-accumulates of the parts in one call of known sizes."""

    @abc.abstractmethod
    def lost(self, rank):
        """Returns the share of the energy that is lost at a rank, from 0 to 1."""

    @abc.abstractmethod
    def kernels(self, rank):
        """Returns the kernels of the parts."""

    @abc.abstractmethod
    def product(self, kernels):
        """Returns the kernel of the layer that kernels of the parts multiply to."""

    @abc.abstractmethod
    def parts(self, rank, names):
        """Returns the layers that compute it, not built, one for each of the names."""

    @property
    def beside(self):
        """Number of weights beside the kernel and the bias, which the first part has."""
        return 0

    def begin(self, parts):
        """Gives the first part, which is built, the weights of the layer beside its kernel and its bias."""
        return

    def lost_by(self, rank, kernels):
        """Returns the share of the energy that is lost with kernels of the parts."""
        return self.lost(rank) if self.by == OUTPUTS else share_lost(self.kernel, self.product(kernels))

    def names(self, name, taken):
        """Returns names of the parts: the last one has the layer's, so that the output of this name stays what it was.

        Args:
            name: Name of the layer.
            taken: Function of a name that returns one that is free.
        """
        return [*(taken(f"{name}_{place}") for place in _PLACES[: len(self.sizes(self.rank_of(1))) - 1]), name]

    def _again(self, name, last, **changes):
        """Returns a new layer of the same class; one that is not the last has no bias, activation or penalty on activations."""
        known = self.layer.get_config()
        if not last:
            changes = {
                "use_bias": False,
                "bias_axes": None,
                "activation": "linear",
                "bias_regularizer": None,
                "bias_constraint": None,
                "activity_regularizer": None,
                **changes,
            }
        # One for a kernel of that very shape would not fit; weights are set anyway.
        initializers = ("kernel_initializer", "depthwise_initializer", "pointwise_initializer", "embeddings_initializer")
        changes = {**dict.fromkeys(initializers, "glorot_uniform"), **changes}
        settings = {(key,): lambda _, value=value: value for key, value in changes.items() if key in known}
        return made_again(self.layer, settings, name)


class DecomposedForm(Form):
    """A form of which one decomposition tells the losses at all ranks."""

    @abc.abstractmethod
    def factored(self):
        """Returns the decomposition, anew each time, as it takes several times the memory of the kernel."""

    @functools.cached_property
    def _losses(self):
        return self.factored().losses()

    def lost(self, rank):
        return float(self._losses[rank])


class MatrixForm(DecomposedForm):
    """A kernel as one matrix of two factors."""

    def __init__(self, layer, calls, gram=None):
        super().__init__(layer, calls)
        self._gram = gram
        self.by = WEIGHTS if gram is None else OUTPUTS

    @abc.abstractmethod
    def matrix(self, kernel):
        """Returns a kernel as a matrix of inputs and outputs."""

    def linear(self):
        """Returns a new layer that computes the products with that matrix alone, its outputs along the last axis or axes, and its kernel."""
        return self._again(self.layer.name, False), self.kernel

    def factored(self):
        """Returns the `MatrixFactors`."""
        return MatrixFactors(self.matrix(self.kernel), self._gram)

    @functools.cached_property
    def shape(self):
        """Shape of the matrix."""
        return self.matrix(self.kernel).shape

    def ranks(self, divisor):
        return list(range(divisor, min(self.shape), divisor))

    def rank_of(self, given):
        if isinstance(given, tuple):
            raise Unfit(f"a pair of ranks is for {TUCKER!r}")
        return min(given, min(self.shape))

    def sizes(self, rank):
        return [self.shape[0] * rank, rank * self.shape[1]]


class DenseForm(MatrixForm):
    """SVD of Dense: two dense layers."""

    def matrix(self, kernel):
        return kernel

    def macs(self, rank, call):
        return math.prod(call.outputs[0].shape[1:-1]) * sum(self.sizes(rank))

    def kernels(self, rank):
        return list(self.factored().factors(rank))

    def product(self, kernels):
        return kernels[0] @ kernels[1]

    def parts(self, rank, names):
        return [self._again(names[0], False, units=rank), self._again(names[1], True)]


class EmbeddingForm(DenseForm):
    """SVD of the table of an Embedding: a narrow one, and a dense layer without bias."""

    def macs(self, rank, call):
        return math.prod(call.outputs[0].shape[1:-1]) * rank * self.shape[1]

    def parts(self, rank, names):
        layer = self.layer
        widen = keras.layers.Dense(
            layer.output_dim,
            use_bias=False,
            kernel_regularizer=layer.embeddings_regularizer,
            activity_regularizer=layer.activity_regularizer,
            dtype=layer.dtype_policy,
            trainable=layer.trainable,
            name=names[1],
        )
        return [self._again(names[0], False, output_dim=rank), widen]


class EinsumForm(MatrixForm):
    """SVD of EinsumDense whose kernel is a matrix of what is summed over and what is new in the output."""

    def __init__(self, layer, calls, gram=None):
        super().__init__(layer, calls, gram)
        read, self._labels, self._written = layer.equation.replace(" ", "").replace("->", ",").split(",")
        self._summed = [x for x in self._labels if x in read and x not in self._written]
        self._new = [x for x in self._labels if x in self._written and x not in read]
        kept = [x for x in read if x not in self._summed and x != "."]
        both = len(self._summed) + len(self._new) == len(self._labels) == len(set(self._labels))
        if not both or not self._summed or not self._new or not set(kept) <= set(self._written) or "." in self._labels:
            raise Unfit(f"{layer.equation} is no product of a matrix")
        self._rank = next(x for x in "rzyxwvuts" if x not in layer.equation)
        left, right = read.startswith("..."), read.endswith("...")
        self._read, self._middle = read, ("..." if left else "") + "".join([*kept, self._rank]) + ("..." if right else "")
        # Sizes of the output without the batch, which is the first letter or stands among the dots: free where the layer's own are, as it may be called on several.
        shape = layer.partial_output_shape
        known = dict(zip(reversed(self._written), reversed([shape] if isinstance(shape, int) else list(shape)), strict=False))
        self._sizes = [known.get(x) for x in (kept if left else kept[1:])]

    def matrix(self, kernel):
        order = [self._labels.index(x) for x in [*self._summed, *self._new]]
        moved = kernel.transpose(order)
        return moved.reshape(math.prod(moved.shape[: len(self._summed)]), -1)

    def linear(self):
        # What is new comes last, whatever the order of the layer's own output.
        kept = self._middle.replace(self._rank, "".join(self._new)) if not self._middle.endswith("...") else None
        if kept is None:
            raise Unfit(f"data is not used for {self.layer.equation}")
        shape = [*self._sizes, *self._shape_of(self._new)]
        return self._again(self.layer.name, False, equation=f"{self._read},{self._labels}->{kept}", output_shape=shape), self.kernel

    def _equations(self):
        first = f"{self._read},{''.join(self._summed)}{self._rank}->{self._middle}"
        return first, f"{self._middle},{self._rank}{''.join(self._new)}->{self._written}"

    def macs(self, rank, call):
        first, kernel = self._equations()[0], (*self._shape_of(self._summed), rank)
        # The second product multiplies once for each output and component.
        return einsum_macs(first, [input_shape(call), kernel]) + math.prod(call.outputs[0].shape[1:]) * rank

    def _shape_of(self, labels):
        return [self.kernel_shape[self._labels.index(x)] for x in labels]

    def kernels(self, rank):
        first, second = self.factored().factors(rank)
        return [first.reshape(*self._shape_of(self._summed), rank), second.reshape(rank, *self._shape_of(self._new))]

    def product(self, kernels):
        first, second = (f"{''.join(self._summed)}{self._rank}", f"{self._rank}{''.join(self._new)}")
        return np.einsum(f"{first},{second}->{self._labels}", *kernels)

    def parts(self, rank, names):
        first, second = self._equations()
        thin = self._again(names[0], False, equation=first, output_shape=[*self._sizes, rank])
        return [thin, self._again(names[1], True, equation=second)]
