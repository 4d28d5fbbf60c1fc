"""Benchmarks .tflite files: `tfdistill.benchmark(path, target=Cpu(threads=1))`."""

from tfdistill.utils.lazy import lazily

__getattr__, __dir__, __all__ = lazily(__name__)
