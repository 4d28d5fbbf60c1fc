"""Import an optional package at its first use, or name the extra that brings it."""

import importlib

from tfdistill.errors import MissingPackageError

# Import name -> extra of setup.py. Packages that are always installed are not listed.
EXTRAS = {
    "tensorly": "lowrank",
    "optuna": "search",
    "ray": "ray",
    "litert_quantizer": "quantizer",
    "matplotlib": "report",
    "jinja2": "report",
    "sklearn": "demo",
}


def require(module, why):
    """Imports `module`, or raises an error that says how to install it.

    Args:
        module: Dotted import name, for example `"matplotlib.pyplot"`.
        why: What it is needed for, as the end of the sentence "... is needed to ...".

    Returns:
        The module.

    Raises:
        MissingPackageError: if it is not installed; the message names the extra.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        # A package that is there but itself lacks something is another fault: do not hide it.
        if error.name is None or error.name.partition(".")[0] != package:
            raise
        extra = EXTRAS.get(package)
        command = f'pip install "tfdistill[{extra}]"' if extra else f"pip install {package}"
        raise MissingPackageError(f"The package '{package}' is not installed; it is needed to {why}.", fix=command) from error
