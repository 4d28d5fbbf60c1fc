"""Shortens the names of a .tflite file's tensors, which can be a third of a small file: the converter joins those of all operations that it fuses."""

import collections
import re

# So many tensors of one layer whose names differ in a number only are those of the steps of a sequence: they are named by the layer and a number alone.
_STEPS = 16


def shorten_names(model):
    """Gives the tensors of a parsed file short names, which begin with the user's name of the layer: `conv/Conv2D`.

    Inputs and outputs get the names that the converter gives those of a float file: `serving_default_NAME:0` and `StatefulPartitionedCall:INDEX`. All names of a
    graph are different: there are readers that tell tensors apart by them (OpenVINO, litert-quantizer).

    Args:
        model: `ModelT` of the schema; it is changed.
    """
    for index, graph in enumerate(model.subgraphs):
        given = _given_names(model, index, graph)
        for tensor, name in zip(graph.tensors, _short([_text(tensor.name) for tensor in graph.tensors], given), strict=True):
            tensor.name = name.encode()


def _given_names(model, index, graph):
    """Returns a dict of tensor -> name of the inputs and outputs of a graph that has a signature."""
    given = {}
    for signature in model.signatureDefs or []:
        if signature.subgraphIndex == index:
            given |= {entry.tensorIndex: f"serving_default_{_text(entry.name)}:0" for entry in signature.inputs or []}
            given |= {tensor: f"StatefulPartitionedCall:{place}" for place, tensor in enumerate(graph.outputs) if tensor not in given}
    return given


def _short(names, given):
    """Returns a short name for each of a graph's tensors."""
    parts = [name.partition(";")[0].split("/") for name in names]
    scopes = [part for place, part in enumerate(parts) if place not in given and len(part) > 2]
    shared = 0
    while scopes and all(len(part) > shared + 2 and part[shared] == scopes[0][shared] for part in scopes):
        shared += 1
    head, found = scopes[0][:shared] if scopes else [], []
    for place, part in enumerate(parts):
        if place in given:
            found.append(given[place])
            continue
        kept = part[shared:] if part[:shared] == head else part
        name = "/".join(word for i, word in enumerate(kept) if i == 0 or word != kept[i - 1].removeprefix("quant_"))
        found.append(re.sub(r"(^|/)quant_", r"\1", name))
    return _numbered(found, given)


def _numbered(names, given):
    """Returns the names with a number where there would be two of one; `LAYER/NUMBER` for the many tensors of a sequence."""
    kinds = [re.sub(r"(?<=/)([^/]+?)_?\d+$", r"\1", name) for name in names]
    many = {kind for kind, count in collections.Counter(kinds).items() if "/" in kind and count > _STEPS}
    used, counts, found = set(given.values()), collections.Counter(), []
    for place, (name, kind) in enumerate(zip(names, kinds, strict=True)):
        if place in given:
            found.append(name)
            continue
        parts = kind.split("/")  # of a layer, of its cell, and of an operation
        stem = f"{'/'.join(parts[:-2] or parts[:1])}/" if kind in many else f"{name}."
        new = name if kind not in many and name not in used else None
        while new is None or new in used:
            counts[stem] += 1
            new = f"{stem}{counts[stem]}"
        used.add(new)
        found.append(new)
    return found


def _text(name):
    return (name or b"").decode("utf-8", errors="replace")
