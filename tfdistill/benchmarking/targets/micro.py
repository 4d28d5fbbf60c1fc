"""The runtime of microcontrollers as a benchmark target."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import ClassVar

from tfdistill.benchmarking.targets.local import Local
from tfdistill.runtime.micro import MicroFile, runtime_module
from tfdistill.runtime.versions import installed_version
from tfdistill.utils import validate
from tfdistill.utils.types import PathLike


@dataclasses.dataclass(frozen=True)
class Micro(Local):
    """tflite-micro, the runtime of microcontrollers, on this machine: whether a file runs there, in how much memory, and with which outputs.

    It says nothing about time: its kernels here are not those of a microcontroller, so the record has none. The arena is that of a machine with pointers of 8
    bytes; one of 4 bytes needs less.

    Attributes:
        arena_bytes: Memory that the tensors and all that the runtime keeps have to fit in; None takes what the file needs.

    Example:
        >>> record = tfdistill.benchmark("student.tflite", tfdistill.benchmarking.Micro(), variant="float32")
        >>> record.status, record.operators
        ('measured', ('CONV_2D', 'FULLY_CONNECTED', 'MEAN'))
        >>> record.arena_sections["head"] + record.arena_sections["tail"] == record.arena_bytes
        True
    """

    kind: ClassVar[str] = "micro"
    accelerator: ClassVar[bool] = False
    is_timed: ClassVar[bool] = False

    arena_bytes: int | None = None

    def __post_init__(self) -> None:
        if self.arena_bytes is not None:
            validate.whole_number("arena_bytes", self.arena_bytes, owner="Micro")

    def describe(self) -> str:
        """Returns a description for people, such as `"tflite-micro"`."""
        return "tflite-micro" if self.arena_bytes is None else f"tflite-micro, arena of {self.arena_bytes} bytes"

    def open(self, path: PathLike, shapes: Mapping[str, Sequence[int]] | None = None) -> MicroFile:
        """Opens a .tflite file. A damaged one may crash this process.

        Args:
            path: The file.
            shapes: Dict of input name -> full shape; they must be those of the file, as tflite-micro resizes nothing.

        Returns:
            A `tfdistill.runtime.micro.MicroFile`.
        """
        return MicroFile(path, self.arena_bytes, shapes)

    def import_runtime(self) -> str:
        """Imports tflite-micro; returns its name and version."""
        runtime_module()
        return f"tflite_micro {installed_version('tflite_micro')}".strip()
