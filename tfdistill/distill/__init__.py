"""Distillation: teachers, students, and the Keras model that brings them together."""

from tfdistill.lazy import lazily

# Public name -> module, each imported at its first use: who only distils need not wait for chains and caches.
_WHERE = {
    "CallableTeacher": "teacher_black_box",
    "BackupAndRestore": "backup",
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
__getattr__, __dir__, __all__ = lazily(__name__, _WHERE)
