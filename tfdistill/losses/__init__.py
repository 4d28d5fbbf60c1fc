"""Losses: what a teacher knows, and how a student is held to it."""

from tfdistill.utils.lazy import lazily

__getattr__, __dir__, __all__ = lazily(__name__)
