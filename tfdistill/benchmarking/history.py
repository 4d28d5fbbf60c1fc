"""A file of benchmarks, one line of JSON for each, so that a later run says what changed."""

import contextlib
import dataclasses
import datetime
import json
import os
import pathlib
from typing import Any

from tfdistill.benchmarking.record import BenchmarkRecord
from tfdistill.benchmarking.targets.base import completed
from tfdistill.errors import ConfigurationError, TfdistillError
from tfdistill.records import Record
from tfdistill.utils.files import open_regular
from tfdistill.utils.types import PathLike


@dataclasses.dataclass(frozen=True)
class SpeedChange(Record):
    """How a file's latency differs from the last time.

    Attributes:
        path: The file.
        p50_ms: Median latency now.
        before_ms: Median latency the last time.
        before_date: Day of the last time, as YYYY-MM-DD.
        change: Time now over the time before, minus 1; below 0 it is faster.
        intervals_apart: Whether the two confidence intervals of the medians have nothing in common. Intervals that overlap show no difference.
        same_content: Whether the file is the same, byte by byte.
        versions: What else differs: package -> the version before and now.

    Example:
        >>> change = tfdistill.benchmarking.SpeedChange("int8.tflite", 0.21, 0.24, "2026-11-20", -0.125, True, False, {})
        >>> change.line()
        'int8.tflite: 0.21 ms, was 0.24 ms on 2026-11-20, same host: 12 % faster, intervals apart'
    """

    path: str
    p50_ms: float
    before_ms: float
    before_date: str
    change: float
    intervals_apart: bool
    same_content: bool
    versions: dict[str, str]

    def line(self) -> str:
        """Returns what changed in one line."""
        words = f"{abs(self.change):.0%}".replace("%", " %") + (" faster" if self.change < 0 else " slower")
        found = f"{self.path}: {self.p50_ms:.3g} ms, was {self.before_ms:.3g} ms on {self.before_date}, same host: "
        found += f"{words}, intervals apart" if self.intervals_apart else f"no difference shown ({words}, intervals overlap)"
        if self.same_content:
            found += ", same file"
        return found + "".join(f", {package} {versions}" for package, versions in self.versions.items())


class History:
    """A file of benchmarks, one line of JSON for each.

    Lines are only ever appended, whole, under a lock, so several processes may share the file. A damaged line is passed over.

    Args:
        path: The file; it is made by the first `add`.

    Example:
        >>> timing = tfdistill.benchmarking.Timing(min_seconds=0.05, max_seconds=0.2, warmup_seconds=0, processes=1)
        >>> history = tfdistill.benchmarking.History("history.jsonl")
        >>> history.add(tfdistill.benchmark("student.tflite", timing=timing)) is None
        True
        >>> history.add(tfdistill.benchmark("student.tflite", timing=timing)).same_content
        True
        >>> len(history.records())
        2
    """

    def __init__(self, path: PathLike) -> None:
        self.path = pathlib.Path(path)

    def records(self) -> list[tuple[str, BenchmarkRecord]]:
        """Returns the benchmarks as pairs of time (ISO 8601, UTC) and record, the oldest first; without the lines that are damaged.

        Raises:
            ConfigurationError: if the file is there and cannot be read.
        """
        return [entry for entry in map(_entry, self._lines()) if entry is not None]

    def damaged(self) -> int:
        """Returns the number of lines that hold no record.

        Raises:
            ConfigurationError: if the file is there and cannot be read.
        """
        return sum(_entry(line) is None for line in self._lines())

    def change(self, record: BenchmarkRecord) -> SpeedChange | None:
        """Compares a record with the last one of the same path, target, shapes and host.

        Args:
            record: The record of now.

        Returns:
            A `SpeedChange`; None if there is no such record.

        Raises:
            ConfigurationError: if the file is there and cannot be read.
        """
        own = _key(record)
        for time, before in reversed(self.records()):
            if _key(before) == own:
                return _change(record, before, time)
        return None

    def add(self, record: BenchmarkRecord) -> SpeedChange | None:
        """Appends a record.

        Args:
            record: The record.

        Returns:
            What changed since the last one, as `change` does.

        Raises:
            ConfigurationError: if the file cannot be read or written.
        """
        found = self.change(record)
        time = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        line = json.dumps({"time": time, "record": record.to_dict()}, allow_nan=False).encode() + b"\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = open_regular(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
            try:
                _append(descriptor, line)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise self._failed("written", error) from error
        return found

    def _lines(self):
        try:
            descriptor = open_regular(self.path)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise self._failed("read", error) from error
        with open(descriptor, "rb") as file:
            return [line for line in file.read().split(b"\n") if line.strip()]

    def _failed(self, what, error):
        return ConfigurationError(
            f"The history '{self.path}' cannot be {what}: {error.strerror or error}.", "a file of one line of JSON for each benchmark"
        )


def _append(descriptor, line):
    with contextlib.suppress(ImportError):  # Windows, where one write of a short line is whole all the same
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX)  # until it is closed
    size = os.fstat(descriptor).st_size
    if size:
        os.lseek(descriptor, size - 1, os.SEEK_SET)
        if os.read(descriptor, 1) != b"\n":
            line = b"\n" + line  # a writer was killed inside its line, which stays damaged alone
    data = memoryview(line)
    try:
        while data:
            data = data[os.write(descriptor, data) :]
    except OSError:
        os.ftruncate(descriptor, size)  # a full disk: no half line stays
        raise
    os.fsync(descriptor)


def _entry(line):
    try:
        values = json.loads(line.decode("utf-8"))
        time = datetime.datetime.fromisoformat(values["time"])
        return time.isoformat(timespec="seconds"), BenchmarkRecord.from_dict(values["record"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, TfdistillError):
        return None


def _key(record: BenchmarkRecord) -> Any:
    host = record.host
    return (
        str(pathlib.Path(record.path).absolute()),
        completed(record.target_settings),
        record.input_shapes,
        record.pinned_cores,
        host.cpu_model,
        host.cores,
        host.machine,
    )


def _change(record, before, time):
    ends = [(one.p50_low_ms, one.p50_high_ms) for one in (record, before)]
    known = all(end is not None for pair in ends for end in pair)
    apart = known and (ends[0][1] < ends[1][0] or ends[1][1] < ends[0][0])
    packages = sorted({*record.host.packages, *before.host.packages})
    versions = {name: (before.host.packages.get(name, "none"), record.host.packages.get(name, "none")) for name in packages}
    versions["tfdistill"] = (before.host.library_version, record.host.library_version)
    return SpeedChange(
        path=record.path,
        p50_ms=record.p50_ms,
        before_ms=before.p50_ms,
        before_date=time[:10],
        change=record.p50_ms / before.p50_ms - 1,
        intervals_apart=bool(apart),
        same_content=record.sha256 == before.sha256,
        versions={name: f"{old} -> {new}" for name, (old, new) in versions.items() if old != new},
    )
