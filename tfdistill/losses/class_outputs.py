"""The base class of the losses that compare outputs over classes."""

import numpy as np
from keras import ops

from tfdistill.losses import spaces
from tfdistill.losses.base import KnowledgeLoss
from tfdistill.losses.space_checks import OutputSpaces, check_class_spaces
from tfdistill.losses.spaces import Space
from tfdistill.utils.types import Activations, Shape, Tensor


class ClassOutputs(OutputSpaces, KnowledgeLoss):
    """Base of the losses that compare outputs over classes, which are logits, log-probabilities or probabilities on each side.

    Args:
        teacher_outputs: "logits", "log_probabilities" or "probabilities"; None for what `from_logits` says.
        student_outputs: The same for the student. Logits are best: they lose no digits.
        teacher_layer_name: The teacher's layer; None stands for its final output.
        student_layer_name: The student's layer; None stands for its final output.
        from_logits: False where both sides are probabilities, as in Keras's losses. None stands for True.

    Raises:
        ConfigurationError: if a choice is unknown.
    """

    def __init__(
        self,
        teacher_outputs: Space | None = None,
        student_outputs: Space | None = None,
        teacher_layer_name: str | None = None,
        student_layer_name: str | None = None,
        from_logits: bool | None = None,
    ):
        super().__init__(teacher_layer_name, student_layer_name)
        self._set_spaces(teacher_outputs, student_outputs, from_logits, spaces.SPACES)

    def check_shapes(self, teacher_shape: Shape, student_shape: Shape) -> None:
        super().check_shapes(teacher_shape, student_shape)
        if len(student_shape) < 2:
            raise self.mismatch(teacher_shape, student_shape, "(batch, classes) or (batch, ..., classes)")
        if 1 in (teacher_shape[-1], student_shape[-1]):
            raise self.mismatch(
                teacher_shape,
                student_shape,
                "at least two classes: a softmax over one is always 1",
                "use tfdistill.losses.BinarySoftTargets() for one yes-no output, or tfdistill.losses.OutputMatching() for regression",
            )

    def check_first_batch(self, teacher: np.ndarray, student: np.ndarray, activations: Activations = (None, None)) -> None:
        super().check_first_batch(teacher, student, activations)
        check_class_spaces(self, teacher, student, activations)

    def _prepared(self, teacher, student):
        ready = super()._prepared(teacher, student)
        return spaces.with_float16(ready, student) if self.student_outputs == "probabilities" else ready

    def as_logits(self, teacher: Tensor, student: Tensor) -> tuple[Tensor, Tensor]:
        """Returns both sides as logits."""
        student = spaces.as_logits(student, self.student_outputs)
        return ops.cast(spaces.as_logits(teacher, self.teacher_outputs), student.dtype), student
