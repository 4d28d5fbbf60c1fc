"""Keras models as graphs: names, traversal, axes, tracing."""

from tfdistill.utils.lazy import lazily

__getattr__, __dir__, __all__ = lazily(__name__)
