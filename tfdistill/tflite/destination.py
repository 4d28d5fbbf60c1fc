"""Where a .tflite file is written."""

import os
import pathlib

from tfdistill.errors import ConfigurationError


def destination(path):
    """Returns the path of the file to write.

    Raises:
        ConfigurationError: if it is no path, is a folder, or does not end in .tflite.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise ConfigurationError(
            f"The path is a {type(path).__name__}.", "the path of the file to write", "write export_tflite(model, 'model.tflite')"
        )
    path, folder = pathlib.Path(path), os.path.isdir(path)
    if path.suffix != ".tflite" or folder:
        raise ConfigurationError(
            f"The path '{path}' is a folder." if folder else f"The path '{path}' does not end in .tflite.",
            "a name ending in .tflite",
            f"give the name of a file in it: '{path / 'model.tflite'}'"
            if folder
            else f"give it that ending: '{path.with_suffix('.tflite')}'",
        )
    return path
