"""Compression steps: each makes a plan, applies it, trains under its callbacks, and checks its promise afterwards."""

from tfdistill.utils.lazy import lazily

__getattr__, __dir__, __all__ = lazily(__name__)
