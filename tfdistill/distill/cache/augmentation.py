"""Augmentation of elements by a stateless function, the same when the teacher runs and when the student trains."""

import keras
import numpy as np
import tensorflow as tf

from tfdistill.errors import DataError


def element_seeds(elements, view):
    """The seeds of elements in a view: int32 of shape (n, 2), the element's number and the view's."""
    numbers = tf.cast(elements % (1 << 31), tf.int32)
    return tf.stack([numbers, tf.broadcast_to(tf.cast(view, tf.int32), tf.shape(numbers))], axis=-1)


def on_batches(augment):
    """Makes `f(inputs, seeds)` of whole batches out of a function `augment(x, seed)` of one element."""

    def augment_batch(inputs, seeds):
        inputs = tf.nest.map_structure(tf.convert_to_tensor, inputs)
        types = tf.nest.map_structure(lambda t: t.dtype, inputs)
        return tf.map_fn(lambda pair: augment(*pair), (inputs, seeds), fn_output_signature=types)

    return augment_batch


def check_repeatable(augment_batch, inputs):
    """Raises `DataError` if augmenting the same batch twice gives different results.

    Args:
        augment_batch: Function of a structure of arrays `(rows, ...)`.
        inputs: Such a structure.
    """
    first, second = (keras.tree.flatten(augment_batch(inputs)) for _ in range(2))
    # NaN is said later, by its place.
    if not all(np.array_equal(a, b, equal_nan=np.asarray(a).dtype.kind == "f") for a, b in zip(first, second, strict=True)):
        raise DataError(
            "The function augment gives another result for the same element and seed.",
            "a stateless function: equal arguments, equal results",
            "use tf.image.stateless_random_* or tf.random.stateless_* with the seed that it is given",
        )
