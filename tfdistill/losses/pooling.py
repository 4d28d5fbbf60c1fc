"""Feature maps of different sizes, averaged to a common one."""

import keras
import numpy as np
from keras import ops


def _windows(size, count):
    """Returns a `(size, count)` matrix whose columns average `count` windows that cover `size` positions (adaptive average pooling)."""
    matrix = np.zeros((size, count))
    for i in range(count):
        first, last = i * size // count, -(-(i + 1) * size // count)
        matrix[first:last, i] = 1.0 / (last - first)
    return matrix


def pool_to(x, sizes):
    """Averages the positions of a feature map to given sizes.

    Args:
        x: `(batch, positions..., channels)`, with known position sizes.
        sizes: The target sizes, one for each position dimension, each at most that of `x`. Where it does not divide that of `x`, windows
            overlap so that every position is in one.

    Returns:
        `(batch, *sizes, channels)`.
    """
    present = tuple(x.shape[1:-1])
    if present == tuple(sizes):
        return x
    if all(p % s == 0 for p, s in zip(present, sizes, strict=True)):
        window = tuple(p // s for p, s in zip(present, sizes, strict=True))
        return ops.average_pool(x, window, strides=window, padding="valid", data_format="channels_last")
    for axis, (size, target) in enumerate(zip(present, sizes, strict=True), start=1):
        if size != target:
            matrix = ops.convert_to_tensor(_windows(size, target), dtype=x.dtype)
            x = ops.moveaxis(ops.matmul(ops.moveaxis(x, axis, -1), matrix), -1, axis)
    return x


def to_common_size(teacher, student):
    """Pools both sides to the smaller of the two sizes, dimension by dimension.

    Args:
        teacher: `(batch, positions..., channels)`.
        student: `(batch, positions..., channels)`, with as many dimensions. Sizes that differ must be known.

    Returns:
        `(teacher, student)`.
    """
    pairs = list(zip(teacher.shape[1:-1], student.shape[1:-1], strict=True))
    if all(t == s or t is None or s is None for t, s in pairs):
        return teacher, student
    sizes = tuple(min(pair) for pair in pairs)
    return pool_to(teacher, sizes), pool_to(student, sizes)


def masked_to_common_size(teacher, student, masks):
    """Pools both sides to the smaller of the two sizes, over the unmasked positions.

    Args:
        teacher: `(batch, positions..., channels)`.
        student: `(batch, positions..., channels)`, as many dimensions.
        masks: Booleans `(batch, positions...)` for either side, or None.

    Returns:
        `(teacher, student, masks)`. A window is unmasked if any of its positions is. If the sizes are equal, nothing changes.
    """
    sizes = [x.shape[1:-1] for x in (teacher, student)]
    if tuple(sizes[0]) == tuple(sizes[1]) or None in (*sizes[0], *sizes[1]):
        return teacher, student, masks
    common, pooled, kept = tuple(min(pair) for pair in zip(*sizes, strict=True)), [], []
    for x, mask in zip((teacher, student), masks, strict=True):
        if mask is None:
            pooled.append(pool_to(x, common))
            kept.append(None)
            continue
        weight = ops.cast(ops.expand_dims(mask, -1), x.dtype)
        unmasked = pool_to(weight, common)
        pooled.append(pool_to(ops.where(weight > 0, x, ops.zeros_like(x)), common) / ops.where(unmasked > 0, unmasked, 1.0))
        kept.append(ops.squeeze(unmasked, -1) > 0)
    return *pooled, tuple(kept)


def sizes_can_meet(teacher_shape, student_shape):
    """Whether `to_common_size` can pool two shapes `(batch, positions..., channels)` to one size."""
    if len(teacher_shape) != len(student_shape):
        return False
    pairs = list(zip(teacher_shape[1:-1], student_shape[1:-1], strict=True))
    # An unknown size is taken as equal only if no dimension needs pooling.
    known = all(t is not None and s is not None for t, s in pairs)
    return known or all(t == s or t is None or s is None for t, s in pairs)


def pointwise(rank, width, name, use_bias=True):
    """Makes an unbuilt convolution of kernel 1, which maps the channels of every position to `width`.

    Args:
        rank: Number of dimensions of the feature with its batch: 3, 4 or 5.
        width: Number of output channels.
        name: Name of the layer.
        use_bias: Whether it has a bias.
    """
    kind = {3: keras.layers.Conv1D, 4: keras.layers.Conv2D, 5: keras.layers.Conv3D}[rank]
    return kind(width, 1, use_bias=use_bias, name=name, dtype="float32", data_format="channels_last")
