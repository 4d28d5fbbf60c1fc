"""Names and paths of layers, nested ones included."""

import collections
import typing

import keras

from tfdistill.errors import ModelError, nearest
from tfdistill.graph.layers import child_layers


def named_layers(model: keras.Model) -> dict[str, typing.Any]:
    """Lists the layers of a model, nested ones included, under every path by which losses and compression steps find them.

    A path joins layer names with "/", from the outermost layer in. In a subclassed model or layer the attribute's name (`"block"`, or
    `"blocks/0"` for an element of a list) works as well as the layer's own, so a layer may have several paths. Where a path is asked for,
    the end of one is enough if only one layer has it: `"attention"` for `"encoder/attention"`.

    Args:
        model: A `keras.Model`, or a model with a `named_layers()` method of its own (an adopted tf_keras model).

    Returns:
        Dict of path to layer (or `keras.ops` operation of a functional model), outermost layers first.

    Example:
        >>> list(tfdistill.named_layers(student))
        ['image', 'conv', 'norm', 'relu', 'pool', 'logits']
    """
    own = getattr(model, "named_layers", None)
    if callable(own):
        return own()
    found: dict[str, typing.Any] = {}
    queue = collections.deque([("", model, frozenset([id(model)]))])
    while queue:
        prefix, parent, above = queue.popleft()
        for name, child in _children(parent):
            found.setdefault(prefix + name, child)
            if id(child) not in above:
                queue.append((f"{prefix}{name}/", child, above | {id(child)}))
    return found


def _children(parent):
    # The keras.ops calls of a functional model are operations, not layers; they can be tapped as well.
    operations = getattr(parent, "operations", None) or getattr(parent, "layers", None)
    if operations is None or not isinstance(parent, (keras.Model, keras.Sequential)):
        operations = child_layers(parent) if isinstance(parent, keras.Layer) else []
    children = [(child.name, child) for child in operations if child is not parent]
    known = {id(child) for _, child in children}
    for attribute, value in vars(parent).items():
        if attribute.startswith("_"):
            continue
        if id(value) in known:
            children.append((attribute, value))
        elif isinstance(value, (list, tuple)):
            children += [(f"{attribute}/{i}", item) for i, item in enumerate(value) if id(item) in known]
    return children


def unique_name(name, taken):
    """Returns a name, with the first number behind it that makes it differ from those that are taken: `"dense"`, `"dense_1"`."""
    unique, number = name, 0
    while unique in taken:
        number += 1
        unique = f"{name}_{number}"
    return unique


def resolve_path(name, named, owner):
    """Finds the path that a user means by a name: one way for taps, warm starts and the selection of layers to compress.

    Args:
        name: A full path (`"encoder/block_2/attention"`), or the end of one that only one layer has (`"attention"`).
        named: Dict of every path to what it names. Paths with equal values name the same layer.
        owner: What has the layers, as the subject of an error: `"The teacher 'resnet'"`.

    Returns:
        The key of `named`: `name` itself where it is one, else the path that ends in it.

    Raises:
        ModelError: if no path ends in the name (with the nearest paths), or paths of several layers do (with all of them).
    """
    if name in named:
        return name
    ends = [path for path in named if path.endswith("/" + name)]
    distinct = {named[path] for path in ends}
    if len(distinct) == 1:
        return ends[0]
    if ends:
        raise ModelError(
            f"{owner} has {len(distinct)} layers called '{name}': {', '.join(sorted(ends))}.",
            fix="give the full path of the one you mean",
        )
    raise ModelError(f"{owner} has no layer '{name}'.", fix=f"use the name of a layer as `summary()` prints it. {nearest(name, named)}")


def find_layer(model, path, role="model"):
    """Finds the layer that a user means by `path`.

    Args:
        model: See `named_layers`.
        path: See `resolve_path`.
        role: What the model is to the caller, for the error: "teacher" or "student".

    Raises:
        ModelError: as `resolve_path`.
    """
    layers = named_layers(model)
    return layers[resolve_path(path, {p: id(layer) for p, layer in layers.items()}, f"The {role} '{model.name}'")]
