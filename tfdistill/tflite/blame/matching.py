"""Finds the tensor of a .tflite file that holds the output of each layer: by the names that the converter writes, or else by the values."""

import re
import typing

import numpy as np

# A tensor without a layer's name is taken for a layer's output if the two go together this closely, and no others do more closely.
CORRELATED = 0.95


class Match(typing.NamedTuple):
    """The tensor that holds the output of a call.

    Attributes:
        tensor: Index of the tensor in the file.
        by: How it was found: `"output"` of the model, `"name"` or `"values"`.
    """

    tensor: int
    by: str


def matches(calls, makers, outputs, tensors, floats, values):
    """Finds the tensor of each call.

    Args:
        calls: List of `Call`.
        makers: Names of the calls that compute the model's outputs, as in `LayerCalls`.
        outputs: Indices of the file's tensors for these outputs.
        tensors: List of `ComputedTensor` of the file.
        floats: Dict of the name of a call -> array (samples, ...), what it computes in float.
        values: Dict of the index of a tensor -> array of as many samples, real values.

    Returns:
        Dict of the name of a call -> `Match`, without the calls that are a part of a fused operation.
    """
    sizes = {index: array[0].size for index, array in values.items()}
    own = {call.name: call.size for call in calls}
    found = {
        maker: Match(index, "output")
        for maker, index in zip(makers, outputs, strict=True)
        if maker is not None and sizes.get(index) == own[maker]
    }
    free = [t for t in tensors if t.index in values and t.index not in outputs and not t.is_conversion]
    claimed = _claims(calls, free, sizes)
    for path in dict.fromkeys(call.path for call in calls):
        several = [call for call in calls if call.path == path and call.name not in found]
        _assign(
            several, [t.index for t in claimed.get(path, ()) if t.index not in {m.tensor for m in found.values()}], floats, values, found
        )
    named = {t.index for ts in claimed.values() for t in ts}
    _by_values([c for c in calls if c.name not in found], [t.index for t in free if t.index not in named], floats, values, found)
    return found


def _claims(calls, tensors, sizes):
    """Dict of path -> the tensors that bear its name, in the order of the file.

    A tensor of a fused operation belongs to the last of the layers that it names. Keras numbers the scope of a layer that is called under a name that
    was used before: whether the file has such numbers is what gives more layers a tensor of their size.
    """
    order = {}
    for place, call in enumerate(calls):
        order.setdefault(call.path, place)
    wanted = {call.path: call.size for call in calls}
    scopes = {tuple(_plain(part) for part in path.split("/")): path for path in order}
    best = (-1, {})
    for strip in (_as_it_is, _numbered, _perhaps_numbered(scopes)):
        claimed = {}
        for tensor in tensors:
            owners = [path for path in (_owner(name, scopes, strip) for name in tensor.names) if path is not None]
            if owners:
                claimed.setdefault(max(owners, key=order.get), []).append(tensor)
        score = sum(any(sizes[t.index] == wanted[path] for t in ts) for path, ts in claimed.items())
        if score > best[0]:
            best = score, claimed
    return best[1]


def _owner(name, scopes, strip):
    """Returns the path of the innermost layer that a name of a tensor begins with, wherever the scopes of the model around it end; None if it has none."""
    parts = name.partition(";")[0].split("/")[:-1]
    parts = [part.removeprefix("quant_") for part in parts]
    for start in range(len(parts)):
        for end in range(len(parts), start, -1):
            if path := scopes.get(tuple(strip(part) for part in parts[start:end])):
                return path
    return None


def _as_it_is(part):
    return part


def _numbered(part):
    return re.sub(r"_\d+$", "", part)


def _perhaps_numbered(scopes):
    known = {part for scope in scopes for part in scope}
    return lambda part: part if part in known else _numbered(part)


def _plain(part):
    """A name as TensorFlow writes it into a scope."""
    return re.sub(r"[^A-Za-z0-9_.\\-]", "_", part)


def _assign(calls, candidates, floats, values, found):
    """Gives each call of one layer the last tensor of its size; of several calls, each the tensor that is nearest to it."""
    for call in calls:
        fitting = [i for i in candidates if values[i][0].size == call.size and i not in {m.tensor for m in found.values()}]
        if not fitting:
            continue
        if len(calls) > 1:
            fitting.sort(key=lambda i: -_distance(floats[call.name], values[i]))
        found[call.name] = Match(fitting[-1], "name")


def _by_values(calls, candidates, floats, values, found):
    pairs = [(_correlation(floats[c.name], values[i]), c.name, i) for c in calls for i in candidates if values[i][0].size == c.size]
    taken = set()
    for correlation, name, index in sorted(pairs, key=lambda pair: -pair[0]):
        if correlation < CORRELATED:
            break
        if name not in found and index not in taken:
            found[name] = Match(index, "values")
            taken.add(index)


def _distance(a, b):
    return float(np.square(a.reshape(-1).astype(np.float64) - b.reshape(-1)).sum())


def _correlation(a, b):
    a, b = (x.reshape(-1).astype(np.float64) for x in (a, b))
    a, b = a - a.mean(), b - b.mean()
    size = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / size) if size > 0 else -1.0
