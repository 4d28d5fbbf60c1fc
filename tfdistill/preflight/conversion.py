"""What stands against the file of a model, by the conversion that is tried untrained."""

import collections
import typing

from tfdistill.bridge.adopt import introspection
from tfdistill.bridge.adopt.trained_ranges import quantized_layers
from tfdistill.compress.dry_run import WHOLE, try_floats
from tfdistill.compress.plan import IMPOSSIBLE
from tfdistill.compress.quantize import consumers
from tfdistill.compress.quantize.dry_run import try_quantized
from tfdistill.compress.quantize.layer_table import rule_of
from tfdistill.compress.quantize.quantize_aware import QuantizeAware
from tfdistill.compress.quantize.scheme import CALIBRATED, MOST_STEPS
from tfdistill.compress.quantize.tried_plan import tried_plan
from tfdistill.convert.dry_run import CUSTOM, FLEX, FLOAT_ONLY, LOOP, NOT_FINITE, OTHER
from tfdistill.preflight.findings import Finding, quoted
from tfdistill.tflite.inspection.preserved import require_bits_of_variant
from tfdistill.utils.finite import is_finite

_KINDS = {
    FLEX: "tensorflow_only",
    CUSTOM: "custom_operation",
    FLOAT_ONLY: "float_only",
    LOOP: "loop",
    NOT_FINITE: "not_finite",
    OTHER: "not_converted",
}


class Tried(typing.NamedTuple):
    """What a conversion that was tried has shown.

    Attributes:
        findings: List of `Finding`: what stands against the file, and loops in it.
        operations: Dict of path to the tuple of its `LayerOperation`s; None where there is no file.
        faster_in_float: Set of the paths of the layers that the target runs faster with `QuantizeAware(integer_only=False)`.
    """

    findings: list
    operations: dict | None
    faster_in_float: frozenset = frozenset()


class _Cause(typing.NamedTuple):
    """A reason against the file, of one layer or several: a kind of `Finding`, and what happens in them."""

    kind: str
    reason: str
    fix: str


def found_by_conversion(opened, variant, target, cast):
    """Tries the conversion of a model.

    Args:
        opened: `rebuild.Opened` of the model.
        variant: A `Variant`.
        target: Name of the target.
        cast: `Obstacle` of the inputs that are no float32; None where there are none.

    Returns:
        `Tried`.
    """
    broken = _not_finite(opened)
    if quantized_layers(opened.legacy):
        if variant.integer_only:
            require_bits_of_variant(opened.adopted, variant)
        conversion = try_quantized(opened, "int8" if variant.activation_bits == 8 else variant.name)
        return Tried([*broken, *_refused(opened, conversion, {}, cast)], conversion.operations)
    if not variant.integer_only:
        conversion = try_floats(opened, variant.name)
        loops = _float_loops(opened, conversion.operations)
        return Tried([*broken, *_refused(opened, conversion, {}, cast), *loops], conversion.operations)
    tried = tried_plan(QuantizeAware(target=target, activation_bits=variant.activation_bits), opened)
    impossible = {row.name: row.reason for row in tried.plan.rows if row.action == IMPOSSIBLE and row.name in opened.layers}
    findings = [*broken, *_refused(opened, tried.conversion, impossible, cast), *_calibrated_loops(opened, tried.plan)]
    return Tried(findings, tried.conversion.operations, tried.faster_in_float)


def _not_finite(opened):
    """Lists the layers with weights that are NaN or infinite."""
    layers = tuple(path for path, layer in opened.layers.items() if not all(map(_is_finite, introspection.weights_of(layer))))
    if not layers:
        return []
    happened = f"Weights of {quoted(layers)} are NaN or infinite: whatever the file computes with them is, too"
    return [Finding("fails", "not_finite", layers, happened, "begin with finite weights, those of the last epoch that had a finite loss")]


def _is_finite(weight):
    return not weight.dtype.is_floating or is_finite(weight.numpy())


def _refused(opened, conversion, impossible, cast):
    """Lists what stands against the file: the reasons of the layers, those alike together."""
    places = consumers.places(opened.legacy)
    causes, casting = collections.defaultdict(list), False
    for path in dict.fromkeys([*opened.layers, WHOLE]):
        refusals = conversion.refusals.get(path, [])
        if cast and refusals and all(refusal.operation == "CAST" for refusal in refusals):
            casting = True
            continue
        for cause in _causes(places.get(path), refusals, impossible.get(path)):
            causes[cause] += [path] if path != WHOLE else []
    found = [Finding.of_error("fails", "cast_input", cast.layers, cast.error)] if casting else []
    return found + [Finding("fails", cause.kind, tuple(paths), _told(cause, paths), cause.fix) for cause, paths in causes.items()]


def _causes(place, refusals, impossible):
    """Lists the `_Cause`s of a layer.

    Args:
        place: Its `Place`; None for the model.
        refusals: List of its `Refusal`s.
        impossible: Why the plan calls it impossible; None where it does not.
    """
    if place is not None and (impossible or refusals) and rule_of(introspection.kind_of(place.layer)).recurrent:
        reason = impossible or refusals[0].reason
        if place.length is None and refusals and refusals[0].kind == OTHER:  # the converter's text is about lists of tensors
            reason = f"TFLite runs this {introspection.kind_of(place.layer)} as a loop, which its converter cannot make of any length"
        return [_Cause("loop", reason, _fix_of_loop(place))]
    lacking = [refusal for refusal in refusals if refusal.kind in (FLEX, CUSTOM)]
    if impossible and not lacking:
        kind = refusals[0].kind if refusals else FLOAT_ONLY
        return [_Cause(_KINDS[kind], impossible, _fix_of(kind))]
    return [_Cause(_KINDS[refusal.kind], refusal.reason, _fix_of(refusal.kind)) for refusal in lacking or refusals]


def _told(cause, paths):
    return f"{quoted(paths)}: {cause.reason}" if paths else f"The model: {cause.reason}"


def _fix_of(kind):
    if kind == FLEX:
        return "replace it by operations that TFLite has; a float variant can also be exported with allow_flex=True, for an interpreter that has TensorFlow's"
    if kind == CUSTOM:
        return "write it with keras.ops: no interpreter has Python functions or operations of other libraries"
    if kind == FLOAT_ONLY:
        return "replace it by what TFLite computes in integers, or take a variant of floats: 'dynamic_range', 'float16' or 'float32'"
    if kind == LOOP:
        return (
            "replace the loop by layers that take all steps at once, or take a variant of floats: 'dynamic_range', 'float16' or 'float32'"
        )
    if kind == NOT_FINITE:
        return "keep it finite: add a small number to what is divided by, or of which a logarithm or root is taken"
    return "replace it by others that compute the same, of layers and keras.ops that take a batch of 1"


def _fix_of_loop(place):
    if place.length is None:
        return f"give the model a fixed number of steps, keras.Input((steps, ...)): up to {MOST_STEPS} are written out in the file"
    return f"QuantizeAware(unroll=True) writes its {place.length} steps out in the file; or give the model at most {MOST_STEPS} steps"


def _calibrated_loops(opened, plan):
    """Lists the recurrent layers whose ranges cannot be trained, as the file has one operation for all steps."""
    places = consumers.places(opened.legacy)
    return [
        Finding("inexact", "loop", (row.name,), f"'{row.name}': {row.reason}", _fix_of_loop(places[row.name]))
        for row in plan.rows
        if row.action != IMPOSSIBLE and CALIBRATED in row.reason and rule_of(row.class_name).recurrent
    ]


def _float_loops(opened, operations):
    """Lists the layers that are loops in a file of floats."""
    loops = [path for path, made in (operations or {}).items() if any(operation.name == "WHILE" for operation in made)]
    if WHOLE in loops:  # the converter takes the names away from most of them
        loops += [path for path, layer in opened.layers.items() if rule_of(introspection.kind_of(layer)).recurrent and path not in loops]
    if not loops:
        return []
    layers = tuple(path for path in loops if path != WHOLE)
    return [
        Finding(
            "slow",
            "loop",
            layers,
            f"The file runs {quoted(layers) or 'a part of the model'} as a loop over single operations, outside of what accelerators take",
            "write its steps out in the file: by unroll=True of a recurrent layer of fixed length, or by a Python loop in a call of your own",
        )
    ]
