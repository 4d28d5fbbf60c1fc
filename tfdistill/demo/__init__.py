"""The demo, `tfdistill demo`: distils, prunes, quantizes, exports, verifies and times a small model on real images."""

from tfdistill.demo.run import run_demo

__all__ = ["run_demo"]
