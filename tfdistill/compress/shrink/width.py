"""Which channels stay at a width: of each group the same share, of those that count most."""

import numpy as np

from tfdistill.compress.channels.costs import Costs
from tfdistill.compress.channels.groups import groups_of, why_left
from tfdistill.compress.channels.scores import scores_of
from tfdistill.compress.channels.trace import ChannelTrace
from tfdistill.compress.selection import layers_of_graph, select
from tfdistill.graph.opening import is_foreign

# A share of a group that rounding to the divisor may take away at most, as in MobileNetV2's own multiplier of widths.
_LEAST = 0.9


class Widths:
    """A model at every width.

    Args:
        model: Keras 3 model.
        criterion: One of `BY_WEIGHTS`.
        divisor: Numbers of channels stay a multiple of it.
        exclude: What `selectors` returns: layers whose channels stay.
        seed: Seed of `"random"`.

    Attributes:
        trace: Its `ChannelTrace`.
        costs: Its `Costs`.
        free: List of the `Group`s that get narrower.
        steps: What is removed one after the other as the model gets narrower, of groups that get narrower at the same width the last one in the graph first: list
            of tuples whose last element are the units.
        left: List of (paths of layers, reason): groups that stay whole.
        hidden: Paths of the layers with weights that stay whole as Keras does not have their classes, but for those that are excluded.
        unknown: Those of `left` that are not followed, in no output of the model, and not excluded: a user would expect them to get narrower.
    """

    def __init__(self, model, criterion, divisor=8, exclude=None, seed=0):
        self.trace = ChannelTrace(model)
        self.costs = Costs(model, self.trace)
        layers = layers_of_graph(model, self.trace.graph)
        chosen = select(layers, None, exclude)[0]
        groups = groups_of(self.trace, divisor)
        names = {id(layer): name for name, layer in layers.items()}
        left = why_left(self.trace, groups, names, chosen, set(layers) - chosen)
        scores = scores_of(criterion, self.trace, model, groups, left, None, seed)
        self.free = [group for group in groups if group.number not in left]
        self.steps = sorted(
            (step for group in self.free for step in _steps(group, group.units[np.argsort(scores[group.number], kind="stable")])),
            key=lambda step: step[:2],
        )
        self.left = [(group.paths, left[group.number]) for group in groups if group.number in left]
        self.hidden = [path for path in self.trace.whole if path in chosen and is_foreign(layers[path]) and layers[path].weights]
        by_choice = [
            group for group in groups if any(names[id(one.layer)] not in chosen for one in group.written if id(one.layer) in names)
        ]
        self.unknown = [(group.paths, group.reason) for group in groups if group not in by_choice and self._is_unknown(group)]

    def _is_unknown(self, group):
        if group.reason is None or len(group.units) == group.total:
            return False
        units, axes = self.trace.units, self.trace.axes
        roots = np.concatenate([units.find(one.labels).ravel() for one in group.written])
        shown = [units.find(labels).ravel() for x in self.trace.graph.outputs for labels in axes[id(x)] if labels is not None]
        return not any(np.isin(roots, found).any() for found in shown)

    def count(self, width):
        """Returns how many of the steps are taken at a width."""
        return sum(-below > width for below, *_ in self.steps)

    def removal(self, count):
        """Returns the `Removal` of the first steps."""
        return self.trace.units.removal([unit for *_, units in self.steps[:count] for unit in units.tolist()])


def _steps(group, order):
    """Yields (-width, -number of the group, units): below that width these units are removed, too."""
    gone = 0
    for chunk in group.chunks(order, 0.0):
        gone += len(chunk)
        stays = group.total - gone
        yield -min(stays + group.step / 2, stays / _LEAST) / group.total, -group.number, chunk
