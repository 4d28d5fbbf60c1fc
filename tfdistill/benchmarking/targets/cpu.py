"""The CPU of this machine as a benchmark target."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, get_args

from tfdistill.benchmarking.targets.local import Local
from tfdistill.errors import ConfigurationError, nearest
from tfdistill.runtime.amx import refuse_amx
from tfdistill.runtime.interpreter import ENGINES, engine_name, interpreter_class, open_file
from tfdistill.runtime.model import TFLiteModel
from tfdistill.runtime.versions import installed_version
from tfdistill.utils import validate
from tfdistill.utils.deprecation import renamed_arguments
from tfdistill.utils.types import PathLike

Kernels = Literal["xnnpack", "builtin", "reference"]
KERNELS: tuple[Kernels, ...] = get_args(Kernels)
_NAMES = {"xnnpack": "XNNPACK", "builtin": "built-in kernels", "reference": "reference kernels"}


@dataclasses.dataclass(frozen=True)
class Cpu(Local):
    """The CPU of this machine as a benchmark target.

    Attributes:
        threads: CPU threads, at least 1. With more threads than usable cores the scheduler dominates the times.
        kernels: What runs the operations: `"xnnpack"` where it takes them and the built-in kernels elsewhere (the interpreter's default), `"builtin"` the
            built-in kernels alone, `"reference"` their plain forms, which are slow and the same on all machines.
        engine: Import name of the interpreter (`ai_edge_litert`, `tflite_runtime` or `tensorflow`); None takes the first that is installed.
        amx: Whether XNNPACK may use AMX, the matrix unit of recent Intel server processors. No phone or board has it, and with few channels
            it takes several times as long as the vector instructions: False measures int8 files as processors without it run them. Without AMX it changes nothing.

    Example:
        >>> target = tfdistill.benchmarking.Cpu(threads=2, kernels="builtin")
        >>> target.describe()
        'CPU, 2 threads, built-in kernels'
        >>> sorted(target.open("student.tflite").inputs)
        ['image']
    """

    kind: ClassVar[str] = "cpu"
    accelerator: ClassVar[bool] = False
    is_timed: ClassVar[bool] = True

    threads: int = 1
    kernels: Kernels = "xnnpack"
    engine: str | None = None
    amx: bool = True

    def __post_init__(self) -> None:
        validate.whole_number("threads", self.threads)
        if isinstance(self.kernels, bool):  # the value of the old argument `xnnpack`
            object.__setattr__(self, "kernels", "xnnpack" if self.kernels else "builtin")
        validate.boolean("amx", self.amx, "Cpu")
        validate.one_of("kernels", self.kernels, KERNELS, "Cpu")
        if self.engine is not None and self.engine not in ENGINES:
            raise ConfigurationError(
                f"There is no engine '{self.engine}'.", f"one of {', '.join(ENGINES)}", nearest(str(self.engine), ENGINES)
            )

    def describe(self) -> str:
        """Returns a description for people, such as `"CPU, 1 thread, XNNPACK"`."""
        without = "" if self.amx else " without AMX"
        return f"CPU, {self.threads} {'thread' if self.threads == 1 else 'threads'}, {_NAMES[self.kernels]}{without}"

    def open(self, path: PathLike, shapes: Mapping[str, Sequence[int]] | None = None) -> TFLiteModel:
        """Opens a .tflite file with these settings, without trying it in another process first: a damaged file may crash this process.

        With `amx=False` this process has no AMX from now on; if it has opened a file before, XNNPACK keeps it.

        Args:
            path: The file.
            shapes: Dict of input name -> full shape, batch included, to resize these inputs to.

        Returns:
            A `tfdistill.runtime.model.TFLiteModel`.

        Raises:
            RuntimeUnavailableError: for `amx=False` if the kernel has no filters of system calls.
        """
        if not self.amx:
            refuse_amx()
        return open_file(path, threads=self.threads, kernels=self.kernels, engine=self.engine, shapes=shapes, trusted=True)

    def import_runtime(self) -> str:
        """Imports the interpreter; returns its name and version."""
        engine = self.engine or engine_name()
        interpreter_class(engine)
        return f"{engine} {installed_version(engine)}".strip()


# `xnnpack=True` and `xnnpack=False` were what `kernels` is now.
_init = functools.wraps(Cpu.__init__)(renamed_arguments("0.1", xnnpack="kernels")(Cpu.__init__))
Cpu.__init__ = _init  # type: ignore[method-assign]
