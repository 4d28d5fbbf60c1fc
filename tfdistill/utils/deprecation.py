"""Public names that have changed: the old name still works, warns once in a process, and says the new one.

The warning is a FutureWarning, as users of a library see it by default; Python hides a DeprecationWarning outside `__main__`. A class is saved under its
registered name, which no entry here changes, so files written before load without a warning.
"""

from __future__ import annotations

import functools
import importlib
import typing
import warnings

from tfdistill.errors import ConfigurationError
from tfdistill.public import DEPRECATED

if typing.TYPE_CHECKING:
    from collections.abc import Callable

    P = typing.ParamSpec("P")
    R = typing.TypeVar("R")

_warned: set[str] = set()


def warn_once(old: str, new: str, since: str, stacklevel: int = 2) -> None:
    """Warns that a name has changed, the first time in this process that the old one is used.

    Args:
        old: The old name as users write it, such as `"tfdistill.label"` or `"soft_targets(say=...)"`.
        new: What to write in its place.
        since: The version of tfdistill that brought the new name.
        stacklevel: Whose line the warning shows: 1 is the caller of this function, 2 the caller of that one.
    """
    if old not in _warned:
        _warned.add(old)
        warnings.warn(
            f"`{old}` is now `{new}` (since tfdistill {since}). The old name will be removed.", FutureWarning, stacklevel=stacklevel + 1
        )


def is_deprecated(package: str, name: str) -> bool:
    """Whether a name of a package is one that has changed, and still works."""
    return f"{package}.{name}" in DEPRECATED


def deprecated_attribute(package: str, name: str) -> object:
    """Returns what an old public name stands for, with a warning. To be called from the package's `__getattr__`.

    Args:
        package: The package's `__name__`, such as `"tfdistill.losses"`.
        name: The old name in it; `is_deprecated` knows which there are.

    Returns:
        The object of the new name, the very same.
    """
    new, since = DEPRECATED[f"{package}.{name}"]
    warn_once(f"{package}.{name}", new, since, stacklevel=3)
    home, _, attribute = new.rpartition(".")
    return getattr(importlib.import_module(home), attribute)


def renamed_arguments(since: str, **renamed: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorates a function, method or constructor so that old keyword arguments still work, with a warning.

    Args:
        since: The version of tfdistill that brought the new names.
        **renamed: Old name to new name.

    Returns:
        The decorator. The signature, and so what editors and type checkers see, has the new names only.

    Raises:
        ConfigurationError: by the decorated function, if a call gives both the old and the new name.

    Example:
        >>> from tfdistill.utils.deprecation import renamed_arguments
        >>> @renamed_arguments("0.2", say="log_fn")
        ... def work(log_fn=print):
        ...     log_fn("done")
        >>> work(say=print)  # FutureWarning: `work(say=...)` is now `work(log_fn=...)` (since tfdistill 0.2). The old name will be removed.
        done
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        called = function.__qualname__.removesuffix(".__init__").rpartition("<locals>.")[2]

        @functools.wraps(function)
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
            for old, new in renamed.items():
                if old not in kwargs:
                    continue
                if new in kwargs:
                    raise ConfigurationError(
                        f"{called} was given both `{old}` and `{new}`, two names of one argument.", f"`{new}` alone", f"leave out `{old}`"
                    )
                warn_once(f"{called}({old}=...)", f"{called}({new}=...)", since)
                kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return wrapper

    return decorate
