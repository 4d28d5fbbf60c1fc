"""Finds blocks that repeat in a chain: parts of a graph that turn one tensor into another one, in equal layers of equal sizes, several times in a row."""

import collections
import dataclasses
import hashlib
import itertools
from typing import Any

import keras

from tfdistill.graph.functional import calls, own_arguments

# Positions at which more tensors than these are alive are inside a part with many branches, where no chain is looked for.
_MOST_ALIVE = 6
# What may differ between equal layers: their names, and what counts in training alone, as the rate of a stochastic depth that grows from block to block.
_NAMED, _DROPPED = "name", ("seed", "build_config", "trainable", "rate", "drop_path_rate")


@dataclasses.dataclass(frozen=True, eq=False)
class Block:
    """A part of a graph between two tensors of a chain.

    Attributes:
        calls: Its `graph.Call`s.
        source: The tensor that it reads. It may read others that all blocks of the chain read, such as a mask.
        result: The tensor that others read of it.
    """

    calls: list
    source: Any
    result: Any


@dataclasses.dataclass(frozen=True, eq=False)
class _Part:
    begin: int
    end: int
    source: Any
    result: Any
    signature: int


def chains_of(view):
    """Lists the chains of a functional model: lists of at least two equal `Block`s, each of which reads what the one before it returns.

    Chains that lie within blocks of another one are not listed, and no call belongs to two chains. Of several ways to see blocks in a chain, the one with most calls
    is taken; then the one whose blocks begin with a layer that has a kernel, then the one of the smallest blocks.

    Args:
        view: Functional Keras 3 model.
    """
    every = list(calls(view))
    signatures: dict[Any, int] = {}
    candidates = []
    for parts in _sequences(view, every, signatures):
        marks = [part.signature for part in parts]
        for start, period, count in _repeated(marks):
            begin, end = parts[start].begin, parts[start + period * count - 1].end
            first = every[begin : parts[start + period - 1].end]
            if any(getattr(call.operation, "weights", ()) for call in first):
                candidates.append(
                    (-(end - begin), not _has_kernel(first[0].operation), period, begin, parts[start : start + period * count])
                )
    taken: set[int] = set()
    chains = []
    for *_, period, begin, parts in sorted(candidates, key=lambda one: one[:4]):
        if taken.isdisjoint(range(begin, parts[-1].end)):
            taken.update(range(begin, parts[-1].end))
            blocks = [parts[i : i + period] for i in range(0, len(parts), period)]
            chains.append([Block(every[b[0].begin : b[-1].end], b[0].source, b[-1].result) for b in blocks])
    return chains


def _has_kernel(operation):
    return any(len(w.shape) > 1 for w in getattr(operation, "weights", ()))


def _sequences(view, every, signatures):
    """Yields lists of neighbouring `_Part`s: between two places where, beside tensors that all parts of the list may read, one tensor is alive."""
    reads = [_tensors(call) for call in every]
    tensors = {id(x): x for x in view.inputs}
    born, last = {id(x): -1 for x in view.inputs}, {}
    firsts = {id(x) for x in view.inputs}
    for place, call in enumerate(every):
        last.update((id(x), place) for x in reads[place])
        born.update((id(x), place) for x in call.outputs)
        tensors.update((id(x), x) for x in call.outputs)
        firsts.add(id(call.outputs[0]))
    last.update((id(x), len(every)) for x in view.outputs)
    ends = collections.defaultdict(list)
    for key, place in born.items():
        ends[place].append(key)
    alive: list[frozenset] = [frozenset()]
    for place in range(len(every) + 1):
        alive.append(frozenset(key for key in (*alive[-1], *ends[place - 1]) if last.get(key, -1) >= place))
    alive = alive[1:]
    starts: dict[frozenset, list] = collections.defaultdict(list)
    for place, keys in enumerate(alive):
        for key in keys & firsts if len(keys) <= _MOST_ALIVE else ():
            starts[keys - {key}].append((place, key))
    for others, found in starts.items():
        found = [*found, *_after(found, others, alive, firsts)]
        found = [one for i, one in enumerate(found) if i == 0 or found[i - 1][1] != one[1]]
        parts = []
        for (begin, source), (end, result) in itertools.pairwise(found):
            mark = _signature(every[begin:end], tensors[source], others)
            number = signatures.setdefault(mark, len(signatures))
            parts.append(_Part(begin, end, tensors[source], tensors[result], number))
        if parts:
            yield parts


def _after(found, others, alive, firsts):
    """Lists further places of a sequence, at which some of the tensors that its parts read beside the chain are read no more: by the last part."""
    first, last = found[0][0], found[-1][0]
    longest = min(2 * last - first, len(alive) - 1)
    return [
        (place, key) for place in range(last + 1, longest + 1) for key in alive[place] & firsts - others if alive[place] - {key} <= others
    ]


def _tensors(call):
    return [x for x in keras.tree.flatten((call.args, own_arguments(call))) if isinstance(x, keras.KerasTensor)]


def _signature(several, source, others):
    """Returns what is equal for parts of equal layers of equal sizes, which read each other's tensors in the same way."""
    known: dict[int, Any] = {id(source): ("source", tuple(source.shape), source.dtype)}
    marks = []
    for call in several:
        arguments = keras.tree.flatten_with_path((call.args, own_arguments(call)))
        marks.append((_kind(call.operation), tuple((path, _mark(x, known, others)) for path, x in arguments)))
        known.update((id(x), ("inner", len(marks), place)) for place, x in enumerate(call.outputs))
    return tuple(marks)


def _mark(value, known, others):
    if isinstance(value, keras.KerasTensor):
        return known[id(value)] if id(value) in known else ("other", id(value) if id(value) in others else None)
    if isinstance(value, keras.Variable) or callable(value):
        return ("object", id(value))
    if hasattr(value, "shape"):
        array = keras.ops.convert_to_numpy(value)
        return (array.shape, str(array.dtype), hashlib.sha256(array.tobytes()).hexdigest())
    return repr(value)


def _kind(operation):
    """Returns class, config without names, and shapes of the weights of a layer or operation; what is equal to it alone where it has no config."""
    try:
        config = operation.get_config()
    except Exception:  # whatever a class of the user's raises
        return (type(operation), id(operation))
    names: dict[str, int] = {}
    _collect(config, names)
    return (type(operation), repr(_plain(config, names)), tuple(tuple(w.shape) for w in getattr(operation, "weights", ())))


def _collect(config, names):
    """Numbers the names in a config, in their order."""
    if isinstance(config, dict):
        for key, value in config.items():
            if key == _NAMED and isinstance(value, str):
                names.setdefault(value, len(names))
            else:
                _collect(value, names)
    elif isinstance(config, (list, tuple)):
        for value in config:
            _collect(value, names)


def _plain(config, names):
    if isinstance(config, dict):
        return {key: _plain(value, names) for key, value in config.items() if key not in _DROPPED}
    if isinstance(config, (list, tuple)):
        return [_plain(value, names) for value in config]
    return f"#{names[config]}" if isinstance(config, str) and config in names else config


def _repeated(marks):
    """Yields every (start, period, count) where a pattern of marks repeats at least twice in a row, as often as it does."""
    for period in range(1, len(marks) // 2 + 1):
        start = 0
        while start + 2 * period <= len(marks):
            same = 0
            while start + same + period < len(marks) and marks[start + same] == marks[start + same + period]:
                same += 1
            for shift in range(min(period, same - period + 1)):
                yield start + shift, period, (same - shift) // period + 1
            start += same + 1
