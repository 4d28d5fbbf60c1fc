"""Masks that travel with tensors."""

import keras

# Not every Keras 3 has it.
_REVERSIBLE_EMBEDDING = getattr(keras.layers, "ReversibleEmbedding", ())


def mask_of(tensor):
    """Returns the mask that travels with a tensor, None where there is none."""
    return getattr(tensor, "_keras_mask", None)


def with_mask(tensor, mask):
    """Puts a mask on a tensor of data, None for none, and returns the tensor."""
    if mask is not None:
        tensor._keras_mask = mask
    return tensor


def masks_data_alone(layer):
    """Whether a layer puts a mask on its output when it runs on data, which the graph of symbolic tensors does not show."""
    return isinstance(layer, _REVERSIBLE_EMBEDDING) and layer.mask_zero


def masked_ids(layer, args, kwargs, outputs):
    """Returns the ids of which a layer masks the zeros on data but not on symbolic tensors; None where it masks nothing, or the mask is there.

    Args:
        layer: Built Keras 3 layer.
        args: Arguments of the call.
        kwargs: Keyword arguments of the call.
        outputs: What it returned.
    """
    if not masks_data_alone(layer) or kwargs.get("reverse", False) or True in args[1:] or mask_of(outputs) is not None:
        return None
    return args[0] if args else kwargs["inputs"]
