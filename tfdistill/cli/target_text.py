"""Reads the option `--target`: `cpu`, `cpu:threads=2,kernels=builtin`, `ssh://pi@host`, `delegate:library=libdelegate.so,options.level=2`."""

import collections.abc
import dataclasses
import re
import types
import typing

from tfdistill.benchmarking.targets.base import KINDS
from tfdistill.errors import ConfigurationError, nearest

_TRUTHS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def parse_target(text):
    """Makes the target that a text names. What there is, and which settings each has, comes from the targets themselves.

    The text is the kind, then a colon and settings `name=value` with commas between; `\\,` is a comma inside a value. A setting that is a dict is given key by key:
    `name.key=value`. `KIND://VALUE` sets the first setting, and others may follow after a question mark: `ssh://pi@host?python=python3.11`.

    Args:
        text: The text.

    Returns:
        The target.

    Raises:
        ConfigurationError: for a kind, a setting or a value that does not exist, with the nearest; or if the target refuses its settings.
    """
    kind, separator, rest = re.match(r"([^:]*)(://|:|)(.*)", text, re.DOTALL).groups()
    if kind not in KINDS:
        raise ConfigurationError(f"There is no target '{kind}' (--target {text}).", f"one of {', '.join(KINDS)}", nearest(kind, KINDS))
    made = KINDS[kind]
    fields = {field.name: field for field in dataclasses.fields(made) if field.init}
    hints, settings = typing.get_type_hints(made), {}
    if separator == "://":
        first, _, rest = rest.partition("?")
        settings[next(iter(fields))] = first
    for part in filter(None, re.split(r"(?<!\\),", rest)):
        name, equals, value = part.replace("\\,", ",").partition("=")
        name, dot, key = name.strip().partition(".")
        if name not in fields or not equals:
            raise ConfigurationError(
                f"The target '{kind}' has no setting '{name}' (--target {text})."
                if equals
                else f"'{part}' is no setting (--target {text}).",
                f"NAME=VALUE with a name of {', '.join(fields) or 'none'}",
                nearest(name, fields),
            )
        wanted = _plain(hints[name])
        if dot:
            settings.setdefault(name, {})[key] = value
        else:
            settings[name] = _value(wanted, value, f"{name}={value} of --target {text}")
    missing = [
        name
        for name, field in fields.items()
        if name not in settings and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ConfigurationError(f"--target {text} lacks {', '.join(missing)}.", f"{kind}:{','.join(f'{name}=VALUE' for name in missing)}")
    return made(**settings)


def described():
    """Returns a line for each target with its settings and their defaults, for help texts."""
    lines = []
    for kind, made in KINDS.items():
        settings = [f.name if f.default is dataclasses.MISSING else f"{f.name}={f.default}" for f in dataclasses.fields(made) if f.init]
        lines.append(f"{kind}:{','.join(settings)}" if settings else kind)
    return lines


def _plain(hint):
    """Returns a type without the possibility of None."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return next(one for one in typing.get_args(hint) if one is not type(None))
    return hint


def _value(wanted, text, where):
    origin = typing.get_origin(wanted) or wanted
    try:
        if wanted is bool:
            return _TRUTHS[text.lower()]
        if wanted in (int, float):
            return wanted(text)
        if isinstance(origin, type) and origin is not str and issubclass(origin, collections.abc.Sequence):
            inner = next(iter(typing.get_args(wanted)), str)
            return tuple(_value(inner, part, where) for part in text.split("+"))
    except (KeyError, ValueError) as error:
        kind = "true or false" if wanted is bool else {int: "a whole number", float: "a number"}.get(wanted, wanted)
        raise ConfigurationError(f"{where} is impossible.", f"{kind}") from error
    return text
