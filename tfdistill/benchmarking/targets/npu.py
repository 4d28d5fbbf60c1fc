"""An NPU of this machine as a benchmark target."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, get_args

from tfdistill.benchmarking.targets.local import Local
from tfdistill.errors import ConfigurationError
from tfdistill.runtime.compiled import VENDORS, CompiledFile
from tfdistill.runtime.litert_library import load_library
from tfdistill.runtime.versions import installed_version
from tfdistill.utils import validate
from tfdistill.utils.types import PathLike

Device = Literal["cpu", "gpu", "npu"]
DEVICES: tuple[Device, ...] = get_args(Device)  # in the order of OpenVINO's backends in LiteRT
# OpenVINO is told the device for each part of a file, and takes the NPU where it is told none.
_MOST_PARTS = 256


@dataclasses.dataclass(frozen=True)
class Npu(Local):
    """An NPU of this machine as a benchmark target, by LiteRT's compiled models and a vendor's compiler.

    LiteRT runs the whole file on the CPU, without an error, where the vendor's compiler or the device is missing. A run counts only if LiteRT says that no
    operation of the file runs on its CPU.

    Attributes:
        vendor: `"openvino"`, `"qualcomm"`, `"mediatek"`, `"samsung"` or `"google_tensor"`.
        device: Device of OpenVINO: `"npu"`, or `"cpu"` or `"gpu"` to try its compiler without an NPU. Other vendors have the NPU alone.
        allow_partial: Whether a run counts if a part of the operations stays on LiteRT's CPU; the record then says how many, and which. None at all never
            counts.
        threads: CPU threads for what stays there, at least 1.

    Example:
        >>> tfdistill.benchmarking.Npu(vendor="openvino").describe()
        'NPU, openvino'
    """

    kind: ClassVar[str] = "npu"
    accelerator: ClassVar[bool] = True
    is_timed: ClassVar[bool] = True

    vendor: str = "openvino"
    device: Device = "npu"
    allow_partial: bool = False
    threads: int = 1

    def __post_init__(self) -> None:
        validate.one_of("vendor", self.vendor, VENDORS, "Npu")
        validate.one_of("device", self.device, DEVICES, "Npu")
        if self.vendor != "openvino" and self.device != "npu":
            raise ConfigurationError(f"Npu(vendor={self.vendor!r}, device={self.device!r}) is impossible.", "device='npu'")
        validate.boolean("allow_partial", self.allow_partial, "Npu")
        validate.whole_number("threads", self.threads, owner="Npu")

    def describe(self) -> str:
        """Returns a description for people, such as `"NPU, openvino"`; another device than the NPU is named in its place."""
        named = ["NPU" if self.device == "npu" else f"{self.device.upper()} in place of an NPU", self.vendor]
        if self.allow_partial:
            named.append("the rest on the CPU")
        return ", ".join(named)

    def open(self, path: PathLike, shapes: Mapping[str, Sequence[int]] | None = None) -> CompiledFile:
        """Compiles a .tflite file for the NPU. A faulty driver or file may crash this process.

        Args:
            path: The file.
            shapes: Dict of input name -> full shape, batch included, to resize these inputs to.

        Returns:
            A `tfdistill.runtime.compiled.CompiledFile`.
        """
        options = {"xnnpack": f"num_threads = {self.threads}\n"}
        if self.vendor == "openvino":
            backend = DEVICES.index(self.device)
            options["intel_openvino"] = "".join(f"graph.{part}.graph_backend = {backend}\n" for part in range(_MOST_PARTS))
        return CompiledFile(path, "npu", options, self.vendor, shapes)

    def import_runtime(self) -> str:
        """Loads LiteRT; returns its name and version."""
        load_library()
        return f"ai_edge_litert {installed_version('ai_edge_litert')}".strip()
