"""The machine and package versions that are written into every record of a measurement."""

import dataclasses
import functools
import importlib.metadata

from tfdistill.records import Record
from tfdistill.utils import machine
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

    def packages_line(self) -> str:
        """Returns the processor and the versions of the packages in one line, as pages of measurements end."""
        return f"{self.cpu_model}; {', '.join(f'{name} {version}' for name, version in sorted(self.packages.items()))}"


@functools.cache
def fingerprint() -> HostFingerprint:
    """Returns the `HostFingerprint` of this machine, without importing the packages."""
    return HostFingerprint(
        **machine.describe(),
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
