"""Export to .tflite, look inside the file, and compare it with its Keras model."""

from tfdistill.utils.lazy import lazily

__getattr__, __dir__, __all__ = lazily(__name__)
