"""Distillation: a teacher, a student, and the Keras model that brings them together."""

from tfdistill.distill.distiller import Distiller
from tfdistill.distill.taps import Tap, Taps, named_layers
from tfdistill.distill.teacher_black_box import CallableTeacher
from tfdistill.distill.teacher_files import SavedModelTeacher, TFLiteTeacher
from tfdistill.distill.teachers import Ensemble, as_teacher

__all__ = ["CallableTeacher", "Distiller", "Ensemble", "SavedModelTeacher", "TFLiteTeacher", "Tap", "Taps", "as_teacher", "named_layers"]
