"""The base class of the losses that compare outputs over classes."""

import numpy as np
from keras import ops

from tfdistill.losses import spaces
from tfdistill.losses.base import KnowledgeLoss
from tfdistill.losses.spaces import Space
from tfdistill.utils import validate
from tfdistill.utils.types import Shape, Tensor


class ClassOutputs(KnowledgeLoss):
    """Base of the losses that compare outputs over classes, which are logits, log-probabilities or probabilities on each side.

    Args:
        teacher_outputs: "logits", "log_probabilities" or "probabilities".
        student_outputs: The same for the student. Logits are best: they lose no digits.
        teacher_layer_name: The teacher's layer; None stands for its final output.
        student_layer_name: The student's layer; None stands for its final output.

    Raises:
        ConfigurationError: if a choice is unknown.
    """

    def __init__(
        self,
        teacher_outputs: Space = "logits",
        student_outputs: Space = "logits",
        teacher_layer_name: str | None = None,
        student_layer_name: str | None = None,
    ):
        super().__init__(teacher_layer_name, student_layer_name)
        owner = type(self).__name__
        self.teacher_outputs = validate.one_of("teacher_outputs", teacher_outputs, spaces.SPACES, owner=owner)
        self.student_outputs = validate.one_of("student_outputs", student_outputs, spaces.SPACES, owner=owner)

    def check_shapes(self, teacher_shape: Shape, student_shape: Shape) -> None:
        super().check_shapes(teacher_shape, student_shape)
        if len(student_shape) < 2:
            raise self.mismatch(teacher_shape, student_shape, "(batch, classes) or (batch, ..., classes)")
        if 1 in (teacher_shape[-1], student_shape[-1]):
            raise self.mismatch(
                teacher_shape,
                student_shape,
                "at least two classes: a softmax over one is always 1",
                "use BinarySoftTargets for one yes-no output, or OutputMatching for regression",
            )

    def check_first_batch(self, teacher: np.ndarray, student: np.ndarray) -> None:
        super().check_first_batch(teacher, student)
        spaces.check_class_space(type(self).__name__, "teacher", teacher, self.teacher_outputs)
        spaces.check_class_space(type(self).__name__, "student", student, self.student_outputs)

    def _prepared(self, teacher, student):
        ready = super()._prepared(teacher, student)
        return spaces.with_float16(ready, student) if self.student_outputs == "probabilities" else ready

    def as_logits(self, teacher: Tensor, student: Tensor) -> tuple[Tensor, Tensor]:
        """Returns both sides as logits."""
        student = spaces.as_logits(student, self.student_outputs)
        return ops.cast(spaces.as_logits(teacher, self.teacher_outputs), student.dtype), student
