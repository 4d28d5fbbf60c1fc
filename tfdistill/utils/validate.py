"""Checks of settings: a value of the wrong type or out of its range is refused with the setting's name, the value and what is expected.

Booleans are not numbers here, although Python counts them as such. NumPy's numbers are numbers. Each function returns the value in Python's
own type.
"""

import math
import numbers
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from tfdistill.errors import ConfigurationError, nearest

Choice = TypeVar("Choice")


def is_number(value: Any) -> bool:
    """Whether a value is a real number (not a boolean), finite or not."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def is_whole_number(value: Any, at_least: int | None = None, at_most: int | None = None) -> bool:
    """Whether a value is a whole number (not a boolean) in a range.

    Args:
        value: Anything.
        at_least: Smallest number of the range, or None.
        at_most: Largest number of the range, or None.
    """
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    return whole and (at_least is None or value >= at_least) and (at_most is None or value <= at_most)


def whole_number(name: str, value: Any, at_least: int | None = 1, at_most: int | None = None, owner: str | None = None) -> int:
    """Checks that a setting is a whole number.

    Args:
        name: Name of the setting, for the message.
        value: The value that was given.
        at_least: Smallest permitted number, or None.
        at_most: Largest permitted number, or None.
        owner: Name of the class or function that has the setting, for the message, or None.

    Returns:
        The number as an `int`.

    Raises:
        ConfigurationError: if the value is no whole number, or out of range.
    """
    if not is_whole_number(value, at_least, at_most):
        expected = f"a whole number{_range(at_least=at_least, at_most=at_most)}"
        meant = _quoted(value, int)
        fix = f"write {meant}, without quotes" if is_whole_number(meant, at_least, at_most) else None
        raise _refused(owner, name, value, expected, is_whole_number(value), fix)
    return int(value)


def number(
    name: str,
    value: Any,
    at_least: float | None = None,
    at_most: float | None = None,
    above: float | None = None,
    below: float | None = None,
    owner: str | None = None,
) -> float:
    """Checks that a setting is a finite number.

    Args:
        name: Name of the setting, for the message.
        value: The value that was given.
        at_least: Smallest permitted number, or None.
        at_most: Largest permitted number, or None.
        above: The value must be greater than this number, or None.
        below: The value must be less than this number, or None.
        owner: Name of the class or function that has the setting, for the message, or None.

    Returns:
        The number as a `float`.

    Raises:
        ConfigurationError: if the value is no number, not finite, or out of range.
    """
    try:
        given = float(value) if is_number(value) else math.nan
    except OverflowError:  # an `int` beyond the floats
        given = math.inf

    def inside(number):
        return (
            math.isfinite(number)
            and (at_least is None or number >= at_least)
            and (at_most is None or number <= at_most)
            and (above is None or number > above)
            and (below is None or number < below)
        )

    if not inside(given):
        expected = f"a finite number{_range(above, at_least, below, at_most)}"
        raise _refused(
            owner, name, value, expected, is_number(value), as_share(value, inside) if 1 in (at_most, below) else _unquoted(value, inside)
        )
    return given


def as_share(value: Any, inside: Callable[[float], bool] = lambda share: 0 < share < 1) -> str | None:
    """Returns what to write for a share that was given in percent or as text; None where it was neither.

    Args:
        value: What was given, such as 50, "0.5" or "50%".
        inside: Tells whether a number is permitted.
    """
    percent = _quoted(value.rstrip().removesuffix("%"), float) if isinstance(value, str) else value
    if is_number(percent) and 1 < percent <= 100 and inside(percent / 100):
        return f"for {percent:g} % write {percent / 100:g}"
    return _unquoted(value, inside)


def _unquoted(value, inside):
    meant = _quoted(value, float)
    return f"write {meant:g}, without quotes" if meant is not None and inside(meant) else None


def _quoted(value, kind):
    """Returns the number that a text is, or None."""
    try:
        return kind(value) if isinstance(value, str) else None
    except ValueError:
        return None


def positive_number(name: str, value: Any, owner: str | None = None) -> float:
    """Checks that a setting is a finite number greater than 0; see `number`."""
    return number(name, value, above=0, owner=owner)


def share(name: str, value: Any, zero: bool = True, one: bool = True, owner: str | None = None) -> float:
    """Checks that a setting is a number from 0 to 1; see `number`.

    Args:
        name: Name of the setting, for the message.
        value: The value that was given.
        zero: Whether 0 itself is permitted.
        one: Whether 1 itself is permitted.
        owner: Name of the class or function that has the setting, for the message, or None.
    """
    return number(
        name,
        value,
        at_least=0 if zero else None,
        at_most=1 if one else None,
        above=None if zero else 0,
        below=None if one else 1,
        owner=owner,
    )


def boolean(name: str, value: Any, owner: str | None = None) -> bool:
    """Checks that a setting is True or False, and returns it.

    Raises:
        ConfigurationError: if the value is anything else, 0 and 1 included.
    """
    if not isinstance(value, bool):
        raise _refused(owner, name, value, "True or False", False)
    return value


def one_of(name: str, value: Any, allowed: Iterable[Choice], owner: str | None = None) -> Choice:
    """Checks that a setting is one of a few values.

    Args:
        name: Name of the setting, for the message.
        value: The value that was given.
        allowed: The permitted values.
        owner: Name of the class or function that has the setting, for the message, or None.

    Returns:
        The permitted value that equals the one given.

    Raises:
        ConfigurationError: if the value is none of them; for a string, the message names the nearest ones.
    """
    allowed = list(allowed)
    for choice in allowed:
        if _same_kind(value, choice) and value == choice:
            return choice
    strings = [choice for choice in allowed if isinstance(choice, str)]
    raise ConfigurationError(
        f"{_prefix(owner)}{name}={value!r} is unknown.",
        "one of " + ", ".join(map(repr, allowed)),
        nearest(value, strings) if isinstance(value, str) and strings else None,
    )


def _same_kind(a, b):
    """Whether two values may be compared: True equals 1 but is another setting, and an array has no single truth value."""
    return type(a) is type(b) or (isinstance(a, str) and isinstance(b, str)) or (is_number(a) and is_number(b))


def _prefix(owner):
    return f"{owner}: " if owner else ""


def _range(above=None, at_least=None, below=None, at_most=None):
    """The limits of a range in words, with a space before them; empty without limits."""
    if at_least is not None and at_most is not None:
        return f" between {at_least} and {at_most}"
    limits = (("greater than", above), ("of at least", at_least), ("less than", below), ("at most", at_most))
    words = [f"{words} {limit}" for words, limit in limits if limit is not None]
    return f" {' and '.join(words)}" if words else ""


def _refused(owner, name, value, expected, right_type, fix=None):
    fault = "out of range" if right_type else f"a {type(value).__name__}"
    return ConfigurationError(f"{_prefix(owner)}{name}={value!r} is {fault}.", expected, fix)
