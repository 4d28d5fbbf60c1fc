"""Why a file runs on no device that has a kit, or not on one of them, and what would do."""

import typing

from tfdistill.convert.layer_operations import DENSE_OF_FOUR_BITS

_NUMBERS = ("float32", "float16", "float64", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "bool")


class Obstacle(typing.NamedTuple):
    """Why a device does not run a file.

    Attributes:
        happened: What the device cannot do, with the operation or the tensor.
        fix: What would do; empty if nothing is known.
    """

    happened: str
    fix: str = ""


def general_refusals(report, layout):
    """Lists what no kit's runtime has.

    Args:
        report: The `FileInspection` of the file.
        layout: What `read_layout` returned for it.

    Returns:
        List of `Obstacle`.
    """
    found = []
    if report.census.flex_ops:
        found.append(
            Obstacle(
                f"it has operations of full TensorFlow: {', '.join(report.census.flex_ops)}",
                fix="export it without allow_flex=True; a fixed batch_size takes out most of them",
            )
        )
    custom = [op.name for op in report.census.ops if op.custom and not op.flex]
    if custom:
        found.append(
            Obstacle(
                f"it has custom operations: {', '.join(custom)}", fix="write the layers that they come from with Keras's own operations"
            )
        )
    for side in ("inputs", "outputs"):
        tensors = getattr(report.census, side)
        twice = sorted({t.name for t in tensors if [other.name for other in tensors].count(t.name) > 1})
        if twice:
            found.append(Obstacle(f"several of its {side} are called '{twice[0]}'"))
        strange = [f"'{t.name}' {t.dtype}" for t in tensors if t.dtype not in _NUMBERS]
        if strange:
            found.append(Obstacle(f"its {side} are no numbers that a program has: {', '.join(strange)}"))
    if not report.census.inputs:
        found.append(Obstacle("it has no inputs"))
    # A batch that is not fixed runs as the file stands, which is with one sample.
    free = {tensor["tensor"]: [axis for axis in tensor["free_axes"] if axis > 0] for tensor in layout["inputs"]}
    found += [free_size(name, axes) for name, axes in free.items() if axes]
    return found


def free_size(name, axes):
    """Returns the `Obstacle` of an input with axes whose size is not fixed."""
    return Obstacle(
        f"the size of '{name}' is not fixed (axis {', '.join(map(str, axes))})",
        fix="export the model with keras.Input(batch_shape=...) and every size in it, and batch_size=1",
    )


def lacking(report, runtime):
    """Lists the `Obstacle` of a runtime that does not have operations of a file; empty if it has all.

    Args:
        report: The `FileInspection` of the file.
        runtime: One of `tfdistill.runtime.versions.RUNTIMES`.
    """
    if not report.runtimes[runtime]:
        return []
    return [Obstacle(f"{runtime} lacks {', '.join(report.runtimes[runtime])}", fix=_other_variant(report))]


def _other_variant(report):
    """Returns what would run in a runtime, for a file with operations that it does not have."""
    if any(DENSE_OF_FOUR_BITS in lacks for lacks in report.runtimes.values()):
        return "export it with runtime='tflite-micro': dense layers with weights of 4 bits then have one scale"
    if any(operation.kind == "int4" for operation in report.operations):
        return "take the variant int8_int4_mixed or int8: it makes no floats of weights of 4 bits"
    if any(operation.kind == "dynamic" for operation in report.operations):
        return "take the variant int8: it has no operations of mixed types"
    return "replace the layers that they come from; tfdistill.check(model, target='micro') names them"
