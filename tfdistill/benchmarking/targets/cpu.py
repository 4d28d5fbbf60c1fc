"""The machine's own processor as a target."""

import dataclasses
from typing import ClassVar

from tfdistill.errors import ConfigurationError, nearest
from tfdistill.runtime.interpreter import ENGINES, open_file


@dataclasses.dataclass(frozen=True)
class Cpu:
    """The machine's own processor.

    Attributes:
        threads: CPU threads, at least 1. More than the cores at hand measure the scheduler.
        xnnpack: Whether XNNPACK may take the nodes it can (the interpreter's default); False runs the plain built-in kernels.
        engine: Import name of the interpreter (`ai_edge_litert`, `tflite_runtime` or `tensorflow`); None takes the first that is installed.
    """

    kind: ClassVar[str] = "cpu"

    threads: int = 1
    xnnpack: bool = True
    engine: str | None = None

    def __post_init__(self):
        if not isinstance(self.threads, int) or isinstance(self.threads, bool) or self.threads < 1:
            raise ConfigurationError(f"threads={self.threads!r} is impossible.", "a whole number, at least 1")
        if self.engine is not None and self.engine not in ENGINES:
            raise ConfigurationError(
                f"There is no engine '{self.engine}'.", f"one of {', '.join(ENGINES)}", nearest(str(self.engine), ENGINES)
            )

    def describe(self):
        """Returns the target in words."""
        return f"CPU, {self.threads} {'thread' if self.threads == 1 else 'threads'}, {'XNNPACK' if self.xnnpack else 'built-in kernels'}"

    def open(self, path, shapes=None):
        """Opens `path` there, in a process that may crash; returns a `tfdistill.runtime.interpreter.TFLiteModel`."""
        return open_file(path, threads=self.threads, xnnpack=self.xnnpack, engine=self.engine, shapes=shapes, trusted=True)
