"""The data that a command is given: a folder of images, a NumPy file, or a function of the user's own."""

import os
import pathlib
import sys
import zipfile

from tfdistill.convert.image_folder import ImageFolder
from tfdistill.errors import ConfigurationError, DataError, TfdistillError
from tfdistill.utils.named import function_named

FORMS = "a folder of images (a subfolder for each class), an .npz or .npy file, or module:function"


def load_all(texts, model, rescale):
    """Returns what `load_data` does for each text, and None for None; refuses a factor that no folder of images is given for."""
    if rescale != 1.0 and not any(text and os.path.isdir(text) for text in texts):
        raise ConfigurationError(
            f"--rescale {rescale:g} was given without a folder of images.",
            "a folder of images, whose values it scales",
            "leave it out, and scale arrays where they are made",
        )
    return [None if text is None else load_data(text, model, rescale) for text in texts]


def load_data(text, model, rescale=1.0):
    """Returns the data that a text names, in a form that `export_tflite` and `verify` take.

    Args:
        text: One of `FORMS`. An .npz file holds the arrays `x` and, for labels, `y`, or one array for each input of the model by its name.
        model: The Keras model, for the size of the images and the names of the inputs.
        rescale: Factor on the values of images from a folder, which are 0 to 255.

    Raises:
        ConfigurationError: if it names nothing that is there.
        DataError: if it cannot be read.
    """
    path = pathlib.Path(text)
    if path.is_dir():
        return ImageFolder(path, None if rescale == 1.0 else lambda images: images * rescale)
    if path.suffix in (".npz", ".npy") and path.is_file():
        return _arrays(path, model)
    if path.exists() or ":" not in text or path.suffix in (".npz", ".npy"):
        raise ConfigurationError(f"There is no data '{text}'.", FORMS)
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # as with `python -m`
    function = function_named(text)
    try:
        return function()
    except TfdistillError:
        raise
    except Exception as error:  # the user's own code
        raise DataError(
            f"The function '{text}' raised {type(error).__name__}: {error}.", "a function without arguments that returns data"
        ) from error


def _arrays(path, model):
    import numpy as np

    try:
        if path.suffix == ".npy":
            arrays = {"x": np.load(path, allow_pickle=False)}
        else:
            with np.load(path, allow_pickle=False) as found:
                arrays = {name: found[name] for name in found.files}
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise DataError(f"'{path}' cannot be read: {error}", "arrays of numbers that np.savez or np.save wrote") from error
    labels = arrays.pop("y", None)
    if "x" not in arrays and not arrays:
        raise DataError(f"'{path}' holds no inputs.", "the array x, or one for each input by its name", "np.savez('data.npz', x=x, y=y)")
    inputs = arrays["x"] if set(arrays) == {"x"} and "x" not in getattr(model, "input_names", ()) else arrays
    return inputs if labels is None else (inputs, labels)
