"""Opens .tflite files with an external delegate: a shared library that runs operations on a device (Edge TPU, Hexagon, Arm NN, and others)."""

import importlib

from tfdistill.errors import ConfigurationError, RuntimeUnavailableError
from tfdistill.runtime import tensorflow_lite
from tfdistill.runtime.delegated import delegation
from tfdistill.runtime.interpreter import engine_name, open_file


class DelegatedModel:
    """A `TFLiteModel` that was opened with an external delegate.

    Everything but `delegation` is that model's own.

    Args:
        model: The `TFLiteModel`.
        taken: The `Delegation` of the external delegate alone.
    """

    def __init__(self, model, taken):
        self._model, self._taken = model, taken

    def __getattr__(self, name):
        return getattr(self._model, name)

    def delegation(self):
        """Returns the `Delegation` of the external delegate: what XNNPACK takes is left by it."""
        return self._taken


def load_delegate(library, options, engine=None):
    """Loads an external delegate.

    Args:
        library: Name or path of the shared library, as the system's loader takes it.
        options: Dict of name -> value, which the delegate itself knows.
        engine: Import name of the interpreter; None takes the first that is installed.

    Returns:
        The interpreter's delegate object.

    Raises:
        RuntimeUnavailableError: if the library is missing or no delegate, or the delegate does not start; with the loader's or its own words.
    """
    engine = engine or engine_name()
    load = tensorflow_lite.load_delegate() if engine == "tensorflow" else importlib.import_module(f"{engine}.interpreter").load_delegate
    try:
        return load(library, options)
    except OSError as error:
        raise RuntimeUnavailableError(f"The delegate '{library}' cannot be loaded: {error}", "a shared library of this machine") from error
    except AttributeError as error:
        raise RuntimeUnavailableError(
            f"'{library}' is no external delegate: {error}", "a library that exports tflite_plugin_create_delegate"
        ) from error
    except ValueError as error:
        said = str(error).removeprefix(f"Failed to load delegate from {library}").strip()
        raise RuntimeUnavailableError(
            f"The delegate '{library}' does not start with the options {options}: {said or 'it says nothing'}",
            "a device that is there, and options that the delegate knows",
        ) from error


def open_with_delegate(path, library, options, threads=1, kernels="xnnpack", engine=None, shapes=None):
    """Opens a .tflite file with an external delegate. A faulty delegate may end the process.

    Args:
        path: The file.
        library: Name or path of the shared library.
        options: Dict of name -> value, for the delegate.
        threads: CPU threads for what it leaves.
        kernels: What runs what it leaves.
        engine: Import name of the interpreter; None takes the first that is installed.
        shapes: Dict of input name -> full shape, to resize these inputs to.

    Returns:
        A `DelegatedModel`.

    Raises:
        ConfigurationError: for an interpreter that cannot list its operations.
        RuntimeUnavailableError: if the delegate or the file cannot be loaded, or they do not fit together; with their words.
    """

    def opened(kernels):
        delegate = load_delegate(library, options, engine)
        try:
            return open_file(path, threads, kernels=kernels, engine=engine, shapes=shapes, trusted=True, delegates=[delegate])
        except RuntimeUnavailableError as error:
            raise RuntimeUnavailableError(
                f"The delegate '{library}' does not take '{path}': {error.happened}", "a file and a delegate that fit together"
            ) from error

    model = opened(kernels)
    taken = model.delegated_first
    if taken is None:
        raise ConfigurationError(
            f"{model.engine} does not list its operations, so that it cannot be told what '{library}' runs.", "ai-edge-litert 2.1 or newer"
        )
    if shapes:
        # Resizing undoes what a delegate took; allocating lets it take anew, and XNNPACK at the same time, whose parts look the same.
        taken = delegation(opened("builtin").interpreter)
    return DelegatedModel(model, taken)
