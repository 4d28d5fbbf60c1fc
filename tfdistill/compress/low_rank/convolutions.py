"""Factorizations of convolutions: SVD over all taps, spatial SVD, Tucker-2 and CP."""

import functools
import math

import keras
import numpy as np

from tfdistill.compress.low_rank.factorize import DegenerateFit, TuckerFactors, cp_factors, cp_product
from tfdistill.compress.low_rank.forms import CP, SPATIAL_SVD, TUCKER, DecomposedForm, Form, MatrixForm, Unfit, input_shape

# So many ranks of CP are tried at most for an energy or a budget: each one is a fit of its own. Fewer iterations tell which ranks are good; those chosen get all.
_CP_RANKS, _TRIED, _CHOSEN = 8, 25, 200


def spatial(layer, shape):
    """Returns the sizes of a shape beside batch and channels."""
    return tuple(shape[2:]) if layer.data_format == "channels_first" else tuple(shape[1:-1])


def _places(layer, shape):
    return math.prod(spatial(layer, shape))


def _conv(form, name, last, filters, sizes, strides=1, dilation=1, padding=None):
    """Returns a convolution like the layer of a form, with other sizes."""
    layer = form.layer
    return form._again(
        name,
        last,
        filters=filters,
        kernel_size=sizes,
        strides=strides,
        dilation_rate=dilation,
        padding=layer.padding if padding is None else padding,
    )


def _pointwise(form, name, last, filters):
    """Returns a convolution of size 1 without strides."""
    ones = (1,) * form.layer.rank
    return _conv(form, name, last, filters, ones, ones, ones, "valid")


class ConvForm(MatrixForm):
    """SVD over all taps: fewer filters of the same size, and a convolution of size 1. For one of size 1 that is its truncated SVD."""

    def matrix(self, kernel):
        return kernel.reshape(-1, kernel.shape[-1])

    def macs(self, rank, call):
        return _places(self.layer, call.outputs[0].shape) * sum(self.sizes(rank))

    def kernels(self, rank):
        first, second = self.factored().factors(rank)
        return [first.reshape(*self.kernel_shape[:-1], rank), second.reshape(*(1,) * self.layer.rank, rank, -1)]

    def product(self, kernels):
        return np.tensordot(kernels[0], kernels[1].reshape(kernels[1].shape[-2:]), (-1, 0))

    def parts(self, rank, names):
        layer = self.layer
        thin = _conv(self, names[0], False, rank, layer.kernel_size, layer.strides, layer.dilation_rate)
        return [thin, _pointwise(self, names[1], True, layer.filters)]


class SpatialForm(MatrixForm):
    """Spatial SVD of Conv2D: k x 1, then 1 x k (Jaderberg et al. 2014, https://arxiv.org/abs/1405.3866)."""

    method = SPATIAL_SVD

    def __init__(self, layer, calls, gram=None):
        super().__init__(layer, calls, gram)
        if layer.rank != 2 or 1 in layer.kernel_size:
            raise Unfit(f"its kernel has no two axes larger than 1: {SPATIAL_SVD!r} would be 'svd'")

    def matrix(self, kernel):
        return self._apart(kernel).reshape(kernel.shape[0] * kernel.shape[2], -1)

    def _apart(self, kernel):
        return kernel.transpose(0, 2, 1, 3)

    def linear(self):
        layer, (rows, columns, read, written) = self.layer, self.kernel_shape
        tall = _conv(self, layer.name, False, columns * written, (rows, 1), (layer.strides[0], 1), (layer.dilation_rate[0], 1))
        return tall, self._apart(self.kernel).reshape(rows, 1, read, columns * written)

    def macs(self, rank, call):
        first, second = self.sizes(rank)
        before, after = spatial(self.layer, input_shape(call)), spatial(self.layer, call.outputs[0].shape)
        return after[0] * before[1] * first + math.prod(after) * second

    def kernels(self, rank):
        rows, columns, read, written = self.kernel_shape
        first, second = self.factored().factors(rank)
        return [first.reshape(rows, 1, read, rank), second.reshape(1, rank, columns, written).transpose(0, 2, 1, 3)]

    def product(self, kernels):
        return np.einsum("hir,wro->hwio", kernels[0][:, 0], kernels[1][0])

    def parts(self, rank, names):
        layer = self.layer
        rows, columns = (layer.kernel_size, layer.strides, layer.dilation_rate), layer.kernel_size[1]
        tall = _conv(self, names[0], False, rank, (rows[0][0], 1), (rows[1][0], 1), (rows[2][0], 1))
        return [tall, _conv(self, names[1], True, layer.filters, (1, columns), (1, rows[1][1]), (1, rows[2][1]))]


class SeparableForm(ConvForm):
    """SVD of the pointwise kernel of a separable convolution: one with fewer filters, and a convolution of size 1."""

    @property
    def beside(self):
        return math.prod(self.layer.depthwise_kernel.shape)

    def begin(self, parts):
        parts[0].depthwise_kernel.assign(self.layer.depthwise_kernel)

    def macs(self, rank, call):
        return _places(self.layer, call.outputs[0].shape) * (self.beside + sum(self.sizes(rank)))

    def parts(self, rank, names):
        layer = self.layer
        pointwise = (keras.layers.Conv1D if layer.rank == 1 else keras.layers.Conv2D)(
            layer.filters,
            1,
            data_format=layer.data_format,
            activation=layer.activation,
            use_bias=layer.use_bias,
            kernel_regularizer=layer.pointwise_regularizer,
            bias_regularizer=layer.bias_regularizer,
            bias_constraint=layer.bias_constraint,
            activity_regularizer=layer.activity_regularizer,
            dtype=layer.dtype_policy,
            trainable=layer.trainable,
            name=names[1],
        )
        return [self._again(names[0], False, filters=rank), pointwise]


class TuckerForm(DecomposedForm):
    """Tucker-2: a convolution of size 1, one of the layer's own size between fewer channels, and one of size 1."""

    method = TUCKER

    def factored(self):
        """Returns the `TuckerFactors`."""
        return TuckerFactors(self.kernel)

    def ranks(self, divisor):
        read, written = self.kernel_shape[-2:]
        return [(a, b) for a in range(divisor, read, divisor) for b in range(divisor, written, divisor)]

    def rank_of(self, given):
        pair = given if isinstance(given, tuple) else (given, given)
        return tuple(min(n, most) for n, most in zip(pair, self.kernel_shape[-2:], strict=True))

    def sizes(self, rank):
        taps, (read, written) = math.prod(self.kernel_shape[:-2]), self.kernel_shape[-2:]
        return [read * rank[0], taps * rank[0] * rank[1], rank[1] * written]

    def macs(self, rank, call):
        first, *others = self.sizes(rank)
        return _places(self.layer, input_shape(call)) * first + _places(self.layer, call.outputs[0].shape) * sum(others)

    def kernels(self, rank):
        first, core, second = self.factored().factors(rank)
        ones = (1,) * self.layer.rank
        return [first.reshape(*ones, *first.shape), core, second.reshape(*ones, *second.shape)]

    def product(self, kernels):
        first, core, second = kernels
        return np.einsum(
            "...ab,ia,bo->...io", core, first.reshape(first.shape[-2:]), second.reshape(second.shape[-2:]), optimize=True
        ).reshape(self.kernel_shape)

    def parts(self, rank, names):
        layer = self.layer
        core = _conv(self, names[1], False, rank[1], layer.kernel_size, layer.strides, layer.dilation_rate)
        return [_pointwise(self, names[0], False, rank[0]), core, _pointwise(self, names[2], True, layer.filters)]


class CPForm(Form):
    """CP: a convolution of size 1, a depthwise one along each axis, and one of size 1. With strides, one depthwise convolution has all axes, which is cheaper."""

    method = CP

    def __init__(self, layer, calls):
        super().__init__(layer, calls)
        if math.prod(layer.kernel_size) == 1:
            raise Unfit(f"its kernel has size 1: {CP!r} would be 'svd'")
        if layer.padding == "causal":
            raise Unfit("depthwise layers have no causal padding")
        if len(set(layer.strides)) > 1 or len(set(layer.dilation_rate)) > 1:
            raise Unfit("depthwise layers have the same strides and dilation along all axes")
        apart = layer.rank == 2 and set(layer.strides) == {1} and 1 not in layer.kernel_size and set(layer.dilation_rate) == {1}
        rows, columns = (layer.kernel_size + (1,))[:2]
        self._depthwise = [(rows, 1), (1, columns)] if apart else [tuple(layer.kernel_size)]
        self._fits: dict = {}

    def ranks(self, divisor):
        most = math.prod(self.kernel_shape) // max(sum(self.sizes(1)), 1)
        found = list(range(divisor, most + 1, divisor))
        return found[:: math.ceil(len(found) / _CP_RANKS)] if found else []

    def rank_of(self, given):
        if isinstance(given, tuple):
            raise Unfit(f"a pair of ranks is for {TUCKER!r}")
        return given

    def sizes(self, rank):
        read, written = self.kernel_shape[-2:]
        return [read * rank, *(math.prod(size) * rank for size in self._depthwise), rank * written]

    def macs(self, rank, call):
        before, after = spatial(self.layer, input_shape(call)), spatial(self.layer, call.outputs[0].shape)
        rows = [after[0] * before[1]] if len(self._depthwise) > 1 else []
        places = [math.prod(before), *rows, math.prod(after), math.prod(after)]
        return sum(n * size for n, size in zip(places, self.sizes(rank), strict=True))

    def lost(self, rank):
        return self.lost_by(rank, self._fit(rank, _TRIED))

    def kernels(self, rank):
        try:
            return self._fit(rank, _CHOSEN)
        except DegenerateFit:
            # What a rank was chosen by did not diverge yet.
            tried = self._fits.get((rank, _TRIED))
            if tried is None or isinstance(tried, DegenerateFit):
                raise
            return tried

    def _fit(self, rank, iterations):
        """Returns the kernels of the parts, computed once, or raises the `DegenerateFit`."""
        key = (rank, iterations)
        if key not in self._fits:
            try:
                self._fits[key] = self._kernels(*cp_factors(self.kernel, rank, iterations=iterations))
            except DegenerateFit as error:
                self._fits[key] = error
        if isinstance(self._fits[key], DegenerateFit):
            raise self._fits[key]
        return self._fits[key]

    def _kernels(self, *factors):
        *taps, read, written = factors
        rank, ones = read.shape[-1], (1,) * self.layer.rank
        if len(self._depthwise) > 1:
            middle = [taps[0].reshape(-1, 1, rank, 1), taps[1].reshape(1, -1, rank, 1)]
        else:
            middle = [functools.reduce(lambda a, b: a[..., None, :] * b, taps)[..., None].astype("float32")]
        return [read.reshape(*ones, -1, rank), *middle, written.T.reshape(*ones, rank, -1)]

    def product(self, kernels):
        first, *middle, last = kernels
        taps = functools.reduce(lambda a, b: a * b, [x[..., 0] for x in middle])
        return cp_product([taps.reshape(-1, taps.shape[-1]), first.reshape(first.shape[-2:]), last.reshape(last.shape[-2:]).T]).reshape(
            self.kernel_shape
        )

    def parts(self, rank, names):
        layer = self.layer
        kind = keras.layers.DepthwiseConv2D if layer.rank == 2 else keras.layers.DepthwiseConv1D
        middle = [
            kind(
                size if layer.rank == 2 else size[0],
                strides=layer.strides if layer.rank == 2 else layer.strides[0],
                padding=layer.padding,
                dilation_rate=layer.dilation_rate if layer.rank == 2 else layer.dilation_rate[0],
                data_format=layer.data_format,
                use_bias=False,
                depthwise_regularizer=layer.kernel_regularizer,
                dtype=layer.dtype_policy,
                trainable=layer.trainable,
                name=name,
            )
            for size, name in zip(self._depthwise, names[1:-1], strict=True)
        ]
        return [_pointwise(self, names[0], False, rank), *middle, _pointwise(self, names[-1], True, layer.filters)]
