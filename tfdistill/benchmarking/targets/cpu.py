"""The CPU of this machine as a benchmark target."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import ClassVar

from tfdistill.errors import ConfigurationError, nearest
from tfdistill.runtime.interpreter import ENGINES, open_file
from tfdistill.runtime.model import TFLiteModel
from tfdistill.utils import validate
from tfdistill.utils.types import PathLike


@dataclasses.dataclass(frozen=True)
class Cpu:
    """The CPU of this machine as a benchmark target.

    Attributes:
        threads: CPU threads, at least 1. With more threads than usable cores the scheduler dominates the times.
        xnnpack: Whether XNNPACK runs the operations that it supports (the interpreter's default); False runs the built-in kernels.
        engine: Import name of the interpreter (`ai_edge_litert`, `tflite_runtime` or `tensorflow`); None takes the first that is installed.

    Example:
        >>> target = tfdistill.benchmarking.Cpu(threads=2, xnnpack=False)
        >>> target.describe()
        'CPU, 2 threads, built-in kernels'
        >>> sorted(target.open("student.tflite").inputs)
        ['image']
    """

    kind: ClassVar[str] = "cpu"

    threads: int = 1
    xnnpack: bool = True
    engine: str | None = None

    def __post_init__(self) -> None:
        validate.whole_number("threads", self.threads)
        if self.engine is not None and self.engine not in ENGINES:
            raise ConfigurationError(
                f"There is no engine '{self.engine}'.", f"one of {', '.join(ENGINES)}", nearest(str(self.engine), ENGINES)
            )

    def describe(self) -> str:
        """Returns a description for people, such as `"CPU, 1 thread, XNNPACK"`."""
        return f"CPU, {self.threads} {'thread' if self.threads == 1 else 'threads'}, {'XNNPACK' if self.xnnpack else 'built-in kernels'}"

    def open(self, path: PathLike, shapes: Mapping[str, Sequence[int]] | None = None) -> TFLiteModel:
        """Opens a .tflite file with these settings, without trying it in another process first: a damaged file may crash this process.

        Args:
            path: The file.
            shapes: Dict of input name -> full shape, batch included, to resize these inputs to.

        Returns:
            A `tfdistill.runtime.model.TFLiteModel`.
        """
        return open_file(path, threads=self.threads, xnnpack=self.xnnpack, engine=self.engine, shapes=shapes, trusted=True)
