"""The only module that uses `tf.lite`, which TensorFlow has deprecated since version 2.20 and is going to remove.

The converter has no replacement yet: without `tf.lite` no model can be exported. Files still run and are still read, because ai-edge-litert
has the interpreter and the classes of the format.
"""

import importlib
import pathlib

from tfdistill.errors import RuntimeUnavailableError

_OLDER, _LITERT = 'pip install "tensorflow==2.21.*"', "pip install ai-edge-litert"


def converter_class():
    """Returns `TFLiteConverter`.

    Raises:
        RuntimeUnavailableError: if TensorFlow has no `tf.lite`, as in all functions of this module.
    """
    return _lite("converts models to .tflite files", _OLDER).TFLiteConverter


def saved_model_converter(folder, signature):
    """Returns a `TFLiteConverter` of one signature of a SavedModel.

    `TFLiteConverter.from_saved_model` loads the folder twice, to make functions of it in Python that the conversion does not need.

    Args:
        folder: The folder.
        signature: Name of the signature.
    """
    converter_class()
    module = importlib.import_module("tensorflow.lite.python.lite")

    class SavedModelConverter(module.TFLiteSavedModelConverterV2):
        def convert(self):
            return self._convert_and_export_metrics(lambda _: self._convert_from_saved_model(_definition(folder)))

    # What `from_saved_model` notes for the file's metadata.
    SavedModelConverter._set_original_model_type(module.conversion_metadata_fb.ModelType.TF_SAVED_MODEL)
    return SavedModelConverter(folder, {"serve"}, [signature])


def _definition(folder):
    from tensorflow.core.protobuf import saved_model_pb2

    return saved_model_pb2.SavedModel.FromString(pathlib.Path(folder, "saved_model.pb").read_bytes()).meta_graphs[0].graph_def


def operation_set(name):
    """Returns the member of `OpsSet` with this name, such as `"TFLITE_BUILTINS"`: operations that a converted file may have."""
    return getattr(_lite("has the operations of .tflite files", _OLDER).OpsSet, name)


def default_optimization():
    """Returns `Optimize.DEFAULT`, the setting with which the converter quantizes."""
    return _lite("has the settings of the converter", _OLDER).Optimize.DEFAULT


def one_scale_for_dense(converter):
    """Lets a converter give the weights of a dense layer one scale, as older runtimes have no other. TensorFlow has no public name for the setting."""
    converter._experimental_disable_per_channel_quantization_for_dense_layers = True


def interpreter_class():
    """Returns TensorFlow's own `Interpreter`."""
    return _lite("has TensorFlow's interpreter of .tflite files", _LITERT).Interpreter


def resolver_types():
    """Returns `OpResolverType`, the choice of kernels of TensorFlow's own interpreter."""
    return _lite("has TensorFlow's interpreter of .tflite files", _LITERT).experimental.OpResolverType


def load_delegate():
    """Returns `load_delegate`, which loads an external delegate for TensorFlow's own interpreter."""
    return _lite("has TensorFlow's interpreter of .tflite files", _LITERT).experimental.load_delegate


def schema_module():
    """Returns the module with the generated classes of the .tflite format."""
    try:
        return importlib.import_module("tensorflow.lite.python.schema_py_generated")
    except ImportError as error:
        raise RuntimeUnavailableError(
            f"The classes of the .tflite format are not installed: {error}.",
            "ai-edge-litert, or a TensorFlow with tf.lite",
            _LITERT,
        ) from error


def _lite(purpose, fix):
    import tensorflow as tf

    try:
        return tf.lite
    except (AttributeError, ImportError) as error:
        raise RuntimeUnavailableError(
            f"TensorFlow {tf.__version__} has no tf.lite, which {purpose}.", "a TensorFlow with tf.lite, as 2.18 to 2.21 have", fix
        ) from error
