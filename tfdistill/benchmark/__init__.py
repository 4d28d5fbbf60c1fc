"""Truthful timing of .tflite files: `tfdistill.benchmark(path, target=Cpu(threads=1))`."""

import sys
import types

from tfdistill.lazy import lazily

# Public name -> module, imported at first use: the child process that measures must not wait for, nor hold in memory, what it does not
# need.
_WHERE = {
    "BenchmarkRecord": "record",
    "Cpu": "targets",
    "Timing": "timing",
}
__getattr__, __dir__, __all__ = lazily(__name__, _WHERE)


class _CallablePackage(types.ModuleType):
    """Makes the package itself the function.

    `tfdistill.benchmark` has to be a package, for `from tfdistill.benchmark import Cpu`, and a function, for `tfdistill.benchmark(path)`.
    A function of that name in `tfdistill/__init__.py` would be replaced by the package as soon as any submodule is imported; a package
    that can be called cannot.
    """

    def __call__(self, path, target=None, *, timing=None, variant=None, timeout_seconds=None, shapes=None):
        """See `tfdistill.benchmark.run.benchmark`."""
        from tfdistill.benchmark.run import benchmark

        return benchmark(path, target, timing=timing, variant=variant, timeout_seconds=timeout_seconds, shapes=shapes)


sys.modules[__name__].__class__ = _CallablePackage
