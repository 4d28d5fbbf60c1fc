"""Which layers a step works on: names, patterns or a predicate, with exceptions."""

import fnmatch
from collections.abc import Callable, Collection
from typing import Any

from tfdistill.errors import ConfigurationError, ModelError, nearest
from tfdistill.graph.names import named_layers, resolve_path

# What a user may give to select layers: a name, a path or a pattern; or a predicate of a layer.
Selector = str | Callable[[Any], bool]
# What a user may give for `layers=` or `exclude=`.
Selection = Selector | Collection[Selector] | None


class Layers(dict):
    """Dict of path to layer that holds every layer once.

    A layer that a nested model shares with the model around it, or with another nested one, has several paths. Its key is the shortest of them (among
    several of one length, the first by the alphabet). A selector may use any of them.

    Attributes:
        aliases: Dict of each further path to the key of its layer.

    Example:
        >>> tied = object()
        >>> layers = Layers({"encoder/embedding": tied, "embedding": tied})
        >>> list(layers), layers.aliases
        (['embedding'], {'encoder/embedding': 'embedding'})
    """

    def __init__(self, found):
        """Makes it of a dict of all paths to their layers."""
        paths = {}
        for path, layer in found.items():
            paths.setdefault(id(layer), []).append(path)
        shortest = {key: min(several, key=lambda path: (path.count("/"), path)) for key, several in paths.items()}
        super().__init__({shortest[id(layer)]: layer for layer in found.values()})
        self.aliases = {path: shortest[id(layer)] for path, layer in found.items() if path != shortest[id(layer)]}


def layers_of_graph(model, graph):
    """Returns the `Layers` of the flat graph of a model, nested models' layers and operations included.

    Args:
        model: Keras 3 model.
        graph: Its `FlatGraph`.
    """
    layers = Layers({call.path: call.operation for call in graph.calls})
    names = {id(layer): name for name, layer in layers.items()}
    # A subclassed model's layers are found by the names of its attributes, too.
    layers.aliases.update(
        {path: names[id(layer)] for path, layer in named_layers(model).items() if id(layer) in names and path not in layers}
    )
    return layers


def selectors(value, setting):
    """Brings what a user gave for `layers=` or `exclude=` into one form.

    Args:
        value: None, a name or pattern (`"conv1"`, `"encoder/*"`), a predicate of one layer that returns a bool, or a list of these.
        setting: Name of the setting, for the error.

    Returns:
        None, or a tuple of strings and predicates.

    Raises:
        ConfigurationError: if it is anything else, or empty.
    """
    if value is None:
        return None
    given = (value,) if isinstance(value, str) or callable(value) else value
    several = isinstance(given, (list, tuple, set, frozenset))
    fix = _mistaken(value, given if several else ())
    if fix or not several or not given or not all(isinstance(g, str) or callable(g) for g in given):
        raise ConfigurationError(
            f"{setting}={f'<data of shape {value.shape}>' if hasattr(value, 'shape') else repr(value)} selects no layers.",
            "a layer's name, a pattern such as 'encoder/*', a predicate of a layer, or a list of these",
            fix,
        )
    return tuple(given)


def _mistaken(value, given):
    """Returns the remedy for what is often taken for a selection of layers; empty for all else."""
    if hasattr(value, "shape"):
        return "give data to apply: step.apply(model, data)"
    if any(isinstance(g, type) for g in given):
        return "give a predicate of a layer: lambda layer: type(layer).__name__ == 'Dense'"
    return "give the name of a layer: layer.name" if any(hasattr(g, "get_weights") for g in given) else ""


def settings_by_layer(setting, value, what, include=None):
    """Splits a setting that is one value for all layers, or a dict of selector to value.

    Args:
        setting: Name of the setting, for the error.
        value: What the user gave.
        what: What the values of a dict are, for the error: `"shares"`.
        include: What the user gave for `layers=`; it is refused beside a dict, which selects by itself.

    Returns:
        Tuple of the setting, a copy where it is a dict, and the list of its values. The values are not checked.

    Raises:
        ConfigurationError: if a dict is empty, has a selector that is no text, or comes together with `include`.
    """
    if not isinstance(value, dict):
        return value, [value]
    if not value or not all(isinstance(selector, str) for selector in value):
        raise ConfigurationError(f"{setting}={value!r}.", f"a dict of names, paths or patterns to {what}", "use '*' for all the rest")
    if include is not None:
        raise ConfigurationError(f"layers={include!r} with {setting}={value!r}.", "one selection of layers", "leave out layers=")
    return dict(value), list(value.values())


def select(layers, include=None, exclude=None):
    """Selects layers by name.

    Args:
        layers: Dict of path to layer, with every layer of the model.
        include: What `selectors` returns; None for all.
        exclude: What `selectors` returns; None for none. Wins over `include`.

    Returns:
        Tuple of two sets: the paths selected, and those of them that were named outright (not by a pattern or a predicate).

    Raises:
        ModelError: if a name or pattern matches no layer; the message holds the nearest names.
    """
    chosen, named = _matched(layers, include) if include is not None else (set(layers), set())
    left_out, _ = _matched(layers, exclude) if exclude is not None else (set(), set())
    return chosen - left_out, named - left_out


def assign(layers, values):
    """Gives each layer the value of the first selector that matches it.

    Args:
        layers: Dict of path to layer, with every layer of the model.
        values: Dict of a name, path or pattern to a value; `"*"` matches all the rest.

    Returns:
        Tuple of a dict of path to value, without the layers that no selector matches, and the set of those that were named outright.

    Raises:
        ModelError: if a selector matches no layer, or only layers that an earlier selector matches.
    """
    found, named = {}, set()
    for selector, value in values.items():
        hits, outright = _matched(layers, (selector,))
        if hits <= found.keys():
            raise ModelError(
                f"'{selector}' matches only layers that an earlier selector matches: {', '.join(sorted(hits)[:5])}.",
                "at least one layer for every selector",
                "put the more special selectors first",
            )
        found |= dict.fromkeys(hits - found.keys(), value)
        named |= outright
    return found, named


def select_values(layers, value, include=None, exclude=None):
    """Selects layers by name, and gives each of them its value of a setting.

    Args:
        layers: Dict of path to layer, with every layer of the model.
        value: One value for all layers; or a dict as `assign` takes it, which selects by itself.
        include: What `selectors` returns; None for all.
        exclude: What `selectors` returns; None for none. Wins over the others.

    Returns:
        Tuple of a dict of path to value, and the set of those paths that were named outright.

    Raises:
        ModelError: if a name or pattern matches no layer.
    """
    chosen, named = select(layers, include, exclude)
    if not isinstance(value, dict):
        return dict.fromkeys(chosen, value), named
    values, named = assign(layers, value)
    return {path: one for path, one in values.items() if path in chosen}, named & chosen


def _matched(layers, given):
    found, named = set(), set()
    paths = {**{path: path for path in layers}, **getattr(layers, "aliases", {})}
    selected = _selected_by_path(paths)
    for selector in given:
        if callable(selector):
            found |= {path for path, layer in layers.items() if selector(layer)}
        elif selector not in selected and any(mark in selector for mark in "*?["):
            hits = {paths[path] for path in paths if fnmatch.fnmatchcase(path, selector)}
            if not hits:
                raise ModelError(f"No layer is called '{selector}', or matches it as a pattern.", fix=nearest(selector, paths))
            found |= hits
        else:
            path = resolve_path(selector, selected, "The model")
            found |= selected[path]
            named |= {paths[path]} if path in paths else set()
    return found, named


def _selected_by_path(paths):
    """Returns a dict of every path that a selector may name to the set of layers that it selects: one layer, or all in a nested model."""
    selected = {path: frozenset([shortest]) for path, shortest in paths.items()}
    for path, shortest in paths.items():
        parts = path.split("/")
        for depth in range(1, len(parts)):
            outer = "/".join(parts[:depth])
            if outer not in paths:
                selected[outer] = selected.get(outer, frozenset()) | {shortest}
    return selected
