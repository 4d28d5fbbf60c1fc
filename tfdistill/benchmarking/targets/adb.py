"""An Android device that is reached by adb as a benchmark target."""

import dataclasses
import hashlib
import pathlib
import re
from collections.abc import Mapping
from typing import Any, ClassVar

from tfdistill.errors import ConfigurationError, nearest
from tfdistill.runtime.interpreter import open_file
from tfdistill.utils import validate
from tfdistill.version import __version__

KERNELS = ("xnnpack", "builtin")
_SERIAL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]*")
_FOLDER = re.compile(r"/[A-Za-z0-9_./-]+")


@dataclasses.dataclass(frozen=True)
class Adb:
    """An Android device that is reached by adb.

    The file and LiteRT's program `benchmark_model`, built for the device's processor, are pushed into a fresh folder on the device, run there and removed again. Android
    has no Python; so the statistics are those that this program prints: median, 95th percentile, mean and extremes, but neither the median's interval nor the 90th and 99th
    percentiles, and the record says `converged=False`.

    Attributes:
        serial: Serial number as `adb devices` lists it; None for the only device that is connected.
        benchmark_model: Path of the program, from LiteRT's or TensorFlow's builds for Android.
        adb: The adb program.
        threads: CPU threads, at least 1.
        kernels: `xnnpack` or `builtin`.
        folder: Folder on the device from which programs can be run.

    Example:
        >>> target = tfdistill.benchmarking.Adb("emulator-5554", benchmark_model="student.tflite", threads=4)
        >>> target.describe()
        'Android emulator-5554: CPU, 4 threads, XNNPACK'
    """

    kind: ClassVar[str] = "adb"
    remote: ClassVar[bool] = True
    accelerator: ClassVar[bool] = False
    is_timed: ClassVar[bool] = True

    serial: str | None = None
    benchmark_model: str = ""
    adb: str = "adb"
    threads: int = 1
    kernels: str = "xnnpack"
    folder: str = "/data/local/tmp"

    def __post_init__(self) -> None:
        if self.serial is not None and not (isinstance(self.serial, str) and _SERIAL.fullmatch(self.serial)):
            raise ConfigurationError(
                f"serial={self.serial!r} is not a serial number.", "letters, digits and . _ : -, as adb devices lists them"
            )
        object.__setattr__(self, "benchmark_model", str(self.benchmark_model))
        if not pathlib.Path(self.benchmark_model).is_file():
            raise ConfigurationError(
                f"benchmark_model='{self.benchmark_model}' is not a file.",
                "the path of LiteRT's benchmark_model for the device's processor",
            )
        if not isinstance(self.adb, str) or not self.adb or self.adb.startswith("-"):
            raise ConfigurationError(f"adb={self.adb!r} is not a program.", "its name or path")
        validate.whole_number("threads", self.threads)
        if self.kernels not in KERNELS:
            raise ConfigurationError(
                f"There are no kernels '{self.kernels}'.", f"one of {', '.join(KERNELS)}", nearest(self.kernels, KERNELS)
            )
        if not isinstance(self.folder, str) or not _FOLDER.fullmatch(self.folder):
            raise ConfigurationError(f"folder={self.folder!r} is not a folder of a device.", "a path of letters, digits and _ . / -")

    def describe(self) -> str:
        """Returns a description for people, such as `"Android emulator-5554: CPU, 1 thread, XNNPACK"`."""
        kernels = "XNNPACK" if self.kernels == "xnnpack" else "built-in kernels"
        named = f" {self.serial}" if self.serial else ""
        return f"Android{named}: CPU, {self.threads} {'thread' if self.threads == 1 else 'threads'}, {kernels}"

    def measure(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Measures a file on the device; `tfdistill.benchmark` calls it.

        Args:
            request: Dict of `path`, `timing`, `shapes` and `timeout_seconds`, as `tfdistill.benchmark` makes it.

        Returns:
            Dict of the fields of the record that the device knows.

        Raises:
            BenchmarkError: if there is no such device, or it does not run the file.
        """
        # Not imported by measuring processes, which import all targets.
        from tfdistill.benchmarking.remote import benchmark_model as program
        from tfdistill.benchmarking.remote.android import Device
        from tfdistill.utils.progress import seconds_progress

        opened = open_file(request["path"], shapes=request["shapes"])
        free = {name: info.signature for name, info in opened.inputs.items() if info.signature and None in info.signature[1:]}
        if set(free) - set(request["shapes"] or ()):
            raise ConfigurationError(f"These inputs have no fixed size: {free}.", "shapes= for each, as time and memory depend on them")
        content, timing = pathlib.Path(request["path"]).read_bytes(), request["timing"]
        digest = hashlib.sha256(pathlib.Path(self.benchmark_model).read_bytes()).hexdigest()
        device = Device(self.adb, self.serial)
        host, load = device.describe()
        expected = timing["max_seconds"] + timing["warmup_seconds"]
        with seconds_progress(f"benchmarking on {device.serial}", expected) as show, device.folder(self.folder) as folder:
            device.push(request["path"], f"{folder}/model.tflite")
            device.push(self.benchmark_model, f"{folder}/benchmark_model")
            device.shell(["chmod", "755", f"{folder}/benchmark_model"])
            command = program.arguments(folder, self.threads, self.kernels == "xnnpack", timing, request["shapes"])
            printed = device.shell(command, request["timeout_seconds"], show)
        return {
            **program.parsed(printed),
            "sha256": hashlib.sha256(content).hexdigest(),
            "size_bytes": len(content),
            "engine": "benchmark_model",
            "input_shapes": {name: list(info.shape) for name, info in opened.inputs.items()},
            "confidence": timing["confidence"],
            "arena_bytes": None,
            "load_average": load,
            "host": {**host, "packages": {"benchmark_model": f"sha256 {digest[:16]}"}, "library_version": __version__},
        }
