"""What `check` returns: findings, each with its remedy."""

import collections
import dataclasses
import typing
from collections.abc import Iterator

from tfdistill.errors import TfdistillError
from tfdistill.records import Record

Severity = typing.Literal["fails", "slow", "inexact", "note"]
SEVERITIES: tuple[Severity, ...] = typing.get_args(Severity)
Kind = typing.Literal[
    "arguments",
    "bridge",
    "cast_input",
    "custom_operation",
    "fixed_scale",
    "float_only",
    "free_axes",
    "input_scales",
    "left_by_target",
    "lookup",
    "loop",
    "mixed_units",
    "not_converted",
    "not_finite",
    "tensorflow_only",
    "unaligned_channels",
]
KINDS: tuple[Kind, ...] = typing.get_args(Kind)
# So many layers of a finding are named in its sentences and in the table.
MOST_NAMED = 4


@dataclasses.dataclass(frozen=True)
class Finding(Record):
    """One thing that `check` found.

    Attributes:
        severity: `"fails"`: there will be no file, or nothing that runs it. `"slow"`: the target leaves a part to slower kernels. `"inexact"`: integers are too
            coarse for some numbers. `"note"`: worth knowing.
        kind: What it is, a fixed word: `"float_only"`, `"mixed_units"` and others; docs/verification.md has the list.
        layers: The user's names or paths of the layers that it comes from, or names of inputs; empty where that is not known.
        happened: What was found, with the names and numbers of the model.
        fix: What to do about it.

    Example:
        >>> inputs = keras.Input((8,), name="x")
        >>> probabilities = keras.layers.Dense(10, "softmax", name="classes")(inputs)
        >>> finding = tfdistill.check(keras.Model(inputs, probabilities))[0]
        >>> finding.severity, finding.kind, finding.layers
        ('inexact', 'fixed_scale', ('classes',))
    """

    severity: str
    kind: str
    layers: tuple[str, ...]
    happened: str
    fix: str

    @classmethod
    def of_error(cls, severity: Severity, kind: Kind, layers: tuple[str, ...], error: TfdistillError) -> "Finding":
        """Makes the finding of what an error says that would be raised later.

        Args:
            severity: As the attribute.
            kind: As the attribute.
            layers: As the attribute.
            error: The error.
        """
        return cls(severity, kind, layers, " ".join(error.happened.split()), error.fix or f"what is expected: {error.expected}")

    def summary(self) -> dict[str, typing.Any]:
        """Returns the fields of a table. The layers stand in what happened."""
        return {"severity": self.severity, "kind": self.kind, "finding": (self.happened, f"Fix: {self.fix}")}


@dataclasses.dataclass(frozen=True)
class Preflight(Record):
    """All that `check` found, the worst first: a list of `Finding`s that prints as a table, and saves itself as JSON.

    Attributes:
        model: Name of the model.
        variant: Variant of the file that it was checked for.
        target: Target that it was checked for.
        findings: The findings.

    Example:
        >>> found = tfdistill.check(student)
        >>> len(found), found.fails, [finding.fix for finding in found]
        (0, False, [])
    """

    model: str
    variant: str
    target: str
    findings: tuple[Finding, ...]

    @property
    def fails(self) -> bool:
        """Whether something was found because of which there will be no file, or nothing that runs it."""
        return any(finding.severity == "fails" for finding in self.findings)

    def of_kind(self, kind: Kind) -> list[Finding]:
        """Returns the findings of one kind.

        Args:
            kind: As in `Finding`.
        """
        return [finding for finding in self.findings if finding.kind == kind]

    def summary(self) -> dict[str, typing.Any]:
        """Returns the fields of the first table, with the number of findings of each severity."""
        counted = collections.Counter(finding.severity for finding in self.findings)
        counts = [f"{counted[severity]} {severity}" for severity in SEVERITIES if counted[severity]]
        return {"model": self.model, "variant": self.variant, "target": self.target, "findings": ", ".join(counts) or "none"}

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def __len__(self) -> int:
        return len(self.findings)

    def __getitem__(self, index: int) -> Finding:
        return self.findings[index]


def first_of(names, most=MOST_NAMED):
    """Returns the first of several names as a text, and the number of the others."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def quoted(names):
    """Returns the first of several names in quotes, and the number of the others."""
    return first_of([f"'{name}'" for name in names])
