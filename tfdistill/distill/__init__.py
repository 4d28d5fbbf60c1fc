"""Distillation: teachers, students, and the Keras model that brings them together."""

from tfdistill.utils.lazy import lazily

# Public name -> module, each imported at its first use: who only distils need not wait for chains and caches.
_WHERE = {
    "CallableTeacher": "teachers.callable",
    "BackupAndRestore": "backup.callback",
    "ChainSettings": "chains.settings",
    "Distiller": "distiller",
    "Ensemble": "teachers.ensemble",
    "SavedModelTeacher": "teachers.files",
    "StopAtTarget": "callbacks",
    "TFLiteTeacher": "teachers.files",
    "Tap": "objective.taps",
    "Taps": "objective.taps",
    "TeacherReport": "metrics.teacher_report",
    "as_teacher": "teachers.convert",
    "assistants": "chains.sequential",
    "blockwise": "chains.sequential",
    "born_again": "chains.sequential",
    "many_to_one": "chains.average",
    "mutual": "chains.sequential",
    "named_layers": "tfdistill.graph.names",
    "warm_start": "initialization.warm_start",
}
__getattr__, __dir__, __all__ = lazily(__name__, _WHERE)
