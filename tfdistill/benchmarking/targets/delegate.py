"""A device that an external delegate runs operations on, as a benchmark target."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import ClassVar

from tfdistill.benchmarking.targets.cpu import KERNELS, Cpu, Kernels
from tfdistill.benchmarking.targets.local import Local
from tfdistill.errors import ConfigurationError, nearest
from tfdistill.runtime.delegates import DelegatedModel, open_with_delegate
from tfdistill.runtime.interpreter import ENGINES
from tfdistill.utils import validate
from tfdistill.utils.types import PathLike

Option = str | int | float | bool


@dataclasses.dataclass(frozen=True)
class Delegate(Local):
    """An external delegate as a benchmark target: a shared library that runs operations on a device of its own.

    Such libraries are `libedgetpu.so.1` of Coral's Edge TPU, `libhexagon_delegate.so` of Qualcomm's DSPs and `libarmnnDelegate.so` of Arm NN. What the delegate
    does not take runs on the CPU, and a run counts only if it takes everything, or with `allow_partial`.

    Attributes:
        library: Name or path of the library, as the system's loader takes it.
        options: Dict of name -> value that the delegate itself knows, such as `{"device": "usb:0"}`.
        allow_partial: Whether a run counts if the delegate leaves a part of the operations; the record then says how many, and which. None at all never counts.
        threads: CPU threads for what it leaves, at least 1.
        kernels: What runs what it leaves: `"xnnpack"`, `"builtin"` or `"reference"`, as in `Cpu`.
        engine: Import name of the interpreter; None takes the first that is installed.

    Example:
        >>> tfdistill.benchmarking.Delegate("libedgetpu.so.1", {"device": "usb"}).describe()
        'delegate libedgetpu.so.1, device=usb'
    """

    kind: ClassVar[str] = "delegate"
    accelerator: ClassVar[bool] = True
    is_timed: ClassVar[bool] = True

    library: str
    options: Mapping[str, Option] = dataclasses.field(default_factory=dict)
    allow_partial: bool = False
    threads: int = 1
    kernels: Kernels = "xnnpack"
    engine: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "library", str(self.library))
        if not self.library or "\0" in self.library:
            raise ConfigurationError(f"Delegate(library={self.library!r}) is impossible.", "name or path of a shared library")
        if not isinstance(self.options, Mapping) or not all(
            isinstance(name, str) and isinstance(value, Option) for name, value in self.options.items()
        ):
            raise ConfigurationError(f"Delegate(options={self.options!r}) is impossible.", "a dict of names to numbers and texts")
        object.__setattr__(self, "options", dict(self.options))
        validate.boolean("allow_partial", self.allow_partial, "Delegate")
        validate.whole_number("threads", self.threads, owner="Delegate")
        validate.one_of("kernels", self.kernels, KERNELS, "Delegate")
        if self.engine is not None and self.engine not in ENGINES:
            raise ConfigurationError(
                f"There is no engine '{self.engine}'.", f"one of {', '.join(ENGINES)}", nearest(str(self.engine), ENGINES)
            )

    def describe(self) -> str:
        """Returns a description for people, such as `"delegate libedgetpu.so.1"`."""
        named = [f"delegate {self.library}", *(f"{name}={value}" for name, value in self.options.items())]
        if self.allow_partial:
            named.append("the rest on the CPU")
        return ", ".join(named)

    def open(self, path: PathLike, shapes: Mapping[str, Sequence[int]] | None = None) -> DelegatedModel:
        """Opens a .tflite file with the delegate, which may crash this process.

        Args:
            path: The file.
            shapes: Dict of input name -> full shape, batch included, to resize these inputs to.

        Returns:
            A `tfdistill.runtime.delegates.DelegatedModel`.
        """
        return open_with_delegate(path, self.library, self.options, self.threads, self.kernels, self.engine, shapes)

    def import_runtime(self) -> str:
        """Imports the interpreter; returns its name and version."""
        return Cpu(engine=self.engine).import_runtime()
