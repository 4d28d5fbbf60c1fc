"""What a compression step will do to each layer."""

import collections
import dataclasses
from collections.abc import Iterable
from typing import Any

from tfdistill.bridge.adopt import introspection
from tfdistill.compress import kernels
from tfdistill.errors import ConfigurationError, ModelError, nearest
from tfdistill.records import Record

DONE, SKIPPED, IMPOSSIBLE = "done", "skipped", "impossible"


@dataclasses.dataclass(frozen=True)
class LayerPlan(Record):
    """What a step will do to one layer; or a reason against the whole model that cannot be put down to a layer.

    Attributes:
        name: The user's name or path of the layer; of the model, where the row is of the model.
        class_name: Class of the layer; "Model" where the row is of the model.
        action: "done", "skipped" (deliberately left as it is) or "impossible" (selected, but the step does not work on it).
        reason: What is done, or why it is not.
        parameters: Number of the layer's parameters now.
        expected_parameters: Number afterwards, zeros included.
        expected_nonzero: Number afterwards without the zeros, where the step knows it.
        macs: Multiply-accumulates per example, where they are known.
        operations: The operations of the integer file that the layer becomes, in their order, as in the .tflite schema; empty where they are not known, and for a layer
            that is nothing in the file.
        slow: Those of them that the plan's target does not run fast, each once.

    Example:
        >>> row = tfdistill.compress.Prune(0.5, end_step=100).plan(student).row("conv")
        >>> row.action, row.parameters, row.expected_nonzero
        ('done', 80, 44)
        >>> row.reason
        '50 % of 72 weights in kernel'
    """

    name: str
    class_name: str
    action: str
    reason: str
    parameters: int
    expected_parameters: int | None = None
    expected_nonzero: int | None = None
    macs: int | None = None
    operations: tuple[str, ...] = ()
    slow: tuple[str, ...] = ()

    @classmethod
    def of(cls, path: str, layer: Any, action: str, reason: str, zeros: int) -> "LayerPlan":
        """Makes the row of a live layer. Its number of parameters stays the same.

        Args:
            path: The user's name or path of the layer.
            layer: The layer, wrapped or not.
            action: `DONE`, `SKIPPED` or `IMPOSSIBLE`.
            reason: What is done, or why it is not.
            zeros: Number of its parameters that will be zero.
        """
        count, kind = kernels.parameters(layer), introspection.kind_of(layer)
        return cls(path, kind, action, reason, count, count, count - zeros, kernels.macs(layer))

    @classmethod
    def of_model(cls, name: str, action: str, reason: str) -> "LayerPlan":
        """Makes the row of what is of the whole model: it has no parameters of its own.

        Args:
            name: Name of the model.
            action: As in `of`.
            reason: What stands against the model.
        """
        return cls(name, "Model", action, reason, 0, 0, 0)


@dataclasses.dataclass(frozen=True)
class Plan(Record):
    """What a step will do to a model, layer by layer. `print(plan)` shows a table.

    Attributes:
        step: The step with its settings, as text.
        model: Name of the model.
        rows: One `LayerPlan` for each layer, and one for the model where something is said of it that cannot be put down to a layer.
        findings: What is to be said of the model as a whole, one sentence each.
        custom: A line for each layer of a class that Keras does not have: that it was opened, so that the layers inside it have rows of their own, or that it
            runs as it is, and why.
        target: Name of the target of the integer file, as in `QuantizeAware(target=...)`; empty where the step makes no such file, or it was not tried.
        operations: Number of operations of that file.
        fast_operations: Number of those that the target runs fast.

    Example:
        >>> plan = tfdistill.compress.Prune(0.5, end_step=100).plan(student)
        >>> plan.names("done")
        ['conv', 'logits']
        >>> print(plan.table())
        layer   class                   action   parameters  nonzero after    MACs  reason
        conv    Conv2D                  done             80             44   4,608  50 % of 72 weights in kernel
        ...
    """

    step: str
    model: str
    rows: tuple[LayerPlan, ...]
    findings: tuple[str, ...] = ()
    custom: tuple[str, ...] = ()
    target: str = ""
    operations: int = 0
    fast_operations: int = 0

    @property
    def fast_share(self) -> float | None:
        """Share of the file's operations that the target runs fast, from 0 to 1; None where they are not known."""
        return self.fast_operations / self.operations if self.operations else None

    def summary(self) -> dict[str, Any]:
        """Returns the fields of a summary table, with the share of operations that the target runs fast."""
        return {**super().summary(), "fast_share": self.fast_share}

    def names(self, action: str) -> list[str]:
        """Returns the names of the layers with an action, in the order of the model.

        Args:
            action: `"done"`, `"skipped"` or `"impossible"`.
        """
        return [row.name for row in self.rows if row.action == action]

    def row(self, name: str) -> LayerPlan:
        """Returns the `LayerPlan` of the layer `name`.

        Raises:
            ConfigurationError: if the plan has no such layer; the message names the nearest.
        """
        return row_named(self.rows, name)

    def table(self) -> str:
        """Returns the plan as a table in plain text."""
        header = ["layer", "class", "action", "parameters", "nonzero after", "MACs", "reason"]
        lines = [
            [r.name, r.class_name, r.action, _count(r.parameters), _count(r.expected_nonzero), _count(r.macs), r.reason] for r in self.rows
        ]
        if self.operations:
            header[-1:] = ["operations", f"not by {self.target}", "reason"]
            for row, line in zip(self.rows, lines, strict=True):
                line[-1:] = [_listed(row.operations), ", ".join(row.slow), row.reason]
        lines = [header, *lines]
        widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
        right = {3, 4, 5}
        return "\n".join(
            "  ".join(cell.rjust(w) if i in right else cell.ljust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))).rstrip()
            for line in lines
        )

    def __str__(self):
        done = self.names(DONE)
        lines = [f"{self.step} on '{self.model}': {len(done)} of {len(self.rows)} layers", *self.findings, self.table(), *self.custom]
        if self.operations:
            lines.insert(
                1, f"{self.target} runs {self.fast_operations} of {self.operations} operations of the file fast ({self.fast_share:.0%})"
            )
        return "\n".join(lines)

    def require_work(self, named: Iterable[str] = ()) -> None:
        """Refuses a plan that would do nothing, or nothing to a layer that the user named.

        Args:
            named: Names of the layers that the user named outright.

        Raises:
            ModelError: with the reasons, layer by layer.
        """
        refused = [row for row in self.rows if row.action == IMPOSSIBLE and row.name in named]
        if refused:
            raise ModelError(
                f"{self.step} does not work on " + "; ".join(f"'{row.name}' ({row.reason})" for row in refused) + ".",
                fix="leave these layers out of layers=",
            )
        if not self.names(DONE):
            reasons = "; ".join(f"'{row.name}': {row.reason}" for row in self.rows[:8])
            raise ModelError(
                f"{self.step} finds nothing to do in the model '{self.model}'. {reasons}", fix=f"{self._opened_first()}look at plan(model)"
            )

    def _opened_first(self) -> str:
        """Returns the beginning of a remedy for a step that does not look inside layers of classes that Keras does not have; empty for any other step."""
        return ""


def opened_first(hidden):
    """Returns the beginning of a remedy for a model with layers that a step does not look into; empty where there are none.

    Args:
        hidden: The layers of classes that Keras does not have, or anything else that is false without them.
    """
    return (
        "take tfdistill.compress.open_layers(model), in which layers of other classes than Keras's are what is inside them; or "
        if hidden
        else ""
    )


def change_of(before, after):
    """Returns a number before and after as text; empty where one of them is not known."""
    if before is None or after is None:
        return ""
    return f"{before:,}" if before == after else f"{before:,} -> {after:,}"


def in_columns(lines):
    """Returns rows of texts in columns."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def _listed(operations):
    """Returns names as a text, each once with its number."""
    counted = collections.Counter(operations)
    return ", ".join(name if count == 1 else f"{count} {name}" for name, count in counted.items())


def _count(value):
    return "" if value is None else f"{value:,}"


def row_named(rows, name):
    """Returns the row of a layer.

    Args:
        rows: Records with a `name`.
        name: Name of the layer.

    Raises:
        ConfigurationError: if there is none; the message names the nearest.
    """
    found = next((row for row in rows if row.name == name), None)
    if found is None:
        names = [row.name for row in rows]
        raise ConfigurationError(f"There is no row of a layer '{name}'.", f"one of {', '.join(names)}", nearest(str(name), names))
    return found
