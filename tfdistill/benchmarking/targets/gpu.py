"""The GPU of this machine as a benchmark target."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, get_args

from tfdistill.benchmarking.targets.local import Local
from tfdistill.runtime.compiled import CompiledFile
from tfdistill.runtime.litert_library import load_library
from tfdistill.runtime.versions import installed_version
from tfdistill.utils import validate
from tfdistill.utils.types import PathLike

Precision = Literal["default", "float16", "float32"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)  # in the order of LiteRtDelegatePrecision


@dataclasses.dataclass(frozen=True)
class Gpu(Local):
    """The GPU of this machine as a benchmark target, by LiteRT's compiled models.

    A run ends when the outputs are in host memory: the GPU still works when its call returns. It counts only if LiteRT says that no operation of the file runs
    on the CPU.

    Attributes:
        allow_partial: Whether a run counts if a part of the operations stays on the CPU; the record then says how many, and which. None at all never counts.
        precision: In which floats the GPU computes: `"default"` leaves it to LiteRT, which takes float16 where the GPU has it.
        threads: CPU threads for what stays there, at least 1.

    Example:
        >>> tfdistill.benchmarking.Gpu(precision="float16").describe()
        'GPU, float16'
    """

    kind: ClassVar[str] = "gpu"
    accelerator: ClassVar[bool] = True
    is_timed: ClassVar[bool] = True

    allow_partial: bool = False
    precision: Precision = "default"
    threads: int = 1

    def __post_init__(self) -> None:
        validate.boolean("allow_partial", self.allow_partial, "Gpu")
        validate.one_of("precision", self.precision, PRECISIONS, "Gpu")
        validate.whole_number("threads", self.threads, owner="Gpu")

    def describe(self) -> str:
        """Returns a description for people, such as `"GPU"`."""
        named = ["GPU"]
        if self.precision != "default":
            named.append(self.precision)
        if self.allow_partial:
            named.append("the rest on the CPU")
        return ", ".join(named)

    def open(self, path: PathLike, shapes: Mapping[str, Sequence[int]] | None = None) -> CompiledFile:
        """Compiles a .tflite file for the GPU. A faulty driver or file may crash this process.

        Args:
            path: The file.
            shapes: Dict of input name -> full shape, batch included, to resize these inputs to.

        Returns:
            A `tfdistill.runtime.compiled.CompiledFile`.
        """
        options = {"xnnpack": f"num_threads = {self.threads}\n", "gpu_options": f"precision = {PRECISIONS.index(self.precision)}\n"}
        return CompiledFile(path, "gpu", options, shapes=shapes)

    def import_runtime(self) -> str:
        """Loads LiteRT; returns its name and version."""
        load_library()
        return f"ai_edge_litert {installed_version('ai_edge_litert')}".strip()
