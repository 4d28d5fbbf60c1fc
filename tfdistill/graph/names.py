"""Names and paths of layers, nested ones included."""

import collections

import keras

from tfdistill.errors import ModelError, nearest


def named_layers(model):
    """Lists the layers of a model, nested ones too, under every path that a user may call them by.

    A path joins layer names with "/", from the outermost layer in; in a subclassed model or layer the attribute's name (`"block"`, or `"blocks/0"`
    for an element of a list) works as well as the layer's own.

    Args:
        model: A `keras.Model`, or a model with a `named_layers()` method of its own (an adopted tf_keras model).

    Returns:
        Dict of path to layer, outermost layers first.
    """
    own = getattr(model, "named_layers", None)
    if callable(own):
        return own()
    found = {}
    queue = collections.deque([("", model, frozenset([id(model)]))])
    while queue:
        prefix, parent, above = queue.popleft()
        for name, child in _children(parent):
            found.setdefault(prefix + name, child)
            if id(child) not in above:
                queue.append((f"{prefix}{name}/", child, above | {id(child)}))
    return found


def _children(parent):
    # keras.ops nodes of a functional model are operations, not layers; they can be tapped just as well.
    operations = getattr(parent, "operations", None) or getattr(parent, "layers", None)
    if operations is None or not isinstance(parent, (keras.Model, keras.Sequential)):
        operations = parent._flatten_layers(include_self=False, recursive=False) if isinstance(parent, keras.Layer) else []
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


def find_layer(model, path, role="model"):
    """Finds the layer that a user means by `path`.

    Args:
        model: See `named_layers`.
        path: A full path (`"encoder/block_2/attention"`), or the end of one where that is unambiguous (`"attention"`).
        role: What the model is to the caller, for the error: "teacher" or "student".

    Raises:
        ModelError: if there is no such layer (with the nearest names) or several.
    """
    layers = named_layers(model)
    if path in layers:
        return layers[path]
    matches = {p: layer for p, layer in layers.items() if p.endswith("/" + path)}
    distinct = {id(layer) for layer in matches.values()}
    if len(distinct) == 1:
        return next(iter(matches.values()))
    if matches:
        raise ModelError(
            f"The {role} '{model.name}' has {len(distinct)} layers called '{path}': {', '.join(sorted(matches))}.",
            fix="give the full path of the one you mean",
        )
    raise ModelError(
        f"The {role} '{model.name}' has no layer '{path}'.",
        fix=f"use the name of a layer as `summary()` prints it. {nearest(path, layers)}",
    )
