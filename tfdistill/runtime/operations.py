"""Which operations a target runs fast, and in which types: tables of data, one for each target.

The tables of what can run on a desktop are measured (`make operations`), the others are taken from the target's own documentation.
"""

import dataclasses
import functools
import json
import pathlib
import typing

from tfdistill.errors import ConfigurationError, nearest

Target = typing.Literal["xnnpack", "builtin", "micro", "edgetpu", "gpu"]
TARGETS: tuple[Target, ...] = typing.get_args(Target)
# Types of the activations of an operation; "dynamic" is float32 activations with int8 weights.
TYPES = ("float32", "int8", "int16", "dynamic")
FOLDER = pathlib.Path(__file__).parent / "operation_tables"


@dataclasses.dataclass(frozen=True)
class OperationTable:
    """What a target takes.

    Attributes:
        target: One of `TARGETS`: `"xnnpack"` is the delegate that phones and a Raspberry Pi use by default, `"builtin"` the interpreter's own kernels, `"micro"`
            tflite-micro, `"edgetpu"` Coral's Edge TPU, `"gpu"` the GPU delegate.
        runtime: Name and version of what was measured or described.
        source: How it is known: measured, or the address of the documentation.
        operations: Dict of operation name (as in the .tflite schema; `"MUL broadcast"` for a form of its own) -> the types that the target takes, a subset of
            `TYPES`. Operations that were not measured, or that no documentation names, are missing from a measured table; a documented table lists all that
            the target takes.
    """

    target: str
    runtime: str
    source: str
    operations: dict[str, tuple[str, ...]]

    @property
    def is_measured(self):
        """Whether the table is measured; a documented one lists everything that the target takes."""
        return not self.source.startswith("http")

    def takes(self, operation, kind):
        """Whether the target takes an operation in a type; None if it is not known.

        Args:
            operation: Its name in the .tflite schema, such as `"CONV_2D"`.
            kind: One of `TYPES`.
        """
        found = self.operations.get(operation)
        return None if found is None else kind in found

    def leaves(self, operation, kind):
        """Whether the target is known not to take an operation in a type, so that something else runs it, or nothing does.

        Args:
            operation: Its name in the tables; `"MUL broadcast"` is a MUL where a documented table says no more.
            kind: One of `TYPES`.
        """
        taken = self.takes(operation, kind)
        if taken is None and not self.is_measured:
            taken = kind in self.operations.get(operation.split()[0], ())
        return taken is False


def require_target(target):
    """Refuses what is not the name of a target.

    Raises:
        ConfigurationError: with the nearest name.
    """
    if not isinstance(target, str) or target not in TARGETS:
        raise ConfigurationError(f"There is no target {target!r}.", f"one of {', '.join(TARGETS)}", nearest(str(target), TARGETS))


@functools.cache
def operation_table(target):
    """Returns the `OperationTable` of a target.

    Args:
        target: One of `TARGETS`.

    Raises:
        ConfigurationError: if there is no such target; the message holds the nearest name.
    """
    require_target(target)
    content = json.loads((FOLDER / f"{target}.json").read_text(encoding="utf-8"))
    return OperationTable(
        content["target"], content["runtime"], content["source"], {name: tuple(types) for name, types in content["operations"].items()}
    )
