"""A batch together with what the teacher said about it."""

import collections

from tfdistill.distill.objective.taps import Taps

BatchWithTargets = collections.namedtuple("BatchWithTargets", ["inputs", "told"])
BatchWithTargets.__doc__ = """The inputs of a batch, and the teacher's kept answers.

Attributes:
    inputs: What the student is given.
    told: Tuple of tensors `(batch, ...)`, in the order of the cache's layout.
"""


def inputs_of(x):
    """The inputs of a batch, whether answers come with them or not."""
    return x.inputs if isinstance(x, BatchWithTargets) else x


class StudentTaps(Taps):
    """The student's side of a step: of a batch that brings the teacher's answers along, it is given the inputs alone."""

    def __call__(self, inputs, training=False):
        return super().__call__(inputs_of(inputs), training=training)
