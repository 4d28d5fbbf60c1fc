"""Distil, compress, export, verify and benchmark Keras models for phones and small boards.

The public names are loaded at their first use: importing the package takes a few milliseconds and imports neither TensorFlow nor Keras. It makes every
class that the package saves known to Keras, so that `keras.saving.load_model` works after `import tfdistill` alone.
"""

import importlib

from tfdistill.public import ROOMS, TOP, module_of
from tfdistill.saveable import register_saved_classes
from tfdistill.utils.deprecation import deprecated_attribute, is_deprecated
from tfdistill.utils.lazy import missing
from tfdistill.version import __version__

__all__ = ["__version__", *TOP, *ROOMS]

register_saved_classes()


def __getattr__(name):
    if name in TOP:
        value = getattr(importlib.import_module(module_of(TOP[name], name)), name)
    elif name in ROOMS:
        value = importlib.import_module(f"tfdistill.{name}")
    elif is_deprecated(__name__, name):
        value = deprecated_attribute(__name__, name)
    else:
        raise missing(__name__, name)
    globals()[name] = value
    return value


def __dir__():
    return sorted(__all__)
