"""What a model costs without some of its channels, and which of them are removed for a budget."""

import dataclasses
import functools
import math

import numpy as np

from tfdistill.compress.channels.search import first_by_measuring, first_that_fits
from tfdistill.errors import ModelError
from tfdistill.graph.flat import first_free
from tfdistill.graph.macs import macs_of
from tfdistill.graph.profiling import macs_inside, shapes_at

CHANNELS, PARAMETERS, MACS = "channels", "parameters", "macs"


@dataclasses.dataclass(frozen=True)
class Costs:
    """Counts channels, parameters and multiply-accumulates of a model without some channels.

    Attributes:
        model: The original.
        trace: Its `ChannelTrace`.
    """

    model: object
    trace: object

    def shape_of(self, removal, variable):
        """Returns what remains of the shape of a weight."""
        known = self.trace.weights.get(id(variable))
        return tuple(variable.shape) if known is None else removal.shape(known.axes, variable.shape)

    def parameters(self, removal, weights=None):
        """Returns the number of parameters of the model, or of some weights."""
        return sum(math.prod(self.shape_of(removal, w)) for w in (self.model.weights if weights is None else weights))

    def channels(self, removal):
        """Returns the number of channels that layers make."""
        return sum(removal.size(one.labels, len(one.labels)) for one in self.trace.written)

    @functools.cached_property
    def free(self):
        """Path of the first call with a free size, for which multiply-accumulates are not known; None where there is none."""
        return first_free(self.trace.graph)

    @functools.cached_property
    def inside(self):
        """Dict of path of each layer of a class that Keras does not have to the multiply-accumulates inside it, as far as they are known."""
        return {path: macs for path, (macs, _) in self._opened.items()}

    @property
    def partly(self):
        """Set of the paths of those of these layers in which some are not known."""
        return {path for path, (_, known) in self._opened.items() if not known}

    @functools.cached_property
    def _opened(self):
        return macs_inside(self.model, self.trace.graph)

    def macs_by_path(self, removal):
        """Returns a dict of path to multiply-accumulates, None where they are not known.

        Inside a layer of another class than Keras's they are counted as it is; without some of its channels, as many less as it has fewer weights.
        """
        found = {}
        for call in self.trace.graph.calls:
            macs = None
            if self.free is None:
                shapes = shapes_at(
                    call, lambda x: removal.shape(self.trace.axes[id(x)], x.shape), lambda variable: self.shape_of(removal, variable)
                )
                macs = macs_of(call.operation, shapes)
                if call.path in self.inside:
                    macs = 0 if call.path in found else self._inside(call, removal)
            found[call.path] = None if macs is None or found.get(call.path, 0) is None else macs + found.get(call.path, 0)
        return found

    def _inside(self, call, removal):
        whole = sum(math.prod(w.shape) for w in call.operation.weights)
        return round(self.inside[call.path] * self.parameters(removal, call.operation.weights) / max(whole, 1))

    def macs(self, removal):
        """Returns the multiply-accumulates of all layers of which they are known; None for a model with free sizes."""
        return None if self.free is not None else sum(macs or 0 for macs in self.macs_by_path(removal).values())

    def of(self, what, removal):
        """Returns `CHANNELS`, `PARAMETERS` or `MACS`.

        Raises:
            ModelError: if they are not known.
        """
        found = getattr(self, what)(removal)
        if found is None:
            raise ModelError(
                f"The multiply-accumulates of '{self.model.name}' are not known: a size is free at '{self.free}'.",
                "inputs of fixed sizes, the batch apart",
                "give keep_parameters= or keep_channels=",
            )
        return found


def chunks_of(groups, scores, least, over_all):
    """Lists the channels that may be removed, those first that are removed first, as arrays of units that go together.

    Args:
        groups: List of the `Group`s that may be pruned.
        scores: Dict of the number of a group to an array of how much each of its units counts, on average 1.
        least: Smallest share of the units of a group that stays.
        over_all: Whether the units that count least go first, in whatever group they are; else every group loses the same share.
    """
    chunks = []
    for group in groups:
        order, highest, gone = group.units[np.argsort(scores[group.number], kind="stable")], -math.inf, 0
        values = dict(zip(group.units.tolist(), scores[group.number], strict=True))
        for chunk in group.chunks(order, least):
            gone += len(chunk)
            highest = max(highest, float(np.mean([values[int(unit)] for unit in chunk])))
            chunks.append((highest if over_all else gone / group.total, group.number, chunk))
    return [chunk for *_, chunk in sorted(chunks, key=lambda chunk: chunk[:2])]


def removal_for(costs, what, share, chunks, measure=None):
    """Chooses the channels to remove, so that a model keeps a share of its cost.

    Args:
        costs: `Costs`.
        what: `CHANNELS`, `PARAMETERS` or `MACS`: of a measured cost, what it is estimated by.
        share: Largest share that stays.
        chunks: What `chunks_of` returns.
        measure: Function of a `Removal` that returns the share of the cost that stays; None counts it.

    Returns:
        Tuple of a `Removal`, and the share that stays. It is above `share` if that cannot be reached.
    """
    units = costs.trace.units
    whole = max(costs.of(what, units.removal()), 1)

    @functools.cache
    def removal(count):
        return units.removal([unit for chunk in chunks[:count] for unit in chunk])

    @functools.cache
    def stays(count):
        return costs.of(what, removal(count)) / whole

    if measure is None:
        count = first_that_fits(len(chunks), stays, share)
        return removal(count), stays(count)
    count, measured = first_by_measuring(len(chunks), stays, lambda count: measure(removal(count)) if count else 1.0, share)
    return removal(count), measured
