"""Compression steps: pruning, clustering and quantization-aware training, all with the methods plan, apply, callbacks, strip and check."""

from tfdistill.utils.lazy import lazily

__getattr__, __dir__, __all__ = lazily(__name__)
