"""Padding masks: positions of a sequence that are left out of a loss.

Keras attaches a mask to the output of a layer (`Embedding(mask_zero=True)`, `Masking`) and to the outputs of the layers after it. In its
losses an unmasked position has the weight (number of positions / number of unmasked positions), a masked one the weight 0. The mean over
all positions is then the mean over the unmasked ones.
"""

import keras
from keras import ops

from tfdistill.errors import ModelError


def mask_of(x):
    """Returns the mask that Keras attached to a tensor, or to the only tensor of a structure: boolean `(batch, positions...)`, or None.

    The mask of a `TopK` is that of its values.
    """
    if isinstance(x, (list, tuple, dict)) and not hasattr(x, "_fields"):
        leaves = keras.tree.flatten(x)
        x = leaves[0] if len(leaves) == 1 else None
    return getattr(x.values if hasattr(x, "_fields") else x, "_keras_mask", None)


def with_mask(x, mask):
    """Attaches a mask to a tensor, as Keras does, and returns the tensor."""
    if mask is not None:
        x._keras_mask = mask
    return x


def intersection(*masks):
    """Returns a mask that is true where all the masks are; None stands for a mask that is true everywhere."""
    given = [ops.cast(mask, "bool") for mask in masks if mask is not None]
    if not given:
        return None
    result = given[0]
    for mask in given[1:]:
        result = ops.logical_and(result, mask)
    return result


def weights(mask, sample_weight, dtype):
    """Computes sample weights that leave masked positions out, with Keras's convention.

    Args:
        mask: Boolean `(batch, positions...)`, or `(batch,)`.
        sample_weight: None, `(batch,)`, `(batch, 1)`, or of more dimensions up to those of the losses.
        dtype: Type of the weights.

    Returns:
        `(batch, positions...)`, or more dimensions where `sample_weight` has them; zeros if all positions are masked.
    """
    kept = ops.cast(mask, dtype)
    total = ops.cast(ops.prod(ops.convert_to_tensor(ops.shape(mask), dtype="int32")), dtype)
    kept = kept * ops.divide_no_nan(total, ops.sum(kept))
    if sample_weight is None:
        return kept
    weight = ops.cast(sample_weight, dtype)
    if len(weight.shape) == 2 and weight.shape[-1] == 1 and (len(kept.shape) != 2 or kept.shape[-1] != 1):
        weight = ops.squeeze(weight, -1)
    kept, weight = _same_rank(kept, weight)
    return kept * weight


def zeroed(x, mask):
    """Returns `x`, of shape `(batch, positions..., ...)`, with zeros at masked positions."""
    return x if mask is None else ops.where(_same_rank(ops.cast(mask, "bool"), x)[0], x, ops.zeros_like(x))


def without_padding(loss, teacher, student, masks):
    """Sets the padded positions of two features to zero, for a loss that has no value at each position.

    Args:
        loss: The loss, for errors.
        teacher: `(batch, ...)`.
        student: `(batch, ...)`. If it has the teacher's positions, those that either mask leaves out are zero on both sides; else each mask
            is for its own side.
        masks: The masks of the two, `(batch, positions...)` or None each.

    Returns:
        The two features, and a boolean `(batch,)`: whether a sample has an unmasked position on each side that has a mask.
    """
    check(loss, teacher, student, masks, least_free=0)
    rank = max(len(mask.shape) for mask in masks if mask is not None)
    if tuple(teacher.shape[1:rank]) == tuple(student.shape[1:rank]) and None not in teacher.shape[1:rank]:
        masks = (intersection(*masks),) * 2
    present = [ops.any(mask, axis=tuple(range(1, len(mask.shape)))) if len(mask.shape) > 1 else mask for mask in masks if mask is not None]
    return [zeroed(x, mask) for x, mask in zip((teacher, student), masks, strict=True)], intersection(*present)


def position_weights(loss, teacher, student, masks, sample_weight):
    """Computes sample weights that leave out the positions that either side masks, for a loss with a value at each position.

    Args:
        loss: The loss, for errors.
        teacher: `(batch, positions..., ...)`.
        student: Of the same positions.
        masks: The masks of the two, `(batch, positions...)` or None each.
        sample_weight: See `weights`.

    Returns:
        See `weights`; `sample_weight` itself where there is no mask.
    """
    check(loss, teacher, student, masks, least_free=1)
    mask = intersection(*masks)
    return sample_weight if mask is None else weights(mask, sample_weight, "float32")


def check(loss, teacher, student, masks, least_free):
    """Raises a `ModelError` unless each mask has the first axes of its tensor, with at least `least_free` axes behind them."""
    for side, x, mask in zip(("teacher", "student"), (teacher, student), masks, strict=True):
        if mask is None:
            continue
        shape, masked = tuple(x.shape), tuple(mask.shape)
        fits = len(masked) <= len(shape) - least_free and all(m is None or n is None or m == n for m, n in zip(masked, shape, strict=False))
        if not fits:
            raise ModelError(
                f"{type(loss).__name__}: what is compared of the {side} has the shape {shape}, and its padding mask {masked}.",
                f"a mask of the first axes, (batch, positions...){', and values behind them' if least_free else ''}",
                "let the layer keep an axis behind the positions: (batch, positions, 1) instead of (batch, positions)",
            )


def _same_rank(a, b):
    rank = max(len(a.shape), len(b.shape))
    return _expanded(a, rank), _expanded(b, rank)


def _expanded(x, rank):
    while len(x.shape) < rank:
        x = ops.expand_dims(x, -1)
    return x
