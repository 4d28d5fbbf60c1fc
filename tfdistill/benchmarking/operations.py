"""The times of the operations inside a .tflite file, as a record."""

import dataclasses
from typing import Any

from tfdistill.host import HostFingerprint, fingerprint
from tfdistill.records import Record
from tfdistill.runtime import profile
from tfdistill.runtime.interpreter import read_file
from tfdistill.utils.types import PathLike


@dataclasses.dataclass(frozen=True)
class TimedOperation(Record):
    """One operation of an `OperationProfile`.

    Attributes:
        name: Name of the operation: as in the .tflite schema, or XNNPACK's own name where it runs the operation. XNNPACK joins some operations into one.
        delegated: Whether XNNPACK runs it.
        mean_us: Mean time in microseconds, over the runs that count.
        share: Share of the time of all operations, from 0 to 1.

    Example:
        >>> tfdistill.benchmarking.TimedOperation("SOFTMAX", False, 3.5, 0.25).share
        0.25
    """

    name: str
    delegated: bool
    mean_us: float
    share: float


@dataclasses.dataclass(frozen=True)
class OperationProfile(Record):
    """The times of a file's operations, as LiteRT's profiler counts them.

    Attributes:
        path: The file.
        sha256: SHA-256 of the file, in hexadecimal digits.
        threads: CPU threads.
        runs: Number of timed runs; the slowest fifth does not count.
        operations: The operations, in the order in which they run.
        host: Machine and package versions.

    Example:
        >>> profile = tfdistill.benchmarking.profile_operations("student.tflite", runs=10)
        >>> abs(sum(operation.share for operation in profile.operations) - 1) < 1e-6
        True
        >>> len(profile.slowest(2))
        2
    """

    path: str
    sha256: str
    threads: int
    runs: int
    operations: tuple[TimedOperation, ...]
    host: HostFingerprint

    @property
    def total_us(self) -> float:
        """Time of all operations, in microseconds."""
        return sum(operation.mean_us for operation in self.operations)

    def slowest(self, count: int = 10) -> tuple[TimedOperation, ...]:
        """Returns the operations that take longest, the slowest first.

        Args:
            count: How many, at most.
        """
        return tuple(sorted(self.operations, key=lambda operation: -operation.mean_us)[:count])

    def by_name(self) -> dict[str, float]:
        """Returns the time of each kind of operation in microseconds, the slowest kind first."""
        found: dict[str, float] = {}
        for operation in self.operations:
            found[operation.name] = found.get(operation.name, 0.0) + operation.mean_us
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    def summary(self) -> dict[str, Any]:
        """Returns the fields of the summary table, with the times of the kinds of operations."""
        kinds = {name: f"{time:.1f} us" for name, time in list(self.by_name().items())[:10]}
        return {
            "path": self.path,
            "threads": self.threads,
            "runs": self.runs,
            "total": f"{self.total_us:.1f} us",
            "kinds": kinds,
            "host": self.host,
        }

    def parts(self) -> dict[str, Any]:
        """Returns the operations that take longest."""
        return {"slowest operations": self.slowest()}


def profile_operations(
    path: PathLike, *, threads: int = 1, runs: int = 50, timeout_seconds: float = 120.0, amx: bool = True
) -> OperationProfile:
    """Times each operation of a .tflite file, as LiteRT runs it on the CPU with XNNPACK, in an isolated process.

    LiteRT's clock counts whole microseconds, so an operation of less than one needs many runs. Profiling itself takes time: the sum is above the latency
    that `tfdistill.benchmark` measures.

    Args:
        path: A .tflite file.
        threads: CPU threads, at least 1.
        runs: Number of timed runs, at least 1.
        timeout_seconds: The process is ended after this time.
        amx: Whether XNNPACK may use AMX, as in `Cpu`.

    Returns:
        An `OperationProfile`.

    Raises:
        ConfigurationError: for a missing file or an impossible argument.
        ExportError: if the file is damaged.
        RuntimeUnavailableError: if ai-edge-litert is missing or older than 2.1, or LiteRT fails or crashes on the file; with what it printed.

    Example:
        >>> profile = tfdistill.benchmarking.profile_operations("student.tflite", runs=10)
        >>> sorted({operation.delegated for operation in profile.operations})
        [True]
    """
    file = read_file(path)
    found = profile.profile_operations(file, runs=runs, threads=threads, timeout_seconds=timeout_seconds, amx=amx)
    operations = tuple(TimedOperation(row.name, row.delegated, row.mean_us, row.share) for row in found)
    return OperationProfile(str(file.path), file.sha256, threads, runs, operations, fingerprint())
