"""Decides what becomes of each layer, and says it in a plan."""

import dataclasses
import math

from tfdistill.compress import rebuild
from tfdistill.compress.low_rank.build import Factors, names_of_parts
from tfdistill.compress.low_rank.factorize import DegenerateFit, require_finite
from tfdistill.compress.low_rank.forms import EmbeddingForm, Form, MatrixForm, Unfit, kernel_of
from tfdistill.compress.low_rank.layers import forms_of, read_elsewhere, why_whole
from tfdistill.compress.low_rank.plan import LowRankLayerPlan, LowRankPlan
from tfdistill.compress.low_rank.ranks import MACS, PARAMETERS, Option, by_budget, by_energy, by_number, why_none
from tfdistill.compress.low_rank.responses import responses
from tfdistill.compress.plan import DONE, IMPOSSIBLE, SKIPPED
from tfdistill.compress.selection import Layers, layers_of_graph, select_values
from tfdistill.compress.step import frozen_note, why_left_out
from tfdistill.errors import ModelError
from tfdistill.graph.flat import FlatGraph, first_free, flat_graph
from tfdistill.graph.macs import macs_of
from tfdistill.graph.opening import is_foreign
from tfdistill.graph.profiling import macs_inside, own_shapes


@dataclasses.dataclass(frozen=True, eq=False)
class Decision:
    """What becomes of the layers of a model.

    Attributes:
        graph: `FlatGraph` of the model.
        layers: Its `Layers`.
        named: Paths of the layers that the user named outright.
        factors: Dict of id of a layer to its `Factors`.
        stays: Share of what a budget counts that stays; 1 without one.
        plan: `LowRankPlan`.
    """

    graph: FlatGraph
    layers: Layers
    named: set
    factors: dict[int, Factors]
    stays: float
    plan: LowRankPlan


def decide(step, model, calibration):
    """Returns the `Decision` of a `LowRank` step for a model."""
    rebuild.require_native(model, "LowRank")
    graph = flat_graph(model)
    layers = layers_of_graph(model, graph)
    methods, named = select_values(layers, step.method, step.layers, step.exclude)
    ranks, outright = select_values(layers, step.rank, step.layers, step.exclude)
    if isinstance(step.rank, dict):
        methods, named = {path: method for path, method in methods.items() if path in ranks}, named | outright
    calls: dict[int, list] = {}
    for call in graph.calls:
        calls.setdefault(id(call.operation), []).append(call)
    macs = _macs(model, graph, calls)
    if step.budget is not None and step.budget[1] == MACS and macs is None:
        raise ModelError(
            f"The multiply-accumulates of '{model.name}' are not known: a size is free at '{first_free(graph)}'.",
            "inputs of fixed sizes, the batch apart",
            "choose by rank=, energy= or keep_parameters=",
        )
    elsewhere, reasons, options = read_elsewhere(graph), {}, []
    for path in methods:  # before they make outputs of no use on the data
        if getattr(layers[path], "weights", None) and why_whole(layers[path], elsewhere) is None:
            require_finite(path, kernel_of(layers[path]).numpy())
    grams = {} if calibration is None else responses(graph, _matrix_forms(layers, methods, calls, elsewhere), calibration)
    for path, layer in layers.items():
        if not getattr(layer, "weights", None):
            continue
        if path not in methods:
            by_method = isinstance(step.method, dict)
            reasons[path] = why_left_out(*(("method", step.method) if by_method else ("rank", step.rank)))
            continue
        reasons[path] = why_whole(layer, elsewhere)
        if reasons[path] is None:
            try:
                forms = forms_of(layer, calls[id(layer)], methods[path], grams)
                options.append(Option(path, forms, None if macs is None else macs[id(layer)], isinstance(forms[0], EmbeddingForm)))
            except Unfit as unfit:
                reasons[path] = unfit.reason
    chosen, stays = _chosen(step, model, options, ranks, macs, reasons)
    factors = _factors(graph, chosen, reasons)
    plan = _plan(step, model, layers, named, macs, factors, reasons)
    return Decision(graph, layers, named, factors, stays, plan)


def _matrix_forms(layers, methods, calls, elsewhere):
    found: list[Form] = []
    for path, method in methods.items():
        layer = layers[path]
        if getattr(layer, "weights", None) and why_whole(layer, elsewhere) is None:
            try:
                found += forms_of(layer, calls[id(layer)], method, {})
            except Unfit:
                continue
    return [form for form in found if isinstance(form, MatrixForm)]


def _macs(model, graph, calls):
    """Returns a dict of id of each operation to the multiply-accumulates of all its calls, 0 where they are not known; None for a graph with free sizes."""
    if first_free(graph) is not None:
        return None

    inside = macs_inside(model, graph)
    counted = {key: sum(macs_of(call.operation, own_shapes(call)) or 0 for call in several) for key, several in calls.items()}
    return {
        key: counted[key] + sum(inside.get(path, (0, True))[0] for path in {call.path for call in several})
        for key, several in calls.items()
    }


def _chosen(step, model, options, ranks, macs, reasons):
    """Returns a dict of path to `Candidate`, and the share of a budget that stays. Reasons against the others are added."""
    if step.budget is not None:
        _, what, share = step.budget
        whole = sum(math.prod(w.shape) for w in model.weights) if what == PARAMETERS else sum(macs.values())
        chosen, stays = by_budget(options, what, whole, share, step.divisor)
        for option in options:
            if option.path not in chosen:
                table = option.looked_up and what == MACS
                reasons[option.path] = (
                    "its table takes no multiply-accumulates"
                    if table
                    else why_none(option, step.divisor, what == MACS) or "not needed for the budget"
                )
        return chosen, stays
    chosen = {}
    for option in options:
        try:
            chosen[option.path] = (
                by_number(option, ranks[option.path]) if step.rank is not None else by_energy(option, step.energy, step.divisor)
            )
        except Unfit as unfit:
            reasons[option.path] = unfit.reason
    return chosen, 1.0


def _factors(graph, chosen, reasons):
    found = {}
    names = names_of_parts(graph, [one.form for one in chosen.values()])
    for path, one in chosen.items():
        key = id(one.form.layer)
        try:
            kernels = one.form.kernels(one.rank)
        except DegenerateFit as error:
            reasons[path] = error.reason
            continue
        found[key] = Factors(one.form, one.rank, kernels, one.form.lost_by(one.rank, kernels), names[key])
    return found


def _plan(step, model, layers, named, macs, factors, reasons):
    rows = []
    for path, layer in layers.items():
        if getattr(layer, "weights", None):
            rows.append(
                _row(path, layer, None if macs is None else macs[id(layer)], factors.get(id(layer)), reasons.get(path), path in named)
            )
    count = sum(math.prod(w.shape) for w in model.weights)
    after = count + sum(row.expected_parameters - row.parameters for row in rows)
    total = None if macs is None else sum(macs.values())
    left = None if total is None else total + sum(row.expected_macs - row.macs for row in rows)
    figures = [("parameters", count, after), ("MACs", total, left)]
    return LowRankPlan(
        step=repr(step),
        model=model.name,
        rows=tuple(rows),
        custom=tuple(f"'{path}': {reasons[path]}" for path, layer in layers.items() if reasons.get(path) and is_foreign(layer)),
        findings=tuple(f"{what}: {a:,} -> {b:,} ({100 * b / max(a, 1):.1f} %)" for what, a, b in figures if a is not None),
        parameters=count,
        expected_parameters=after,
        macs=total,
        expected_macs=left,
    )


def _row(path, layer, macs, factors, reason, named):
    count = sum(math.prod(w.shape) for w in layer.weights)
    if factors is None:
        action = IMPOSSIBLE if named and reason != "not needed for the budget" else SKIPPED
        return LowRankLayerPlan(
            name=path,
            class_name=type(layer).__name__,
            action=action,
            reason=reason or "",
            parameters=count,
            expected_parameters=count,
            expected_nonzero=count,
            macs=macs,
            expected_macs=macs,
            method="",
            rank=(),
            by="",
            part_parameters={},
        )
    form, rank = factors.form, factors.rank
    sizes = [math.prod(kernel.shape) for kernel in factors.kernels]
    sizes[0] += form.beside
    sizes[-1] += count - math.prod(form.kernel_shape) - form.beside
    prefix = path.rpartition("/")[0] + "/" if "/" in path else ""
    parts = {prefix + name: size for name, size in zip([*factors.names[:-1], path[len(prefix) :]], sizes, strict=True)}
    shapes = ", then ".join("x".join(map(str, kernel.shape)) for kernel in factors.kernels)
    return LowRankLayerPlan(
        name=path,
        class_name=type(layer).__name__,
        action=DONE,
        reason="; ".join([f"kernels {shapes}", *frozen_note(layer, "so that no training makes up for it")]),
        parameters=count,
        expected_parameters=sum(sizes),
        expected_nonzero=sum(sizes),
        macs=macs,
        expected_macs=None if macs is None else sum(form.macs(rank, call) for call in form.calls),
        method=form.method,
        rank=tuple(map(int, rank)) if isinstance(rank, tuple) else (int(rank),),
        lost=factors.lost,
        by=form.by,
        part_parameters=parts,
    )
