"""Imports optional packages at their first use, or names the extra that installs them."""

import importlib

from tfdistill.errors import MissingPackageError

# Import name -> extra of setup.py that installs the package.
EXTRAS = {
    "tensorly": "lowrank",
    "optuna": "search",
    "ray": "ray",
    "litert_quantizer": "quantizer",
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
        extra = EXTRAS.get(package)
        command = f'pip install "tfdistill[{extra}]"' if extra else f"pip install {package}"
        raise MissingPackageError(f"The package '{package}' is not installed; it is needed to {why}.", fix=command) from error
