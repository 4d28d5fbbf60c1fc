"""Distillation: teachers, students, and the Keras model that brings them together."""

from tfdistill.utils.lazy import lazily

__getattr__, __dir__, __all__ = lazily(__name__)
