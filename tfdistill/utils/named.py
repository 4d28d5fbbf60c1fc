"""Functions of the user's own that are given by name, as on a command line."""

import importlib

from tfdistill.errors import ConfigurationError


def function_named(text):
    """Imports the function that a text names. Its module's code runs: only for names that the user wrote.

    Args:
        text: "module:function".

    Raises:
        ConfigurationError: if it is no such name, or the module or function cannot be imported.
    """
    module, mark, name = str(text).partition(":")
    if not mark:
        raise ConfigurationError(f"'{text}' names no function.", "a function's name as 'module:function'")
    try:
        return getattr(importlib.import_module(module), name)
    except Exception as error:  # the module's code may raise anything
        raise ConfigurationError(
            f"The function '{text}' cannot be imported: {type(error).__name__}: {error}.",
            "'module:function', of a module in the working folder",
        ) from error
