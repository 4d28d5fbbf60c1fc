"""The only door to the generated classes of the .tflite format."""

import importlib

from tfdistill.errors import RuntimeUnavailableError

_HOMES = ("ai_edge_litert.schema_py_generated", "tensorflow.lite.python.schema_py_generated")


def schema():
    """Returns the module of the format's classes (`Model`, `ModelT`, `TensorType`, `BuiltinOperator` ...).

    Raises:
        RuntimeUnavailableError: if no installed package brings it.
    """
    causes = []
    for home in _HOMES:
        try:
            return importlib.import_module(home)
        except ModuleNotFoundError as error:
            causes.append(error)
    raise RuntimeUnavailableError(
        f"The classes of the .tflite format are not installed: {'; '.join(str(c) for c in causes)}.",
        f"one of {', '.join(_HOMES)}",
        "pip install ai-edge-litert",
    ) from causes[0]
