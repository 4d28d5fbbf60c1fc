"""The spaces that a loss is set to: how they are given, and whether the outputs of the first batch are in them.

The last activation decides where it is known. A linear layer gives logits, also where those of one batch happen to look like probabilities.
Values decide elsewhere.
"""

import numpy as np

from tfdistill.errors import ConfigurationError
from tfdistill.losses import spaces
from tfdistill.losses.configured import Configured
from tfdistill.utils import validate

SIDES = ("teacher", "student")
_CLASS_SPACE_OF = {"linear": "logits", "softmax": "probabilities", "log_softmax": "log_probabilities"}
_BINARY_SPACE_OF = {"linear": "logits", "sigmoid": "probabilities"}


class OutputSpaces(Configured):
    """Mixin of the losses that take logits or probabilities: `from_logits` is short for the spaces of both sides, and is not saved."""

    shorthands = ("from_logits",)
    teacher_outputs: str
    student_outputs: str

    @property
    def from_logits(self) -> bool | None:
        """False if the outputs of both sides are probabilities, True if those of neither are, None if they differ."""
        sides = {space == "probabilities" for space in (self.teacher_outputs, self.student_outputs)}
        return not sides.pop() if len(sides) == 1 else None

    def _set_spaces(self, teacher_outputs, student_outputs, from_logits, choices):
        """Sets `teacher_outputs` and `student_outputs`; a side that is None is what `from_logits` says, logits by default."""
        owner = type(self).__name__
        if from_logits is not None:
            validate.boolean("from_logits", from_logits, owner=owner)
        for side, space in zip(SIDES, (teacher_outputs, student_outputs), strict=True):
            if from_logits is not None and space in choices and (space != "probabilities") != from_logits:
                raise ConfigurationError(
                    f"{owner}: from_logits={from_logits} and {side}_outputs={space!r} contradict each other.",
                    "from_logits for both sides, or teacher_outputs and student_outputs for each",
                    f"leave out from_logits={from_logits}, or {side}_outputs={space!r}",
                )
            default = "probabilities" if from_logits is False else "logits"
            setattr(self, f"{side}_outputs", validate.one_of(f"{side}_outputs", default if space is None else space, choices, owner=owner))

    def line_for(self, **found):
        """Returns this loss as a line of Python, with the spaces of `found`, a dict of side to space, in place of its own."""
        sides = {side: found.get(side, getattr(self, f"{side}_outputs")) for side in SIDES}
        if set(sides.values()) == {"probabilities"}:
            given = {"from_logits": False}
        else:
            given = {f"{side}_outputs": space for side, space in sides.items() if space != "logits"}
        return self.as_code(**{"teacher_outputs": None, "student_outputs": None, **given})


def check_class_spaces(loss, teacher, student, activations):
    """Checks that the outputs of a batch are in the spaces that a loss is set to.

    Args:
        loss: `OutputSpaces`.
        teacher: `(..., classes)`, NumPy array.
        student: The same of the student.
        activations: Names of the last activation of both; None where it is unknown.

    Raises:
        ConfigurationError: naming every side that is not, with the line to write.
    """
    wrong = {}
    for side, values, activation in zip(SIDES, (teacher, student), activations, strict=True):
        found = _class_space(np.asarray(values, "float64"), getattr(loss, f"{side}_outputs"), activation)
        if found is not None:
            wrong[side] = (found, _class_signs(values, getattr(loss, f"{side}_outputs"), activation, found))
    _refuse_wrong(loss, wrong, "softmax")


def check_logits(owner, side, values, activation):
    """Raises a `ConfigurationError` unless values over classes can be logits, for a loss that takes nothing else."""
    found = _class_space(np.asarray(values, "float64"), "logits", activation)
    if found is not None:
        raise ConfigurationError(
            f"{owner}: the {side}'s outputs must be logits, but {_class_signs(values, 'logits', activation, found)}.",
            "logits: probabilities do not determine the shift of theirs",
            f"remove the {activation or 'softmax'} at the end of the {side}, or use {_suited(found)}",
        )


def check_binary_spaces(loss, teacher, student, activations):
    """Checks that outputs of independent yes-no decisions are in the spaces that a loss is set to; arguments as in `check_class_spaces`.

    Raises:
        ConfigurationError: if probabilities are below 0 or above 1, logits are the result of a sigmoid, or at least 16 logits of an unknown
            activation, not all equal, lie between 0 and 1.
    """
    wrong = {}
    for side, values, activation in zip(SIDES, (teacher, student), activations, strict=True):
        values, given = np.asarray(values, "float64"), getattr(loss, f"{side}_outputs")
        found = _BINARY_SPACE_OF.get(activation)
        if given == "probabilities" and not np.all((values >= 0) & (values <= 1)):
            wrong[side] = ("logits", f"they range from {values.min():.4g} to {values.max():.4g}")
        elif given == "logits" and found == "probabilities":
            wrong[side] = (found, f"the last activation of the {side} is {activation}")
        elif given == "logits" and found is None and spaces.looks_binary(values):
            wrong[side] = ("probabilities", f"all {values.size} of them lie between 0 and 1")
    _refuse_wrong(loss, wrong, "sigmoid")


def _class_space(values, given, activation):
    """Returns the space that values over classes are in, or "sigmoids", if it is not the one given; None where that is possible."""
    if activation == "sigmoid":
        return "sigmoids"
    known = _CLASS_SPACE_OF.get(activation)
    # Log-probabilities are logits as well: a softmax gives the same distribution back.
    if given == known or (given == "logits" and known == "log_probabilities"):
        return None
    found = spaces.class_space(values)
    # The sum of many half-precision probabilities is further from one than that of others.
    if known == "probabilities" and np.all((values >= 0) & (values <= 1)):
        found = known
    return None if found == given or (given == "logits" and found == "log_probabilities") else found


def _class_signs(values, given, activation, found):
    """Says by what the space was found."""
    if activation is not None and _CLASS_SPACE_OF.get(activation, "sigmoids") == found:
        return f"the last activation is {activation}"
    if found != "logits":
        return f"every row is one of {found.replace('_', '-')} (it sums to one within 1e-3)"
    values = np.asarray(values, "float64")
    sums = (np.exp(np.minimum(values, 700.0)) if given == "log_probabilities" else values).sum(-1)
    what = "rows" if given == "probabilities" else "exponentials"
    return f"they range from {values.min():.4g} to {values.max():.4g} and their {what} sum to {sums.min():.4g} ... {sums.max():.4g}"


def _suited(found):
    """The loss that takes such outputs of classes."""
    return (
        "tfdistill.losses.BinarySoftTargets(from_logits=False)"
        if found == "sigmoids"
        else "tfdistill.losses.SoftTargets(from_logits=False)"
    )


def _refuse_wrong(loss, wrong, last):
    """Raises the error for the sides that are in another space than given: `wrong` is a dict of side to (space, by what it was found)."""
    if not wrong:
        return
    said = [
        f"the {side}'s outputs were said to be {getattr(loss, f'{side}_outputs').replace('_', '-')}, but {signs}"
        for side, (_, signs) in wrong.items()
    ]
    found = {side: space for side, (space, _) in wrong.items()}
    if "sigmoids" in found.values():
        expected, fix = "classes that exclude one another", f"use {_suited('sigmoids')}, whose labels do not exclude one another"
    else:
        settings = {f"{side}_outputs": space for side, space in found.items()}
        if len(wrong) == 2 and set(found.values()) == {"probabilities"}:
            settings = {"from_logits": False}
        fix = f"set {' and '.join(f'{name}={value!r}' for name, value in settings.items())}: write {loss.line_for(**found)}"
        ends = [side for side, space in found.items() if space == "probabilities"]
        if ends:
            fix += f"; or remove the {last} at the end of the {' and the '.join(ends)}"
        expected = " and ".join(f"{getattr(loss, f'{side}_outputs').replace('_', '-')} of the {side}" for side in wrong)
    raise ConfigurationError(f"{type(loss).__name__}: {'; '.join(said)}.", expected, fix)
