"""Which axes of a weight are a layer's inputs and outputs."""

import collections

import keras

# Which axes of a weight read channels and which write them. A diagonal weight has one number per channel that passes through it.
Axes = collections.namedtuple("Axes", ["reads", "writes", "diagonal"], defaults=[None, None, None])


_CONVOLUTIONS = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)


_TRANSPOSED = (keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose, keras.layers.Conv3DTranspose)


_DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)


_SEPARABLE = (keras.layers.SeparableConv1D, keras.layers.SeparableConv2D)


_PER_CHANNEL = {
    "gamma": Axes(diagonal=0),
    "scale": Axes(diagonal=0),
    "moving_variance": Axes(diagonal=0),
    "beta": Axes(reads=0),
    "moving_mean": Axes(reads=0),
}


def axes_of(layer):
    """Returns a dict of weight name to the meaning of its `Axes`; None for layers that cannot be narrowed."""
    if isinstance(layer, keras.layers.Dense):
        return {"kernel": Axes(reads=0, writes=1), "bias": Axes(writes=0)}
    if isinstance(layer, _CONVOLUTIONS):
        return {"kernel": Axes(reads=-2, writes=-1), "bias": Axes(writes=0)} if layer.groups == 1 else None
    if isinstance(layer, _TRANSPOSED):
        return {"kernel": Axes(reads=-1, writes=-2), "bias": Axes(writes=0)}
    if isinstance(layer, _DEPTHWISE):
        return {"kernel": Axes(diagonal=-2), "bias": Axes(reads=0)} if layer.depth_multiplier == 1 else None
    if isinstance(layer, _SEPARABLE):
        pointwise = {"pointwise_kernel": Axes(reads=-2, writes=-1), "bias": Axes(writes=0)}
        return {"depthwise_kernel": Axes(diagonal=-2), **pointwise} if layer.depth_multiplier == 1 else None
    if isinstance(layer, keras.layers.Embedding):
        return {"embeddings": Axes(writes=1)}
    if isinstance(layer, keras.layers.EinsumDense):
        return _einsum_axes(layer)
    if isinstance(layer, (keras.layers.BatchNormalization, keras.layers.LayerNormalization, keras.layers.RMSNormalization)):
        return _PER_CHANNEL
    return None


def _einsum_axes(layer):
    """Only an axis that stands alone is a channel axis: heads and their sizes go together, and a softmax between them allows no change of basis."""
    inputs, rest = layer.equation.replace(" ", "").split(",")
    kernel, outputs = rest.split("->")
    reads = [i for i, c in enumerate(kernel) if c in inputs and c not in outputs]
    writes = [i for i, c in enumerate(kernel) if c in outputs and c not in inputs]
    if len(kernel) != len(reads) + len(writes):
        return None
    axes = Axes(reads=reads[0] if len(reads) == 1 else None, writes=writes[0] if len(writes) == 1 else None)
    return {"kernel": axes, "bias": Axes(writes=-1 if axes.writes is not None else None)}
