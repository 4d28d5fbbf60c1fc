"""What channel pruning will do to each layer."""

import dataclasses
import math
from typing import Any

from tfdistill.compress.plan import DONE, IMPOSSIBLE, SKIPPED, LayerPlan, Plan, change_of, in_columns, opened_first
from tfdistill.compress.step import why_left_out
from tfdistill.graph.opening import is_foreign


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChannelLayerPlan(LayerPlan):
    """What channel pruning will do to one layer.

    Attributes:
        name: The user's name or path of the layer.
        class_name: Class of the layer.
        action: "done" (it gets smaller), "skipped" or "impossible" (selected, but none of its channels can be removed).
        reason: What is done, or why it is not.
        parameters: Number of the layer's parameters now.
        expected_parameters: Number afterwards.
        expected_nonzero: The same.
        macs: Multiply-accumulates per example now, where they are known.
        operations: Empty, as the step makes no file.
        slow: Empty as well.
        expected_macs: Multiply-accumulates afterwards.
        channels: What the layer makes now: name -> number, such as `{"channels": 32}`, or `{"heads": 4, "key width": 16, ...}`.
        expected_channels: What it makes afterwards.
        removed: Indices of what is removed: name -> indices.
        groups: Numbers of the groups that its channels belong to. Channels of one group are removed together in all its layers.

    Example:
        >>> row = tfdistill.compress.PruneChannels(keep_macs=0.6).plan(teacher).row("conv")
        >>> row.channels, row.expected_channels, len(row.removed["channels"])
        ({'channels': 16}, {'channels': 8}, 8)
    """

    expected_macs: int | None = None
    channels: dict[str, int]
    expected_channels: dict[str, int]
    removed: dict[str, tuple[int, ...]]
    groups: tuple[int, ...]

    def widths(self) -> str:
        """Returns the numbers of channels before and after as text."""
        several = {name: (n, self.expected_channels[name]) for name, n in self.channels.items()}
        texts = [(f"{name} " if len(several) > 1 else "") + (f"{a} -> {b}" if a != b else f"{a}") for name, (a, b) in several.items()]
        return ", ".join(texts)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChannelPlan(Plan):
    """What channel pruning will do to a model. `print(plan)` shows a table.

    Attributes:
        step: The step with its settings, as text.
        model: Name of the model.
        rows: One `ChannelLayerPlan` for each layer that has weights, or that channels cannot be followed through.
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
        >>> plan = tfdistill.compress.PruneChannels(keep_macs=0.6).plan(teacher)
        >>> plan.names("done")
        ['conv', 'norm', 'logits']
        >>> plan.macs, plan.expected_macs
        (9376, 4688)
    """

    rows: tuple[ChannelLayerPlan, ...]
    parameters: int
    expected_parameters: int
    macs: int | None = None
    expected_macs: int | None = None

    def _opened_first(self) -> str:
        return opened_first(self.custom)

    def table(self) -> str:
        """Returns the plan as a table in plain text."""
        header: tuple[str, ...] = ("layer", "class", "action", "channels", "parameters", "MACs", "groups", "reason")
        lines = [header] + [
            (
                r.name,
                r.class_name,
                r.action,
                r.widths(),
                change_of(r.parameters, r.expected_parameters),
                change_of(r.macs, r.expected_macs),
                ", ".join(map(str, r.groups)),
                r.reason,
            )
            for r in self.rows
        ]
        return in_columns(lines)


@dataclasses.dataclass(frozen=True)
class Decision:
    """All that a plan is made of.

    Attributes:
        costs: `Costs` of the model.
        layers: `Layers` of the model.
        groups: List of `Group`s.
        left: Dict of the number of a group to the reason why it is left whole.
        chosen: Paths of the layers that are selected.
        named: Those of them that the user named outright.
        selects: Whether the user selected layers.
        removal: `Removal`.
    """

    costs: Any
    layers: dict
    groups: list
    left: dict[int, str]
    chosen: set
    named: set
    selects: bool
    removal: Any


def plan_of(step, decision):
    """Returns the `ChannelPlan` of a `Decision`."""
    costs, removal = decision.costs, decision.removal
    before, after = costs.macs_by_path(costs.trace.units.removal()), costs.macs_by_path(removal)
    paths: dict[int, list] = {}
    for call in costs.trace.graph.calls:
        paths.setdefault(id(call.operation), [call.operation])
        if call.path not in paths[id(call.operation)]:
            paths[id(call.operation)].append(call.path)
    names = {id(layer): name for name, layer in decision.layers.items()}
    rows = []
    for operation, *several in paths.values():
        if getattr(operation, "weights", None) or several[0] in costs.trace.whole:
            macs = [_sum(found.get(path) for path in several) for found in (before, after)]
            rows.append(_row(decision, operation, names.get(id(operation), several[0]), several[0], macs))
    none = costs.trace.units.removal()
    custom = tuple(
        f"'{path}': {reason}"
        for path, reason in costs.trace.whole.items()
        if any(is_foreign(op) for op, *where in paths.values() if path in where)
    )
    figures = [("parameters", costs.parameters(none), costs.parameters(removal)), ("MACs", costs.macs(none), costs.macs(removal))]
    findings = [f"{what}: {a:,} -> {b:,} ({100 * b / max(a, 1):.1f} %)" for what, a, b in figures if a is not None]
    unknown = [f"'{path}'" for path, macs in before.items() if macs is None or path in costs.partly]
    if figures[1][1] is not None and unknown:
        findings.append(f"MACs are without those of {_listed(unknown)}, which are not known")
    return ChannelPlan(
        step=repr(step),
        model=costs.model.name,
        rows=tuple(rows),
        findings=tuple(findings),
        custom=custom,
        parameters=figures[0][1],
        expected_parameters=figures[0][2],
        macs=figures[1][1],
        expected_macs=figures[1][2],
    )


def _sum(values):
    values = list(values)
    return None if None in values else sum(values)


def _row(decision, operation, name, path, macs):
    costs, removal = decision.costs, decision.removal
    weights = getattr(operation, "weights", [])
    count, left = sum(math.prod(w.shape) for w in weights), costs.parameters(removal, weights)
    written = [one for one in costs.trace.written if one.layer is operation]
    groups = [group for group in decision.groups if any(one.layer is operation for one in group.written)]
    gone = {one.key: tuple(int(i) for i in set(range(len(one.labels))).difference(removal.stay(one.labels).tolist())) for one in written}
    action, reason = _action(decision, operation, path, name, groups, any(gone.values()), left < count)
    return ChannelLayerPlan(
        name=name,
        class_name=type(operation).__name__,
        action=action,
        reason=reason,
        parameters=count,
        expected_parameters=left,
        expected_nonzero=left,
        macs=macs[0],
        expected_macs=macs[1],
        channels={one.key: len(one.labels) for one in written},
        expected_channels={one.key: removal.size(one.labels, len(one.labels)) for one in written},
        removed={key: tuple(sorted(indices)) for key, indices in gone.items() if indices},
        groups=tuple(group.number for group in groups),
    )


def _action(decision, operation, path, name, groups, own, smaller):
    """Returns the action and the reason of a layer's row."""
    trace = decision.costs.trace
    reasons = list(dict.fromkeys(decision.left[group.number] for group in groups if group.number in decision.left))
    if own:
        others = dict.fromkeys(other for group in groups if group.number not in decision.left for other in group.paths if other != path)
        together = f"together with {_listed([f'{other!r}' for other in others])}" if others else "of its own"
        return DONE, "; ".join([together, *reasons])
    needless = groups and not reasons and path not in trace.whole
    if smaller and (needless or name not in decision.named):
        return DONE, "; ".join(["what it reads gets narrower", *reasons])
    if path in trace.whole:
        reasons.insert(0, trace.whole[path])
    selected = decision.selects and name in decision.chosen
    if groups and not reasons:
        return SKIPPED, "not needed for the budget"
    if selected:
        return IMPOSSIBLE, "; ".join(reasons) or "it makes no channels of its own: name the layer before it"
    if name not in decision.chosen:
        return SKIPPED, why_left_out("layers", None)
    return SKIPPED, "; ".join(reasons) or "what it reads stays as it is"


def _listed(texts, most=4):
    return ", ".join(texts[:most]) + (f" and {len(texts) - most} more" if len(texts) > most else "")
