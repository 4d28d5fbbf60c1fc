"""Which operations of a .tflite file a delegate takes: XNNPACK, which the interpreter uses by default, or another.

Standard library only, for Python 3.8 and later: `docs/make_kits.py` copies this module to the kits of boards.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping

DELEGATE = "DELEGATE"


@dataclasses.dataclass(frozen=True)
class Delegation:
    """How the operations of an opened file are shared between delegates and the interpreter's own kernels.

    Attributes:
        operations: Number of operations in the file.
        delegated: Number of these that a delegate takes.
        partitions: Number of connected parts that delegates run, each in one call. Between two parts, tensors are handed over. None if the runtime does not
            say it.
        left: Dict of (operation name, type of its output) -> number of operations that no delegate takes.
    """

    operations: int
    delegated: int
    partitions: int | None
    left: Mapping[tuple[str, str], int]

    @property
    def share(self):
        """Share of the operations that a delegate takes, from 0 to 1; 0 for a file without operations."""
        return self.delegated / self.operations if self.operations else 0.0

    def named_left(self):
        """Returns a dict of `"RSQRT int8"` -> number of operations, the most frequent first."""
        named = {" ".join(filter(None, key)): count for key, count in self.left.items()}
        return dict(sorted(named.items(), key=lambda item: (-item[1], item[0])))


def operation_nodes(interpreter):
    """Lists the operations of an opened file, and behind them the nodes that delegates run.

    Reads `Interpreter._get_ops_details`, which has no public counterpart.

    Returns:
        List of dicts with `index`, `op_name`, and the `inputs` and `outputs` as tensor indices; None in an old runtime, which cannot list them.
    """
    return interpreter._get_ops_details() if hasattr(interpreter, "_get_ops_details") else None


def delegation(interpreter):
    """Counts what delegates take in an opened file.

    The interpreter lists the operations of the file and, behind them, one node for each part that a delegate runs. What lies between the inputs and the
    outputs of such a node is inside it.

    Args:
        interpreter: An `Interpreter` of any engine whose tensors are allocated.

    Returns:
        A `Delegation`; None in an old runtime, which cannot list its operations.
    """
    nodes = operation_nodes(interpreter)
    if nodes is None:
        return None
    parts = [node for node in nodes if node["op_name"] == DELEGATE]
    own = [node for node in nodes if node["op_name"] != DELEGATE]
    makers = {int(tensor): node for node in own for tensor in node["outputs"]}
    inside = {index for part in parts for index in _inside(part, makers)}
    outside = [node for node in own if node["index"] not in inside]
    types = {}
    if any("result_types" not in node for node in outside):  # tflite-runtime 2.14
        types = {int(detail["index"]): detail["dtype"] for detail in interpreter.get_tensor_details()}
    left = collections.Counter((node["op_name"], _type_of(node, types)) for node in outside)
    return Delegation(len(own), len(inside), len(parts), dict(left))


def _inside(part, makers):
    """Yields the indices of the operations between the inputs and the outputs of a delegate's node."""
    inputs = {int(tensor) for tensor in part["inputs"]}
    waiting, seen = [int(tensor) for tensor in part["outputs"]], set()
    while waiting:
        tensor = waiting.pop()
        node = makers.get(tensor)
        if node is None or tensor in inputs or node["index"] in seen:
            continue
        seen.add(node["index"])
        yield node["index"]
        waiting += [int(source) for source in node["inputs"] if source >= 0]


def _type_of(node, types):
    results = node["result_types"] if "result_types" in node else [types[int(tensor)] for tensor in node["outputs"] if int(tensor) in types]
    return results[0].__name__ if results else "none"
