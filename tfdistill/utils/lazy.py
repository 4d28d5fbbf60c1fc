"""Imports the public names of a package at their first use."""

import importlib
import sys

from tfdistill.public import ROOMS, homes, module_of
from tfdistill.utils.deprecation import deprecated_attribute, is_deprecated


def lazily(package):
    """Makes the functions with which a room loads its public names lazily, those that `tfdistill.public` lists for it.

    No module directly in the room may have the name of a public name: importing the module would replace the public name.

    Args:
        package: The package's `__name__`, such as `"tfdistill.losses"`.

    Returns:
        The package's `__getattr__`, `__dir__` and `__all__`.
    """
    room = package.rpartition(".")[2]
    names = sorted(ROOMS[room])

    def getattribute(name):
        if name not in names:
            if is_deprecated(package, name):
                return deprecated_attribute(package, name)
            raise missing(package, name)
        return getattr(importlib.import_module(module_of(room, name)), name)

    def directory():
        return sorted({*vars(sys.modules[package]), *names})

    return getattribute, directory, names


def missing(package, name):
    """Returns the AttributeError for a name that a package lacks; it names the place of a public name that is called so."""
    elsewhere = [] if name.startswith("_") else homes(name)
    hint = f". Did you mean {' or '.join(elsewhere)}?" if elsewhere else ""
    return AttributeError(f"module {package!r} has no attribute {name!r}{hint}", name=name, obj=sys.modules[package])
