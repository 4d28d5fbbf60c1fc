"""Operations of a file that its target leaves to slower kernels, and channels that leave vector registers empty."""

from tfdistill.bridge.adopt import introspection
from tfdistill.compress.dry_run import WHOLE
from tfdistill.convert.dry_run import MOVING
from tfdistill.convert.unaligned import ALIGNMENT, next_multiple
from tfdistill.preflight.findings import Finding, first_of, quoted
from tfdistill.runtime.operations import operation_table

# Targets where nothing else runs what they have no kernel for.
_ALONE = ("builtin", "micro")
_ELSEWHERE = {"xnnpack": "the interpreter's own kernels", "gpu": "the processor", "edgetpu": "the processor"}
# Types in which a target may take what it leaves in another one -> a variant of it.
_OTHER_VARIANTS = {"int8": "int8", "float32": "float32"}


def found_in_operations(operations, variant, target, faster_in_float=frozenset(), last=frozenset(), layers=None):
    """Lists the findings about the operations of a file.

    Args:
        operations: Dict of path to the tuple of its `LayerOperation`s, as in `Conversion`; None where there is no file.
        variant: Name of the variant of the file.
        target: Name of the target.
        faster_in_float: Set of the paths of the layers that the target runs faster with `QuantizeAware(integer_only=False)`.
        last: Set of the paths of the layers that compute an output.
        layers: Dict of path to layer; None where they are not known.
    """
    if operations is None:
        return []
    table, left = operation_table(target), {}
    for path, made in operations.items():
        found = [o for o in made if o.kind is not None and o.name != "WHILE" and table.leaves(o.name, o.kind)]
        if found:
            left.setdefault(_group(path, found, faster_in_float, last), {})[path] = found
    if set(left.get("moving", ())) == {WHOLE}:
        del left["moving"]  # between layers, of which nobody can do anything
    findings = [_left(group, found, variant, table) for group, found in left.items()]
    return [*findings, *_unaligned(operations, layers or {})]


def _group(path, found, faster_in_float, last):
    """Returns what can be done about the operations of a layer that the target leaves: one word for one remedy."""
    if path in faster_in_float:
        return "in float"
    if path in last and {operation.name for operation in found} <= {"SOFTMAX", "LOGISTIC"}:
        return "last"
    return "moving" if all(operation.name.split()[0] in MOVING for operation in found) else "computing"


def _left(group, found, variant, table):
    target, every = table.target, [operation for made in found.values() for operation in made]
    names = ", ".join(dict.fromkeys(f"{operation.name} ({operation.kind})" for operation in every))
    layers = [path for path in found if path != WHOLE]
    where = f" of {quoted(layers)}" if layers else ""
    if target in _ALONE:
        severity, happened = "fails", f"The target {target} has no kernel for {names}{where}"
    else:
        severity = "note" if group in ("moving", "last") else "slow"
        happened = f"The target {target} leaves {names}{where} to {_ELSEWHERE[target]}"
    return Finding(severity, "left_by_target", tuple(layers), happened, _fix(group, every, variant, table))


def _fix(group, found, variant, table):
    if group == "in float":
        return f"QuantizeAware(target='{table.target}', integer_only=False) computes it in float within its partitions, which is faster"
    if group == "last":
        return "end in logits, and apply the function to the few numbers of the output on the device"
    for kind, other in _OTHER_VARIANTS.items():
        if other != variant and all(table.takes(operation.name, kind) for operation in found):
            return f"replace it by layers of operations that {table.target} takes, or take variant='{other}', in which it takes these"
    if table.target in _ALONE:
        return f"replace it by layers of operations that {table.target} has; QuantizeAware(target='{table.target}').plan(model) lists those of each layer"
    return "replace it by layers of operations that the target takes; tfdistill.benchmark(path) measures what it costs"


def _unaligned(operations, layers):
    """Lists the layers whose channels are no multiple of `ALIGNMENT`: those that choose them, which a depthwise convolution does not."""
    channels = {
        path: _chosen(layers.get(path)) or found[0]
        for path, made in operations.items()
        if path != WHOLE and (found := [o.unaligned for o in made if o.unaligned and o.name != "DEPTHWISE_CONV_2D"])
    }
    if not channels:
        return []
    first, several = next(iter(channels)), len(channels) > 1
    shown = first_of([f"'{path}' {number}" for path, number in channels.items()])
    return [
        Finding(
            "note",
            "unaligned_channels",
            tuple(channels),
            f"{shown}: {'numbers' if several else 'a number'} of channels that {'are' if several else 'is'} no multiple of {ALIGNMENT}, which leaves a part of the "
            "vector registers empty",
            f"take the next multiple, for '{first}' {next_multiple(channels[first])} in place of {channels[first]}, which costs about the same time",
        )
    ]


def _chosen(layer):
    """Returns the number of units or filters that a layer was made with, where it is no multiple of `ALIGNMENT`: a recurrent layer has several times as many channels."""
    inner = None if layer is None else introspection.computing_layer(layer)
    inner = getattr(inner, "forward_layer", inner)
    number = getattr(inner, "units", None) or getattr(inner, "filters", None)
    return number if isinstance(number, int) and number % ALIGNMENT else None
