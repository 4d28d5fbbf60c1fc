"""Shortens the names of a .tflite file's tensors, which can be a third of a small file: the converter joins those of all operations that it fuses."""

import collections
import re
import string

from tfdistill.convert.parsed_file import listed

# So many tensors of one layer whose names differ in a number only are those of the steps of a sequence: they are named by the layer and a number alone.
_STEPS = 16
# So many letters of the layer's path are left in them, and the digits of their numbers: a name takes 12 bytes then. The others have all of it.
_LETTERS, _DIGITS = 4, string.digits + string.ascii_lowercase + string.ascii_uppercase


def shorten_names(model):
    """Gives the tensors of a parsed file short names, which begin with the user's name of the layer: `conv/Conv2D`.

    Inputs and outputs get the names that the converter gives those of a float file: `serving_default_NAME:0` and `StatefulPartitionedCall:INDEX`. All names of a
    graph are different: there are readers that tell tensors apart by them (OpenVINO, litert-quantizer). Of the many tensors of a sequence, the last one of each
    shape, such as the layer's output, has the whole path of the layer in its name, and all others the first letters of it: `encoder/forward_lstm/9k`, `enco/8Z`.

    Args:
        model: `ModelT` of the schema; it is changed.
    """
    for index, graph in enumerate(model.subgraphs):
        given = _given_names(model, index, graph)
        shapes = [tuple(listed(tensor.shape)) for tensor in graph.tensors]
        made = [place for operator in graph.operators or [] for place in listed(operator.outputs)]
        names = _short([_text(tensor.name) for tensor in graph.tensors], given, shapes, made)
        for tensor, name in zip(graph.tensors, names, strict=True):
            tensor.name = name.encode()


def _given_names(model, index, graph):
    """Returns a dict of tensor -> name of the inputs and outputs of a graph that has a signature."""
    given = {}
    for signature in model.signatureDefs or []:
        if signature.subgraphIndex == index:
            given |= {entry.tensorIndex: f"serving_default_{_text(entry.name)}:0" for entry in signature.inputs or []}
            given |= {tensor: f"StatefulPartitionedCall:{place}" for place, tensor in enumerate(graph.outputs) if tensor not in given}
    return given


def _short(names, given, shapes, made):
    """Returns a short name for each of a graph's tensors.

    Args:
        names: Their names.
        given: Dict of tensor -> name that it has to have.
        shapes: Their shapes.
        made: Tensors in the order in which operations write them.
    """
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
    return _numbered(found, given, shapes, made)


def _numbered(names, given, shapes, made):
    """Returns the names with a number where there would be two of one; `LAYER/NUMBER` for the many tensors of a sequence."""
    kinds = [re.sub(r"(?<=/)([^/]+?)_?\d+$", r"\1", name) for name in names]
    many = {kind for kind, count in collections.Counter(kinds).items() if "/" in kind and count > _STEPS}
    paths = {place: _path(kind) for place, kind in enumerate(kinds) if kind in many and place not in given}
    # What is written last is what a dict keeps.
    whole = {*{(paths[place], shapes[place]): place for place in made if place in paths}.values()}
    letters = _letters(set(paths.values()), {part for name in names for part in name.split("/")})
    used, counts, found = set(given.values()), collections.Counter(), []
    for place, name in enumerate(names):
        if place in given:
            found.append(name)
            continue
        path = paths.get(place)
        stem = f"{name}." if path is None else f"{path if place in whole else letters[path]}/"
        new = name if path is None and name not in used else None
        while new is None or new in used:
            counts[stem] += 1
            new = f"{stem}{counts[stem] if path is None else _compact(counts[stem])}"
        used.add(new)
        found.append(new)
    return found


def _path(kind):
    """The path of a layer in the name of an operation of its cell."""
    parts = kind.split("/")
    return "/".join(parts[:-2] or parts[:1])


def _letters(paths, names):
    """Returns a dict of path -> its first letters, which are no other layer's name: what bears that is taken for the layer's.

    Args:
        paths: Paths of layers.
        names: All parts of the names of all tensors.
    """
    found = {}
    for path in sorted(paths):
        others, own = names - {*path.split("/")}, path
        for count in range(min(_LETTERS, len(path) - 1), 0, -1):
            if (first := path[:count].split("/")[0].rstrip("_")) and first not in others | set(found.values()):
                own = first
                break
        found[path] = path if len(path) <= _LETTERS else own
    return found


def _compact(number):
    """Writes a number in digits and letters."""
    text = ""
    while number:
        number, last = divmod(number, len(_DIGITS))
        text = _DIGITS[last] + text
    return text


def _text(name):
    return (name or b"").decode("utf-8", errors="replace")
