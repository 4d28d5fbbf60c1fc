"""What low-rank factorization will do to each layer."""

import dataclasses

from tfdistill.compress.plan import LayerPlan, Plan, change_of, in_columns, opened_first


@dataclasses.dataclass(frozen=True, kw_only=True)
class LowRankLayerPlan(LayerPlan):
    """What low-rank factorization will do to one layer.

    Attributes:
        name: The user's name or path of the layer.
        class_name: Class of the layer.
        action: "done" (it becomes several thin ones), "skipped" or "impossible" (selected, but it stays as it is).
        reason: What is done, or why it is not.
        parameters: Number of the layer's parameters now.
        expected_parameters: Number of those of its parts.
        expected_nonzero: The same.
        macs: Multiply-accumulates per example now, in all calls, where they are known.
        operations: Empty, as the step makes no file.
        slow: Empty as well.
        expected_macs: Multiply-accumulates of its parts.
        method: `"svd"`, `"spatial_svd"`, `"tucker"` or `"cp"`; empty for a layer that stays.
        rank: Its rank, `(16,)`; of Tucker-2 those of inputs and outputs, `(16, 24)`.
        lost: Share of the energy that is lost, from 0 to 1: of the kernel, or of what it gives on data.
        by: `"outputs"` if data weights what is kept, `"weights"` if the kernel alone does; empty for a layer that stays.
        part_parameters: Path of each layer that takes its place -> the number of its parameters.

    Example:
        >>> row = tfdistill.compress.LowRank(rank=4, divisor=1).plan(teacher).row("logits")
        >>> row.method, row.rank, row.part_parameters
        ('svd', (4,), {'logits_first': 64, 'logits': 50})
        >>> row.parameters, row.expected_parameters
        (170, 114)
    """

    expected_macs: int | None = None
    method: str
    rank: tuple[int, ...]
    lost: float | None = None
    by: str
    part_parameters: dict[str, int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LowRankPlan(Plan):
    """What low-rank factorization will do to a model. `print(plan)` shows a table.

    Attributes:
        step: The step with its settings, as text.
        model: Name of the model.
        rows: One `LowRankLayerPlan` for each layer that has weights.
        findings: What is to be said of the model as a whole, one sentence each.
        custom: A line for each layer of a class that Keras does not have.
        target: Empty, as the step makes no file.
        operations: 0, for the same reason.
        fast_operations: 0 as well.
        parameters: Number of the model's parameters now.
        expected_parameters: Number afterwards.
        macs: Multiply-accumulates of the model per example now; None where its inputs have free sizes.
        expected_macs: Multiply-accumulates afterwards.

    Example:
        >>> plan = tfdistill.compress.LowRank(rank=4, divisor=1).plan(teacher)
        >>> plan.names("done")
        ['conv', 'logits']
        >>> plan.parameters, plan.expected_parameters
        (394, 294)
    """

    rows: tuple[LowRankLayerPlan, ...]
    parameters: int
    expected_parameters: int
    macs: int | None = None
    expected_macs: int | None = None

    def _opened_first(self) -> str:
        return opened_first(self.custom)

    def table(self) -> str:
        """Returns the plan as a table in plain text."""
        header: tuple[str, ...] = ("layer", "class", "action", "method", "rank", "parameters", "MACs", "lost", "by", "reason")
        lines = [header] + [
            (
                r.name,
                r.class_name,
                r.action,
                r.method,
                ", ".join(map(str, r.rank)),
                change_of(r.parameters, r.expected_parameters),
                change_of(r.macs, r.expected_macs),
                "" if r.lost is None else f"{100 * r.lost:.2g} %",
                r.by,
                r.reason,
            )
            for r in self.rows
        ]
        return in_columns(lines)
