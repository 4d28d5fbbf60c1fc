"""The whole road in one call: a student is taught, compressed under its teacher, exported and verified."""

from tfdistill.utils.lazy import lazily

__getattr__, __dir__, __all__ = lazily(__name__)
