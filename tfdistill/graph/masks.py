"""Masks that travel with symbolic tensors."""

import keras

from tfdistill.graph.carriers import WithMask

# Not every Keras 3 has it.
_REVERSIBLE_EMBEDDING = getattr(keras.layers, "ReversibleEmbedding", ())


def mask_of(tensor):
    """Returns the mask that travels with a tensor, None where there is none."""
    return getattr(tensor, "_keras_mask", None)


def masks_data_alone(layer):
    """Whether a layer puts a mask on its output when it runs on data, which the graph of symbolic tensors does not show."""
    return isinstance(layer, _REVERSIBLE_EMBEDDING) and layer.mask_zero


def with_its_mask(layer, args, kwargs, outputs):
    """Returns what a layer gave on symbolic tensors, with the mask that it would put on it on data; `outputs` itself where it would put on none.

    Args:
        layer: Built Keras 3 layer.
        args: Arguments of the call.
        kwargs: Keyword arguments of the call.
        outputs: What it returned.
    """
    if not masks_data_alone(layer) or kwargs.get("reverse", False) or True in args[1:] or mask_of(outputs) is not None:
        return outputs
    return WithMask()([outputs, keras.ops.not_equal(args[0] if args else kwargs["inputs"], 0)])
