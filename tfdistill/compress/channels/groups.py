"""Groups of channels that can be removed: those that the same axes of the same weights have."""

import collections
import dataclasses
import math
from typing import Any

import numpy as np

from tfdistill.compress.channels.call import Written
from tfdistill.compress.channels.units import NONE


@dataclasses.dataclass(frozen=True, eq=False)
class Group:
    """Units that are of one kind: each of them is one channel, or several coupled ones, of the same layers.

    Attributes:
        number: Its number, by which the plan names it.
        units: Array of those of its units that may be removed, in ascending order.
        total: Number of all its units.
        written: List of `Written` that hold these units: the layers that get narrower.
        weights: List of pairs (`WeightAxes`, axis) that hold them.
        step: How many units are removed at once at least, so that all widths stay multiples of the divisor.
        reason: Why the group is left whole; None where it can be pruned.
    """

    number: int
    units: Any
    total: int
    written: list[Written]
    weights: list
    step: int
    reason: str | None

    def chunks(self, order, least):
        """Yields units that are removed together, so that what stays is a multiple of `step`.

        Args:
            order: Its units, those first that are removed first.
            least: Smallest share of all its units that stays.
        """
        begin, floor = 0, max(self.step, math.ceil(least * self.total))
        while True:
            stays = self.total - begin
            end = begin + (stays % self.step or self.step)
            if end > len(order) or self.total - end < floor:
                return
            yield order[begin:end]
            begin = end

    @property
    def paths(self):
        """Paths of the layers that get narrower."""
        return list(dict.fromkeys(one.path for one in self.written))


def groups_of(trace, divisor):
    """Lists the `Group`s of a model.

    Args:
        trace: `ChannelTrace`.
        divisor: What the widths of layers stay a multiple of.
    """
    places = collections.defaultdict(list)
    for known in trace.weights.values():
        for axis, labels in enumerate(known.axes):
            for unit in _units(trace, labels):
                places[unit].append((id(known.variable), axis))
    makers = collections.defaultdict(list)
    for number, one in enumerate(trace.written):
        for unit in _units(trace, one.labels):
            makers[unit].append(number)
    kinds = collections.defaultdict(list)
    for unit, numbers in makers.items():
        kinds[tuple(numbers), tuple(sorted(places[unit]))].append(unit)
    kept = trace.units.kept()
    found = []
    for (numbers, where), several in kinds.items():
        whole = [kept[unit] for unit in several if unit in kept]
        free = np.array(sorted(unit for unit in several if unit not in kept), "int64")
        written = [trace.written[number] for number in numbers]
        weights = [(trace.weights[key], axis) for key, axis in where]
        step = max((_step(trace, one, several[0], divisor) for one in written if one.aligned), default=1)
        reason = whole[0] if whole and not len(free) else None
        if reason is None and len(several) <= step:
            reason = f"no smaller multiple of {divisor}" if step > 1 else "it has only one"
        found.append(Group(len(found) + 1, free, len(several), written, weights, step, reason))
    return found


def why_left(trace, groups, names, chosen, excluded):
    """Returns a dict of the number of each group that is left whole to the reason.

    Args:
        trace: `ChannelTrace`.
        groups: List of `Group`s.
        names: Dict of id of a layer to its path.
        chosen: Set of the paths that were selected.
        excluded: Set of the paths that were excluded. What passes through such a layer stays, too: a sum makes no channels, but has them.
    """
    passing = {}
    for call in trace.graph.calls:
        if (name := names.get(id(call.operation))) in excluded:
            for labels in (labels for value in call.outputs for labels in trace.axes[id(value)]):
                passing.update(dict.fromkeys(_units(trace, labels), name))
    left = {}
    for group in groups:
        held = [names[id(one.layer)] for one in group.written if id(one.layer) in names]
        barred = [name for name in held if name in excluded] or [passing[unit] for unit in group.units.tolist() if unit in passing]
        if group.reason is not None:
            left[group.number] = group.reason
        elif barred:
            left[group.number] = f"coupled to '{barred[0]}', which exclude= leaves as it is"
        elif held and not any(name in chosen for name in held):
            left[group.number] = "left out by layers="
    return left


def _units(trace, labels):
    return [] if labels is None else [int(unit) for unit in np.unique(trace.units.find(labels)) if unit != NONE]


def _step(trace, written, unit, divisor):
    """Returns how many units make a multiple of the divisor in the channels of a layer."""
    times = int((trace.units.find(written.labels) == unit).sum())
    return divisor // math.gcd(divisor, times)
