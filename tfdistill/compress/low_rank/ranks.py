"""Which rank each layer gets: by number, by energy, or for a budget of the whole model."""

import dataclasses
import functools
import math
from typing import Any

from tfdistill.compress.low_rank.factorize import DegenerateFit
from tfdistill.compress.low_rank.forms import Form, Unfit

PARAMETERS, MACS = "parameters", "macs"


@dataclasses.dataclass(frozen=True, eq=False)
class Candidate:
    """A layer at one rank.

    Attributes:
        form: Its `Form`.
        rank: Rank of the form.
    """

    form: Form
    rank: Any

    @functools.cached_property
    def saved_parameters(self):
        """Parameters that it saves; negative where there are more."""
        return math.prod(self.form.kernel_shape) - sum(self.form.sizes(self.rank))

    def macs(self):
        """Multiply-accumulates of all calls."""
        return sum(self.form.macs(self.rank, call) for call in self.form.calls)

    @functools.cached_property
    def fit(self):
        """Tuple of the share of the energy that is lost, None for a fit of no use, and the reason why it is of none."""
        try:
            return self.form.lost(self.rank), ""
        except DegenerateFit as error:
            return None, error.reason

    @property
    def lost(self):
        """Share of the energy that is lost; None for a fit of no use."""
        return self.fit[0]


@dataclasses.dataclass(frozen=True, eq=False)
class Option:
    """A layer that may be factorized.

    Attributes:
        path: Its path.
        forms: List of the `Form`s that it may take.
        macs: Multiply-accumulates of all its calls; None where sizes are free.
        looked_up: Whether it is a table, which takes no multiply-accumulates.
    """

    path: str
    forms: list
    macs: int | None
    looked_up: bool

    def shrinks(self, candidate, need_macs=False):
        """Whether a candidate is smaller, and not slower."""
        if candidate.saved_parameters <= 0:
            return False
        if self.macs is None or (self.looked_up and not need_macs):
            return True
        return candidate.macs() < self.macs if need_macs else candidate.macs() <= self.macs

    def candidates(self, divisor, need_macs=False):
        """Lists the candidates that are smaller and not slower."""
        found = [Candidate(form, rank) for form in self.forms for rank in form.ranks(divisor)]
        return [one for one in found if self.shrinks(one, need_macs)]

    def saves(self, candidate, what):
        """Returns how many parameters or multiply-accumulates a candidate saves."""
        return candidate.saved_parameters if what == PARAMETERS else self.macs - candidate.macs()


def why_none(option, divisor, need_macs=False):
    """Returns the reason why a layer has no candidate for a budget; None where it has one."""
    found = option.candidates(divisor, need_macs)
    if any(one.lost is not None for one in found):
        return None
    return found[-1].fit[1] if found else no_rank(divisor)


def no_rank(divisor):
    """Returns the reason for a layer of which no rank makes a smaller one."""
    multiple = "rank" if divisor == 1 else f"rank that is a multiple of {divisor}"
    return f"it would grow, or cost more: no {multiple} makes it smaller"


def by_number(option, rank):
    """Returns the candidate of a rank that the user gave.

    Raises:
        Unfit: if no form takes such a rank, or the layer would grow.
    """
    reason = None
    for form in option.forms:
        try:
            candidate = Candidate(form, form.rank_of(rank))
        except Unfit as error:
            reason = reason or error.reason
            continue
        if option.shrinks(candidate):
            return candidate
        size = math.prod(form.kernel_shape) - candidate.saved_parameters
        more = (
            f"{math.prod(form.kernel_shape):,} weights would be {size:,}"
            if size >= math.prod(form.kernel_shape)
            else "it would multiply more"
        )
        reason = f"it would grow at rank {candidate.rank}: {more}"
    raise Unfit(reason)


def by_energy(option, energy, divisor):
    """Returns the cheapest candidate that keeps a share of the energy.

    Raises:
        Unfit: if there is none that is smaller than the layer.
    """

    def cost(candidate):
        return (0 if option.macs is None else candidate.macs(), -candidate.saved_parameters)

    found = sorted(option.candidates(divisor), key=cost)
    if not found:
        raise Unfit(no_rank(divisor))
    for candidate in found:
        if candidate.lost is not None and candidate.lost <= 1 - energy:
            return candidate
    raise Unfit(f"it would grow: no smaller rank keeps {energy:.4g} of the energy")


def by_budget(options, what, whole, share, divisor):
    """Chooses ranks so that a model keeps a share of its cost: step by step what loses least for what it saves.

    Args:
        options: List of `Option`s.
        what: `PARAMETERS` or `MACS`.
        whole: Cost of the whole model.
        share: Largest share that stays.
        divisor: Ranks are multiples of it.

    Returns:
        Tuple of a dict of path to `Candidate`, and the share that stays. It is above `share` if that cannot be reached.
    """
    points, steps = {}, []
    for number, option in enumerate(options):
        found = [(option.saves(one, what), one) for one in option.candidates(divisor, what == MACS)]
        points[number] = [(saved, one.lost, one) for saved, one in found if saved > 0 and one.lost is not None]
        hull = _hull(points[number])
        before = (0, 0.0)
        for saved, lost, one in hull:
            steps.append(((lost - before[1]) / (saved - before[0]), number, saved - before[0], one))
            before = (saved, lost)
    steps.sort(key=lambda step: step[:2])
    chosen: dict[int, Candidate] = {}
    missing = whole - math.floor(share * whole + 1e-9)
    for _, number, saved, one in steps:
        if missing <= 0:
            break
        if saved >= missing:  # the last step: of all ranks of the layer that suffice, the one that loses least
            had = options[number].saves(chosen[number], what) if number in chosen else 0
            one = min((p for p in points[number] if p[0] - had >= missing), key=lambda p: (p[1], -p[0]))[2]
            saved = options[number].saves(one, what) - had
        chosen[number] = one
        missing -= saved
    left = whole - sum(options[number].saves(one, what) for number, one in chosen.items())
    return {options[number].path: one for number, one in chosen.items()}, left / max(whole, 1)


def _hull(points):
    """Returns the lower convex hull of (saved, lost, candidate), from nothing saved and nothing lost on."""
    hull = [(0, 0.0, None)]
    for point in sorted(points, key=lambda point: (point[0], -point[1])):
        if hull[-1][0] == point[0] and len(hull) > 1:
            hull.pop()
        while len(hull) > 1 and _slope(hull[-2], hull[-1]) >= _slope(hull[-2], point):
            hull.pop()
        hull.append(point)
    return hull[1:]


def _slope(a, b):
    return (b[1] - a[1]) / (b[0] - a[0])
