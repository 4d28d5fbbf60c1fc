"""Finds the tensors that a model's outputs are concatenated from."""

import dataclasses

import keras

from tfdistill.graph.layers import IDLE
from tfdistill.graph.tracing import open_model


@dataclasses.dataclass(frozen=True)
class SplitModel:
    """A model each of whose outputs was an output of the original, or one branch of it.

    Attributes:
        model: The model, which shares the layers of the original.
        names: Names of its outputs, in order: of a branch that of the layer that computes it.
        branches: Dict of the name of a concatenated output of the original -> tuple of the names of its branches. Empty if no output is concatenated.
    """

    model: object
    names: tuple[str, ...]
    branches: dict[str, tuple[str, ...]]


def split_keras_outputs(model, names_of):
    """Returns a Keras 3 model with an output for each branch of its concatenated outputs, as a `SplitModel`.

    Args:
        model: Built Keras 3 model.
        names_of: Function of the structure of its outputs: returns their names, in flattened order.

    Raises:
        ModelError: if the model is not built.
        BridgeError: if it is a subclassed one whose `call` does not work on symbolic tensors.
    """
    view = open_model(model)
    tensors, found, branches = split(view.outputs, names_of(view.output), _maker)
    return SplitModel(keras.Model(view.input, tensors, name=model.name) if branches else model, found, branches)


def split(tensors, names, maker):
    """Takes concatenated tensors apart.

    The last concatenation is taken apart whatever its axis, and those before it that are along the last axis, on which features of several units lie.

    Args:
        tensors: List of symbolic tensors.
        names: Their names.
        maker: Function of a tensor: the name of the layer that makes it, the name of its class, its axis where it has one, and the list of the tensors that it reads.

    Returns:
        The list of tensors, the tuple of their names, and the dict `SplitModel.branches`.
    """
    found, every, branches = [], [], {}
    for tensor, name in zip(tensors, names, strict=True):
        parts = _branches(tensor, maker, False)
        if len(parts) == 1:
            found.append(tensor)
            every.append(name)
            continue
        called = []
        for part in parts:
            first = maker(part)[0]
            taken, unique, number = {*every, *called, *names}, first, 0
            while unique in taken:
                number += 1
                unique = f"{first}_{number}"
            called.append(unique)
        found += parts
        every += called
        branches[name] = tuple(called)
    return found, tuple(every), branches


def _branches(tensor, maker, inner):
    _, kind, axis, reads = maker(tensor)
    if kind in IDLE and len(reads) == 1 and (below := _branches(reads[0], maker, inner)) != reads:
        return below
    if kind not in ("Concatenate", "concat") or len(reads) < 2 or (inner and axis not in (-1, len(tensor.shape) - 1)):
        return [tensor]
    return [branch for x in reads for branch in _branches(x, maker, True)]


def _maker(tensor):
    history = tensor._keras_history
    operation = history.operation
    nodes = operation._inbound_nodes
    reads = list(nodes[history.node_index].input_tensors) if nodes else []
    return operation.name, type(operation).__name__, getattr(operation, "axis", None), reads
