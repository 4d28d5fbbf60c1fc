"""Folders that put a .tflite file on a device: what runs there, the file, its description, and test vectors."""

from tfdistill.utils.lazy import lazily

__getattr__, __dir__, __all__ = lazily(__name__)
