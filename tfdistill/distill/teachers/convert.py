"""Conversion of anything that can be a teacher to a `keras.Model`."""

import os
import typing

import keras

from tfdistill.bridge.adopt.adopt import adopt
from tfdistill.distill.teachers import files
from tfdistill.distill.teachers.callable import CallableTeacher
from tfdistill.distill.teachers.keras_file import KerasFile
from tfdistill.errors import ModelError


def as_teacher(teacher: typing.Any) -> keras.Model:
    """Converts a teacher of any kind to a `keras.Model`. `Distiller` and `soft_targets` do so with what they are given.

    Args:
        teacher: One of
            - a `keras.Model`, an `Ensemble` or an adopted tf_keras model: returned as it is;
            - a built tf_keras model: adopted;
            - a path of a .keras or .h5 file: loaded in safe mode, not compiled;
            - a path of a .tflite file or a SavedModel folder: `TFLiteTeacher`, `SavedModelTeacher`;
            - a callable `f(x) -> array` of NumPy arrays: `CallableTeacher`.

    Returns:
        `keras.Model`.

    Raises:
        ModelError: if it is none of these, or cannot be read.

    Example:
        >>> tfdistill.distill.as_teacher("student.tflite").name
        'student'
        >>> tfdistill.distill.as_teacher(teacher) is teacher
        True
    """
    if isinstance(teacher, keras.Model):
        return teacher
    # By the name of its module, as an isinstance check would import tf_keras.
    if any(cls.__module__.partition(".")[0] == "tf_keras" for cls in type(teacher).__mro__):
        return adopt(teacher)
    file = KerasFile.of(teacher)
    if file is not None:
        return file.load()
    if isinstance(teacher, (str, os.PathLike)):
        return files.from_path(teacher)
    if callable(teacher) and not isinstance(teacher, type):
        return CallableTeacher(teacher)
    raise ModelError(
        f"Teacher must be a keras.Model or something that becomes one, got {teacher if isinstance(teacher, type) else type(teacher)}.",
        "a Keras or tf_keras model, a path of a .keras, .h5 or .tflite file or a SavedModel folder, a callable of NumPy arrays, or an Ensemble of these",
    )
