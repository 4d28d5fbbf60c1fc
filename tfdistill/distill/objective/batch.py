"""A batch with its precomputed teacher outputs."""

import collections

from tfdistill.distill.objective.taps import Taps

BatchWithTargets = collections.namedtuple("BatchWithTargets", ["inputs", "teacher_outputs"])
BatchWithTargets.__doc__ = """The inputs of a batch, and the teacher's stored outputs for them.

Attributes:
    inputs: Inputs of the student.
    teacher_outputs: Tuple of tensors `(batch, ...)`, in the order of the cache's layout.
"""


def inputs_of(x):
    """Returns the inputs of a batch, with or without stored teacher outputs."""
    return x.inputs if isinstance(x, BatchWithTargets) else x


class StudentTaps(Taps):
    """Taps of a student, which of a batch with stored teacher outputs is given the inputs alone."""

    def __call__(self, inputs, training=False):
        return super().__call__(inputs_of(inputs), training=training)
