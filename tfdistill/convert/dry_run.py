"""Converts a graph that nobody has trained, only to see what the export of the trained one would refuse, and which layers that comes from."""

import dataclasses
import pathlib

import numpy as np

from tfdistill.convert.census import TRANSLATORS, census
from tfdistill.convert.converter import convert_traced
from tfdistill.convert.layer_operations import layers_in
from tfdistill.convert.samples import Samples
from tfdistill.errors import DataError, ExportError, InvariantError, ModelError
from tfdistill.runtime.operations import operation_table
from tfdistill.utils.files import temporary_folder
from tfdistill.utils.progress import progress

# A loop, and calls of functions that may hold one.
_LOOPS = ("While", "StatelessWhile", "PartitionedCall", "StatefulPartitionedCall")
# Operations that move elements about: in float only because what they move is.
MOVING = frozenset(
    [
        "BROADCAST_TO",
        "CONCATENATION",
        "EXPAND_DIMS",
        "GATHER",
        "PACK",
        "PAD",
        "PADV2",
        "RESHAPE",
        "SLICE",
        "SPLIT",
        "SPLIT_V",
        "SQUEEZE",
        "STRIDED_SLICE",
        "TRANSPOSE",
        "UNPACK",
    ]
)
# Kinds of refusals: an operation that only TensorFlow has, one that nobody has, one that TFLite has for floats only, a loop, numbers that are not finite, and all else.
FLEX, CUSTOM, FLOAT_ONLY, LOOP, NOT_FINITE, OTHER = "flex", "custom", "float only", "loop", "not finite", "other"
# The converter's codes of errors about operations that TFLite lacks: those that need TensorFlow, and those that would be custom ones.
_LACKING = {1: FLEX, 2: CUSTOM}


@dataclasses.dataclass(frozen=True)
class Refusal:
    """What stands against the file of a model.

    Attributes:
        layers: Index of the layer that it comes from, in a tuple, which is empty where that is not known.
        reason: What TFLite cannot do.
        kind: `FLEX`, `CUSTOM`, `FLOAT_ONLY`, `LOOP`, `NOT_FINITE` or `OTHER`.
        operation: Name of the operation that it is about; empty where it is about none.
    """

    layers: tuple[int, ...]
    reason: str
    kind: str = OTHER
    operation: str = ""


def refusals(trace, specs, name, variant, batch_size=1, calibrated=frozenset(), look=None, floats=frozenset()):
    """Converts a graph as export would, with one random sample for what has no range, and lists why its file could not be made.

    Args:
        trace: Function that returns the concrete function; every layer is called under its
            `tfdistill.convert.layer_operations.scope_of`.
        specs: List of the `tf.TensorSpec`s of its inputs. Axes of any length get a few elements in the sample.
        name: Name of the model, for messages.
        variant: The `Variant` of the file; its inputs and outputs have the types that `io="auto"` gives them.
        batch_size: Batch size of the file; None leaves it free.
        calibrated: Set of the indices of layers that have no ranges by intention. Ranges that are assumed and ranges that one sample gives do not agree
            where such a layer begins or ends, as those of training and of real samples do; that is no refusal.
        look: Function of the file's bytes, which is called if the conversion succeeds; None for none.
        floats: Set of the indices of layers that have a part in float by intention.

    Returns:
        Tuple of `Refusal`s; empty if the file can be made.
    """

    traced = []

    def keep():
        traced.append(trace())
        return traced[-1]

    def attempt(samples):
        return convert_traced(keep, name, variant, variant.io[0], samples, batch_size)

    with progress(f"trying the {variant.name} conversion of '{name}'"):
        try:
            content = attempt(_sample(specs) if variant.integer_only and not floats else None)
        except ModelError as error:  # a loop
            nodes = traced[-1].graph.as_graph_def().node
            return (Refusal(_layers([node.name for node in nodes if node.op in _LOOPS]), error.happened, LOOP),)
        except InvariantError as error:
            return (Refusal(_layers([error.happened]), "it computes NaN or infinite numbers, which have no range", NOT_FINITE),)
        except ExportError as error:
            return _from_error(error, lambda: attempt(None), variant, calibrated, floats)
        if look is not None:
            look(content)
        return _from_file(content, variant, calibrated, floats)


def _sample(specs):
    rng = np.random.default_rng(0)
    # From 0 to 1: as indices these are 0, which every table has.
    arrays = {s.name: rng.random([8 if n is None else n for n in s.shape]).astype(s.dtype.as_numpy_dtype) for s in specs}
    return Samples({key: array[:1] for key, array in arrays.items()}, None, 1, np.arange(1))


def _from_error(error, without_samples, variant, calibrated, by_choice):
    """Finds the layers behind a failed conversion: the converter names operations that TFLite lacks, but not those that it has in float only."""
    cause = error.__cause__
    lacking = [
        Refusal(_layers([frame.name for frame in found.location.call]), f"TFLite has no {name}", _LACKING[found.error_code], name)
        for found in getattr(cause, "errors", None) or []
        if found.location.call and found.error_code in _LACKING
        for name in [_plain(found.operator.name)]
    ]
    if lacking:
        return tuple(dict.fromkeys(lacking))
    text = f"{error.happened}\n{cause or ''}"
    if variant.integer_only:
        # A float tensor among integers can stop the converter with an error about the layer behind it.
        try:
            floats = _from_file(without_samples(), variant, by_choice=by_choice)
        except (DataError, ExportError):  # nothing has a range, or not even float operations are there
            floats = ()
        if calibrated and floats:
            return tuple(found for found in floats if found.layers and found.layers[0] not in calibrated)
        if any(found.layers for found in floats):
            return floats
    lines = [line for line in text.splitlines() if "error:" in line]
    reason = next((line.partition("error: ")[2] for line in lines), (str(cause or "").strip() or error.happened).splitlines()[0])
    return (Refusal(_layers(lines), f"the converter fails: {reason[:300]}"),)


def _from_file(content, variant, calibrated=frozenset(), by_choice=frozenset()):
    with temporary_folder() as folder:
        path = pathlib.Path(folder) / "tried.tflite"
        path.write_bytes(content)
        contents = census(path, trusted=True)
    if contents.flex_ops:
        return tuple(Refusal((), f"TFLite has no {name}", FLEX, name) for name in map(_plain, contents.flex_ops))
    by_intention = (lambda name: not by_choice.isdisjoint(layers_in(name))) if by_choice else None
    stray = contents.stray_floats(by_intention=by_intention) if variant.integer_only else ()
    computed = [t for t in stray if t.made_by not in {*TRANSLATORS, "input", "constant", "nothing"}]
    causes = [t for t in computed if t.made_by not in MOVING] or computed
    # What only feeds an operation that has no integers is left in float with it.
    causes = [t for t in causes if not operation_table("builtin").takes(t.made_by, "int8")] or causes
    found = [Refusal(_layers([t.name]), f"TFLite computes its {t.made_by} in float only", FLOAT_ONLY, t.made_by) for t in causes]
    if not found and not calibrated:
        found = [
            Refusal(_layers([t.name]), f"the converter leaves a float tensor between {t.made_by} and {(*t.used_by, 'nothing')[0]}")
            for t in stray
        ]
    return tuple(dict.fromkeys(found))


def _layers(texts):
    """Returns the index of the first layer that texts name, in a tuple; an empty one if they name none. What is fused is named last operation first."""
    return tuple(index for text in texts for index in layers_in(text))[:1]


def _plain(operation):
    return operation.removeprefix("tf.").removeprefix("Flex")
