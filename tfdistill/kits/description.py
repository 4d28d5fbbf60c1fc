"""What `model.json` of a kit says: all that a program needs to feed the file right, without a parser of its tables."""

import math

from tfdistill.convert.census import read_error
from tfdistill.errors import ConfigurationError, nearest
from tfdistill.host import fingerprint
from tfdistill.runtime.probe import probe
from tfdistill.tflite.metadata.settings import TEXTS, FileMetadata, Normalization
from tfdistill.tflite.metadata.write import fitted
from tfdistill.version import __version__

FORMAT = 1
MODEL, LABELS, DESCRIPTION = "model.tflite", "labels.txt", "model.json"


class Description(dict):
    """The values of `model.json`.

    Attributes:
        content: The bytes of the model.
        vectors: Dict of path in the kit -> bytes, of the test vectors.
        layout: What `read_layout` returned.
        operations: Names of the operations of the file, each once.
        apart: Dict of output name -> largest difference between the outputs of the vectors and those of LiteRT, where other kernels made them.
        limits: Dict of `arena_bytes` and `flash_bytes` -> what the device has; None where it was not said.
    """

    def __init__(self, values, content, layout, operations, limits):
        super().__init__(values)
        self.content, self.layout, self.operations, self.limits = content, layout, operations, limits
        self.vectors, self.apart = {}, {}


def layout_of(file):
    """Returns what `read_layout` finds in a `ModelFile`, read in another process.

    Raises:
        ExportError: if it is not a complete .tflite file.
    """
    return probe(file, "tfdistill.kits.layout:read_layout", None, read_error(file))


def describe(file, report, layout, *, labels=None, normalization=None, states=None, limits=None):
    """Describes a file, as the kits read it.

    Args:
        file: A `ModelFile`.
        report: Its `FileInspection`.
        layout: What `layout_of` returned.
        labels: Names of the classes, for a file that does not have them inside.
        normalization: A `Normalization`, or dict of input name -> one, for a file that does not have it inside.
        states: Dict of the name of an input -> name of the output whose value it gets in the next run; None for what the file says.
        limits: As in `Description`.

    Returns:
        A `Description` without vectors.

    Raises:
        ConfigurationError: if what is given does not fit the file, or contradicts what the file says.
    """
    counted, about = report.census, report.described
    pairs = _states(states, about, counted)
    normal, named = _given(labels, normalization, counted, about, file.path)
    inputs = [_input(tensor, place, normal, about, pairs) for tensor, place in zip(counted.inputs, layout["inputs"], strict=True)]
    outputs = [_output(tensor, place, named, pairs) for tensor, place in zip(counted.outputs, layout["outputs"], strict=True)]
    scored = next((tensor["name"] for tensor in outputs if tensor["name"] in named), None)
    if all(tensor["kind"] == "state" for tensor in inputs):
        raise ConfigurationError(f"'{file.path}' has no input beside its states {list(pairs)}.", "a file with an input")
    values = {
        "format": FORMAT,
        "file": MODEL,
        "sha256": file.sha256,
        "size_bytes": len(file.content),
        "variant": _variant(report),
        "signatures": layout["signatures"],
        "inputs": inputs,
        "outputs": outputs,
        "labels": None if scored is None else list(named[scored]),
        "states": [{"input": name, "output": pairs[name]} for name in pairs],
        "arena_bytes": None,
        "min_runtime_version": counted.min_runtime_version or None,
        "metadata": {text: getattr(about, text) for text in TEXTS if about is not None and getattr(about, text)},
        "vectors": [],
        "tolerance": {},
        "made_with": {"tfdistill": __version__, "ai-edge-litert": fingerprint().packages.get("ai-edge-litert", ""), "kernels": ""},
    }
    operations = list(dict.fromkeys(operation.name for operation in report.operations))
    return Description(values, file.content, layout, operations, limits or {})


def _states(states, about, counted):
    inputs, outputs = ({tensor.name: tensor for tensor in side} for side in (counted.inputs, counted.outputs))
    if states is None:
        said = ((about.provenance if about else {}).get("export") or {}).get("states") or {}
        said = {each.get("input"): each.get("output") for each in said if isinstance(each, dict)} if isinstance(said, list) else said
        # Whatever another program wrote there: only what fits the file counts.
        fits = isinstance(said, dict) and set(said) <= set(inputs) and all(isinstance(o, str) and o in outputs for o in said.values())
        states = said if fits else {}
    for name, output in states.items():
        for side, key, there in (("input", name, inputs), ("output", output, outputs)):
            if key not in there:
                raise ConfigurationError(
                    f"states has '{key}', which is no {side} of the file.", f"of {sorted(there)}", nearest(str(key), there)
                )
        read, made = ((t.shape, t.dtype, t.scale, t.zero_point) for t in (inputs[name], outputs[output]))
        if read != made:
            raise ConfigurationError(
                f"The state '{name}' is read as {_form(read)} and made as {_form(made)}, so its bytes cannot be passed on.",
                "the same shape, type, scale and zero point on both sides",
            )
    return dict(states)


def _form(parts):
    shape, dtype, scale, zero = parts
    return f"{dtype}{list(shape)}" + (f" (scale {scale:g}, zero point {zero})" if scale is not None else "")


def _given(labels, normalization, counted, about, path):
    """Returns (dict of input name -> `Normalization`, dict of output name -> labels) of the file and of what was given."""
    given = FileMetadata(labels=() if labels is None else labels, normalization=normalization)
    inputs = {tensor.name: (tensor.shape, tensor.dtype) for tensor in counted.inputs}
    normal, named = fitted(given, inputs, {tensor.name: tensor.shape for tensor in counted.outputs}, f"'{path}'")
    said = {} if about is None else about.labels
    for name, names in named.items():
        if name in said and tuple(said[name]) != tuple(names):
            raise ConfigurationError(
                f"The labels given for '{name}' are others than those in '{path}': {list(names)[:3]} and {list(said[name])[:3]} are the first.",
                "one list of labels",
                "leave labels= out, or write them into the file first: tfdistill.add_metadata(path, metadata, replace=True)",
            )
    found = {} if about is None else {name: each for name, each in about.inputs.items() if each.mean}
    for name, how in normal.items():
        if name in found and (found[name].mean, found[name].std) != (how.mean, how.std):
            raise ConfigurationError(
                f"The normalization given for '{name}' is another than that in '{path}', ({found[name].mean}, {found[name].std}).",
                "one normalization",
                "leave normalization= out, or write it into the file first: tfdistill.add_metadata(path, metadata, replace=True)",
            )
    kinds = {name: Normalization(each.mean, each.std, "image" if each.image else "features") for name, each in found.items()}
    return {**kinds, **normal}, {**said, **named}


def _input(tensor, place, normal, about, pairs):
    how = normal.get(tensor.name)
    said = about is not None and tensor.name in about.inputs and about.inputs[tensor.name].image is not None
    values = _tensor(tensor, place)
    seems = looks_like_image(tensor.shape, tensor.dtype) and holds_pixels(values)
    kind = "state" if tensor.name in pairs else "image" if said or (how.kind == "image" if how else seems) else "tensor"
    return {**values, "kind": kind, "normalization": None if how is None else {"mean": list(how.mean), "std": list(how.std)}}


def looks_like_image(shape, dtype):
    """Whether an input of which nothing is said has the shape of a photograph: square, of one or three channels."""
    return len(shape) == 4 and shape[-1] in (1, 3) and shape[1] == shape[2] > 3 and dtype in ("float32", "uint8", "int8", "int16")


def holds_pixels(tensor):
    """Whether the range of a tensor of `model.json` is that of pixels, 0 to 255, and not a small part of it."""
    return real_range(tensor)[1] >= 64


def _output(tensor, place, named, pairs):
    """Describes an output. Scores have labels or come from a softmax; what else an output of numbers means is not guessed."""
    kind = "state" if tensor.name in pairs.values() else "scores" if tensor.name in named or place["activation"] == "softmax" else "tensor"
    ending = {"softmax": "softmax", "sigmoid": None}.get(place["activation"], "none")
    return {**_tensor(tensor, place), "kind": kind, "activation": ending if kind == "scores" else None}


def _tensor(tensor, place):
    return {
        "name": tensor.name,
        "tensor": place["tensor"],
        "shape": list(tensor.shape),
        "dtype": tensor.dtype,
        "scale": tensor.scale,
        "zero_point": tensor.zero_point,
    }


def _variant(report):
    said = ((report.described.provenance if report.described else {}).get("export") or {}).get("variant")
    if isinstance(said, str):
        return said
    kinds = {operation.kind for operation in report.operations}
    if any(kernel.bits == 4 for kernel in report.census.kernels):
        return "int8_int4_mixed" if kinds & {"int8", "uint8"} else "int4_weights"
    for kind, variant in (("int16", "int16x8"), ("int8", "int8"), ("uint8", "uint8"), ("dynamic", "dynamic_range")):
        if kind in kinds:
            return variant
    return "float16" if "float16" in report.census.dtypes else "float32"


def real_range(tensor):
    """Returns the least and the largest real value that a quantized tensor of `model.json` can hold; infinities for one of floats."""
    limits = {"int8": (-128, 127), "uint8": (0, 255), "int16": (-32768, 32767)}.get(tensor["dtype"])
    if limits is None or tensor["scale"] is None:
        return -math.inf, math.inf
    return tuple((limit - tensor["zero_point"]) * tensor["scale"] for limit in limits)
