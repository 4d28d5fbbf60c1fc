"""Distillation: a teacher, a student, and the Keras model that brings them together."""

from tfdistill.distill.distiller import Distiller
from tfdistill.distill.taps import Tap, Taps, named_layers

__all__ = ["Distiller", "Tap", "Taps", "named_layers"]
