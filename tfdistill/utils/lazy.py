"""Public names of a package that are imported at their first use."""

import importlib
import sys


def lazily(package, where):
    """Makes what a package needs to load its public names lazily.

    Args:
        package: The package's `__name__`.
        where: Dict of public name to the module that defines it: its path from the package on, or its whole name if it is in another package. No module may be called like a public function: importing it
            would put the module in the function's place.

    Returns:
        The package's `__getattr__`, `__dir__` and `__all__`.
    """
    names = sorted(where)

    def getattribute(name):
        if name not in where:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = where[name] if where[name].startswith("tfdistill.") else f"{package}.{where[name]}"
        return getattr(importlib.import_module(module), name)

    def directory():
        return sorted({*vars(sys.modules[package]), *names})

    return getattribute, directory, names
