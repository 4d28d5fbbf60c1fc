"""The only place that imports `tf_keras` and tensorflow-model-optimization (TFMOT).

Importing TFMOT sets `TF_USE_LEGACY_KERAS=1` for the whole process, and overwrites a user's own value. If that happens before the first use of
`tf.keras`, `tf.keras` becomes `tf_keras` in the whole process. So both are imported at first use only, after TensorFlow and Keras, and the variable
gets its old value back.
"""

import contextlib
import functools
import os
import warnings

_VARIABLE = "TF_USE_LEGACY_KERAS"
# Private modules of tf_keras whose classes it names in configs. Nothing else of tf_keras.src is read but the flag of `tf_keras_safe_mode`.
MODULES_IN_CONFIGS = ("tf_keras.src.engine.functional", "tf_keras.src.engine.base_layer", "tf_keras.src.layers.core.tf_op_layer")


@contextlib.contextmanager
def _environment_kept():
    before = os.environ.get(_VARIABLE)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(_VARIABLE, None)
        else:
            os.environ[_VARIABLE] = before


def _settle_tf_keras_name():
    # tf.keras is resolved lazily, at its first attribute access: let that be Keras 3 before anything can change the variable.
    import tensorflow as tf

    _ = tf.keras.Model


@functools.cache
def tf_keras():
    """Returns the `tf_keras` module (Keras 2)."""
    _settle_tf_keras_name()
    import tf_keras as module

    return module


@functools.cache
def tfmot():
    """Returns the `tensorflow_model_optimization` module, with the process's environment left as it was."""
    tf_keras()
    with _environment_kept(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside TFMOT that its users cannot fix
        import tensorflow_model_optimization as module

    return module


@contextlib.contextmanager
def tf_keras_safe_mode(on):
    """While open, tf_keras loads in safe mode or, with `on=False`, loads Lambda layers with Python code too. The flag is private to tf_keras."""
    tf_keras()
    from tf_keras.src.saving import serialization_lib

    with serialization_lib.SafeModeScope(on):
        yield
