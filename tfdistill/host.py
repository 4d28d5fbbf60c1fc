"""The machine and package versions that are written into every record of a measurement."""

import dataclasses
import functools
import importlib.metadata
import os
import pathlib
import platform

from tfdistill.records import Record
from tfdistill.version import __version__

# Distribution names of the packages whose version can change a measurement.
PACKAGES = (
    "tensorflow",
    "keras",
    "tf-keras",
    "tensorflow-model-optimization",
    "ai-edge-litert",
    "tflite-runtime",
    "numpy",
)


@dataclasses.dataclass(frozen=True)
class HostFingerprint(Record):
    """The machine and software of a measurement.

    Attributes:
        cpu_model: Name of the processor as the operating system reports it; for boards also the name of the board.
        machine: Instruction set, for example `x86_64` or `aarch64`.
        cores: Logical cores of the machine.
        usable_cores: Logical cores that this process may run on (fewer in a container or under `taskset`).
        memory_bytes: Physical memory; None if the system does not report it.
        os: Operating system and its version.
        python: Version of the Python interpreter.
        packages: Version of each package in `PACKAGES` that is installed.
        library_version: Version of tfdistill.
    """

    cpu_model: str
    machine: str
    cores: int
    usable_cores: int
    memory_bytes: int | None
    os: str
    python: str
    packages: dict[str, str]
    library_version: str

    def line(self) -> str:
        """Returns the processor, the cores and the versions in one line."""
        return f"{self.cpu_model}, {self.usable_cores} of {self.cores} cores, Python {self.python}, tfdistill {self.library_version}"


@functools.cache
def fingerprint() -> HostFingerprint:
    """Returns the `HostFingerprint` of this machine, without importing the packages."""
    return HostFingerprint(
        cpu_model=_cpu_model(),
        machine=platform.machine(),
        cores=os.cpu_count() or 1,
        usable_cores=_usable_cores(),
        memory_bytes=_memory_bytes(),
        os=platform.platform(terse=False),
        python=platform.python_version(),
        packages=_versions(),
        library_version=__version__,
    )


def _versions():
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # not installed: left out of the dict
    return found


def _cpu_model():
    names = []
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            # "Model" with a capital is the board on ARM kernels; "model name" is the processor.
            if key.strip() in ("model name", "Model") and value.strip() and value.strip() not in names:
                names.append(value.strip())
    return ", ".join(names) or platform.processor() or platform.machine()


def _usable_cores():
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory_bytes():
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return None
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
