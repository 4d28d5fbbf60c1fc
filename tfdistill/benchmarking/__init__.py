"""Truthful timing of .tflite files: `tfdistill.benchmark(path, target=Cpu(threads=1))`."""

from tfdistill.utils.lazy import lazily

# Public name -> module, imported at first use: the child process that measures must not wait for, nor hold in memory, what it does not
# need.
_WHERE = {
    "BenchmarkRecord": "record",
    "Cpu": "targets.cpu",
    "Timing": "timing",
    "benchmark": "run",
}
__getattr__, __dir__, __all__ = lazily(__name__, _WHERE)
