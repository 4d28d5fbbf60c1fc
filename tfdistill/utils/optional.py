"""Imports optional packages at their first use, or names the extra that installs them."""

import importlib
import importlib.util

from tfdistill.errors import MissingPackageError

# Import name -> extra of setup.py that installs the package.
EXTRAS = {
    "tensorly": "lowrank",
    "optuna": "search",
    "ray": "ray",
    "litert_quantizer": "quantizer",
    "ai_edge_quantizer": "quantizer",
    "matplotlib": "report",
    "jinja2": "report",
    "sklearn": "demo",
    "tflite_micro": "micro",
}


def require(module, why):
    """Imports an optional module.

    Args:
        module: Dotted import name, for example `"matplotlib.pyplot"`.
        why: Its purpose, as the end of the sentence "It is needed to ...".

    Returns:
        The module.

    Raises:
        MissingPackageError: if it is not installed; the message has the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        # An installed package that lacks one of its own dependencies is another fault, which is not hidden.
        if error.name is None or error.name.partition(".")[0] != package:
            raise
        raise missing_package(package, why) from error


def require_one(modules, why):
    """Imports the first of several modules that is installed: names that one package has had.

    Args:
        modules: Their dotted import names, today's first.
        why: As for `require`.

    Returns:
        The module.

    Raises:
        MissingPackageError: if none is installed; the message has the command that installs the first.
    """
    found = (name for name in modules if importlib.util.find_spec(name.partition(".")[0]) is not None)
    return require(next(found, modules[0]), why)


def missing_package(package, why):
    """Returns the error of an optional package that is not installed.

    Args:
        package: Its import name.
        why: As for `require`.
    """
    extra = EXTRAS.get(package)
    command = f'pip install "tfdistill[{extra}]"' if extra else f"pip install {package}"
    return MissingPackageError(f"The package '{package}' is not installed; it is needed to {why}.", fix=command)
