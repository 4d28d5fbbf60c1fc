"""Checks of the settings of losses and schedules: refuse when made, name the value that was given."""

import math
import numbers

from tfdistill.errors import ConfigurationError, nearest


def number(owner, name, value, low=None, strict=False):
    """Checks one finite real number.

    Args:
        owner: Name of the class the setting belongs to, for the message.
        name: Name of the setting.
        value: What was given.
        low: Smallest permitted value; None permits any.
        strict: Whether `low` itself is refused.

    Returns:
        The number as a `float`.

    Raises:
        ConfigurationError: if it is no number, not finite, or too small.
    """
    wanted = "a finite number" if low is None else f"a finite number {'greater than' if strict else 'of at least'} {low:g}"
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise ConfigurationError(f"{owner}: {name}={value!r} is a {type(value).__name__}.", wanted)
    plain = float(value)
    if not math.isfinite(plain) or (low is not None and (plain < low or (strict and plain == low))):
        raise ConfigurationError(f"{owner}: {name}={value!r} is out of range.", wanted)
    return plain


def whole(owner, name, value, low):
    """Checks one whole number of at least `low`; returns it as an `int`.

    Raises:
        ConfigurationError: if it is no whole number or too small.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < low:
        raise ConfigurationError(f"{owner}: {name}={value!r} is not permitted.", f"a whole number of at least {low}")
    return int(value)


def choice(owner, name, value, allowed):
    """Checks that `value` is one of `allowed`; returns it.

    Raises:
        ConfigurationError: if it is not; the message suggests the nearest ones.
    """
    if value not in allowed:
        fix = nearest(value, [a for a in allowed if a is not None]) if isinstance(value, str) else None
        raise ConfigurationError(f"{owner}: {name}={value!r} is unknown.", "one of " + ", ".join(repr(a) for a in allowed), fix)
    return value


def switch(owner, name, value):
    """Checks that `value` is True or False; returns it.

    Raises:
        ConfigurationError: if it is anything else.
    """
    if not isinstance(value, bool):
        raise ConfigurationError(f"{owner}: {name}={value!r} is a {type(value).__name__}.", "True or False")
    return value


def layer_name(owner, name, value):
    """Checks a layer's name or path; None stands for the model's final output.

    Raises:
        ConfigurationError: if it is neither None nor a non-empty string.
    """
    if value is not None and (not isinstance(value, str) or not value):
        raise ConfigurationError(
            f"{owner}: {name}={value!r} is not a layer's name.",
            "a name, a path such as 'encoder/block_2/attention', or None for the final output",
        )
    return value


def enough_samples(owner, count, fewest, fix=None):
    """Checks that a batch has as many samples as a loss between samples needs to depend on the student at all.

    Raises:
        ConfigurationError: if it has fewer.
    """
    if count < fewest:
        raise ConfigurationError(
            f"{owner}: the first batch has {count} sample{'' if count == 1 else 's'}.",
            f"at least {fewest}: with fewer, relations between samples are the same whatever the student says",
            f"give `fit` a batch_size of at least {fewest} (relations of fewer than about 32 say little)" + (f", or {fix}" if fix else ""),
        )


def some(owner, **weights):
    """Checks that not all weights of a loss's parts are the constant 0.

    Raises:
        ConfigurationError: if they are: such a loss would teach nothing.
    """
    if all(isinstance(w, float) and w == 0.0 for w in weights.values()):
        raise ConfigurationError(
            f"{owner}: " + " and ".join(f"{name}=0.0" for name in weights) + ", so the loss is always 0.", "a positive weight"
        )
