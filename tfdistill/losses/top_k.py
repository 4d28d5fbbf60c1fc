"""A teacher's k largest logits, and the sum over all other classes."""

import collections

from keras import ops

TopK = collections.namedtuple("TopK", ["values", "indices", "rest", "temperatures"])
TopK.__doc__ = """The k largest logits of a teacher, and the weight of the rest.

Attributes:
    values: `(batch, ..., k)`, the k largest logits, largest first.
    indices: `(batch, ..., k)`, the classes that they belong to; integers.
    rest: `(batch, ..., temperatures)`: log(sum(exp(logit / T))) over all other classes, for each of the temperatures T.
    temperatures: Tuple of these temperatures, numbers above 0.
"""


def merged_logits(teacher, student_logits, temperature):
    """Returns the logits of both sides over k + 1 classes: the teacher's k most probable ones, and all others as one.

    The softmax of the result is, to rounding, the softened distribution over all classes in which the probabilities of the other classes
    are added up. How the teacher distributes probability among these is not known, so it is not taught. A divergence of the merged
    distributions is at most that of the whole ones.

    Args:
        teacher: `TopK`.
        student_logits: `(batch, ..., classes)`.
        temperature: One of `teacher.temperatures`.

    Returns:
        Two tensors `(batch, ..., k + 1)`: logits that are divided by the temperature already, the others' last.
    """
    softness = 1.0 / temperature
    rest = teacher.rest[..., teacher.temperatures.index(temperature)]
    teacher_merged = ops.cast(ops.concatenate([teacher.values * softness, ops.expand_dims(rest, -1)], axis=-1), student_logits.dtype)
    softened = ops.multiply(student_logits, softness)
    indices = ops.cast(teacher.indices, "int32")
    kept = ops.take_along_axis(softened, indices, axis=-1)
    # The student's sum is over the other classes only: at -1e30 the kept ones add nothing to it.
    inside = _marked(indices, softened)
    others = ops.logsumexp(ops.where(inside, -1e30, softened), axis=-1, keepdims=True)
    return teacher_merged, ops.concatenate([kept, others], axis=-1)


def _marked(indices, logits):
    """Returns booleans in the shape of `logits`: True at `indices` of the last axis."""
    k, classes = indices.shape[-1], logits.shape[-1]
    flat = ops.reshape(indices, (-1, k))
    rows = ops.repeat(ops.expand_dims(ops.arange(ops.shape(flat)[0], dtype="int32"), -1), k, axis=-1)
    places = ops.reshape(ops.stack([rows, flat], axis=-1), (-1, 2))
    marks = ops.scatter(places, ops.ones_like(places[:, 0]), (ops.shape(flat)[0], classes))
    return ops.reshape(marks, ops.shape(logits)) > 0
