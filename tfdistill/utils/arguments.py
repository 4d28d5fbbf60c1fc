"""Public functions that answer a wrong argument with what to pass instead."""

import functools
import inspect
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from tfdistill.errors import ConfigurationError, nearest

P = ParamSpec("P")
R = TypeVar("R")


def explains_arguments(**elsewhere: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorates a function so that a missing or unknown argument is a `ConfigurationError` with a remedy, not Python's TypeError.

    Args:
        **elsewhere: Name that users try -> what to write instead.

    Returns:
        The decorator; types and signature of the function stay as they are.
    """

    def decorate(function):
        signature = inspect.signature(function)

        @functools.wraps(function)
        def call(*args, **kwargs):
            try:
                signature.bind(*args, **kwargs)
            except TypeError as error:
                unknown = [name for name in kwargs if name not in signature.parameters]
                known = [name for name in unknown if name in elsewhere]
                names = list(signature.parameters)
                fix = elsewhere[known[0]] if known else nearest(unknown[0], names) if unknown else None
                raise ConfigurationError(f"{function.__name__}: {error}.", f"the arguments {', '.join(names)}", fix) from None
            return function(*args, **kwargs)

        return call

    return decorate
