"""What will fail, be slow or be inexact on a device, said before a model is trained."""

from tfdistill.utils.lazy import lazily

__getattr__, __dir__, __all__ = lazily(__name__)
