"""Padding masks: positions of a sequence that count for nothing.

Keras attaches a mask to the output of a layer (`Embedding(mask_zero=True)`, `Masking`) and to what follows from it, and gives the positions that count the
weight (positions / positions that count), the others 0. The mean over all positions is then the mean over those that count.
"""

import keras
from keras import ops

from tfdistill.errors import ModelError


def mask_of(x):
    """The mask that Keras attached to a tensor, or to the only tensor of a structure: boolean `(batch, positions...)`, or None."""
    if isinstance(x, (list, tuple, dict)) and not hasattr(x, "_fields"):
        leaves = keras.tree.flatten(x)
        x = leaves[0] if len(leaves) == 1 else None
    return getattr(x, "_keras_mask", None)


def with_mask(x, mask):
    """Attaches a mask to a tensor, as Keras does, and returns the tensor."""
    if mask is not None:
        x._keras_mask = mask
    return x


def both(*masks):
    """Where all masks are true; those that are None do not count. None if all are."""
    given = [ops.cast(mask, "bool") for mask in masks if mask is not None]
    if not given:
        return None
    together = given[0]
    for mask in given[1:]:
        together = ops.logical_and(together, mask)
    return together


def weights(mask, sample_weight, dtype):
    """Sample weights that leave masked positions out, with Keras's convention.

    Args:
        mask: Boolean `(batch, positions...)`, or `(batch,)`.
        sample_weight: None, `(batch,)`, `(batch, 1)`, or of more dimensions up to those of the losses.
        dtype: Type of the weights.

    Returns:
        `(batch, positions...)`, or more dimensions where `sample_weight` has them: zeros where nothing counts at all.
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
    """`x` of shape `(batch, positions..., ...)` with zeros at the positions that do not count."""
    return x if mask is None else ops.where(_same_rank(ops.cast(mask, "bool"), x)[0], x, ops.zeros_like(x))


def left_out(loss, teacher, student, masks):
    """Zeros at the padded positions of two features whose positions have no losses of their own.

    Args:
        loss: The loss, for errors.
        teacher: `(batch, ...)`.
        student: `(batch, ...)`; where it has the teacher's positions, a position counts if both sides say so, else each side's mask is its own.
        masks: The masks of the two, `(batch, positions...)` or None each.

    Returns:
        The two features, and a boolean `(batch,)`: whether a sample has any position that counts, on each side that has a mask.
    """
    check(loss, teacher, student, masks, least_free=0)
    rank = max(len(mask.shape) for mask in masks if mask is not None)
    if tuple(teacher.shape[1:rank]) == tuple(student.shape[1:rank]) and None not in teacher.shape[1:rank]:
        masks = (both(*masks),) * 2
    present = [ops.any(mask, axis=tuple(range(1, len(mask.shape)))) if len(mask.shape) > 1 else mask for mask in masks if mask is not None]
    return [zeroed(x, mask) for x, mask in zip((teacher, student), masks, strict=True)], both(*present)


def position_weights(loss, teacher, student, masks, sample_weight):
    """Sample weights that leave out the positions that either side masks, for a loss with a value at each position.

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
    mask = both(*masks)
    return sample_weight if mask is None else weights(mask, sample_weight, "float32")


def check(loss, teacher, student, masks, least_free):
    """Raises a `ModelError` unless the masks belong to the first axes of the two, with at least `least_free` axes behind them."""
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
