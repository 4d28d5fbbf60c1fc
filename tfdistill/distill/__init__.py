"""Distillation: teachers, students, and the Keras model that brings them together."""

import importlib

# Public name -> module, each imported at its first use: who only distils need not wait for chains and caches.
_WHERE = {
    "CallableTeacher": "teacher_black_box",
    "ChainSettings": "chain_settings",
    "Distiller": "distiller",
    "Ensemble": "teachers",
    "SavedModelTeacher": "teacher_files",
    "StopAtTarget": "callbacks",
    "TFLiteTeacher": "teacher_files",
    "Tap": "taps",
    "Taps": "taps",
    "TeacherReport": "report",
    "as_teacher": "teachers",
    "assistants": "chain",
    "blockwise": "chain",
    "born_again": "chain",
    "many_to_one": "chain",
    "mutual": "chain",
    "named_layers": "taps",
    "warm_start": "warm_starting",
}
__all__ = sorted(_WHERE)


def __getattr__(name):
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)


def __dir__():
    return sorted({*globals(), *__all__})
