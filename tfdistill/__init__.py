"""Distil, compress, export, verify and benchmark Keras models for phones and small boards.

The public names are loaded at their first use: importing the package takes a few milliseconds and imports neither TensorFlow nor Keras. It makes every
class that the package saves known to Keras, so that `keras.saving.load_model` works after `import tfdistill` alone.
"""

import importlib

from tfdistill.saveable import register_saved_classes
from tfdistill.version import __version__

# Public name -> module that defines it.
_HOMES = {
    "BackupAndRestore": "tfdistill.distill",
    "Distiller": "tfdistill.distill",
    "Ensemble": "tfdistill.distill",
    "RemoteTeacher": "tfdistill.distill.teachers.remote",
    "SoftTargetCache": "tfdistill.distill.cache.reader",
    "StopAtTarget": "tfdistill.distill",
    "TeacherReport": "tfdistill.distill",
    "assistants": "tfdistill.distill",
    "label": "tfdistill.distill.cache.ray_workers",
    "soft_targets": "tfdistill.distill.cache.build",
    "blockwise": "tfdistill.distill",
    "born_again": "tfdistill.distill",
    "many_to_one": "tfdistill.distill",
    "mutual": "tfdistill.distill",
    "warm_start": "tfdistill.distill",
    "to_tf_keras": "tfdistill.bridge",
    "to_keras": "tfdistill.bridge",
    "adopt": "tfdistill.bridge",
    "export_tflite": "tfdistill.tflite",
    "verify": "tfdistill.tflite",
    "census": "tfdistill.tflite",
    "benchmark": "tfdistill.benchmarking",
}
_ROOMS = ("losses", "distill", "compress", "bridge", "tflite", "benchmarking", "errors")

__all__ = ["__version__", *_HOMES, *_ROOMS]

register_saved_classes()


def __getattr__(name):
    if name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
    elif name in _ROOMS:
        value = importlib.import_module(f"tfdistill.{name}")
    else:
        raise AttributeError(f"module 'tfdistill' has no attribute '{name}'")
    globals()[name] = value
    return value


def __dir__():
    return sorted(__all__)
