"""The whole road on real data: what `tfdistill demo` runs."""

from tfdistill.demo.run import run_demo

__all__ = ["run_demo"]
