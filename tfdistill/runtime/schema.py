"""The generated classes of the .tflite format: from ai-edge-litert, else from TensorFlow."""

import importlib

from tfdistill.runtime import tensorflow_lite


def schema():
    """Returns the module of the format's classes (`Model`, `ModelT`, `TensorType`, `BuiltinOperator` ...).

    Raises:
        RuntimeUnavailableError: if no installed package has them.
    """
    try:
        return importlib.import_module("ai_edge_litert.schema_py_generated")
    except ModuleNotFoundError:
        return tensorflow_lite.schema_module()
