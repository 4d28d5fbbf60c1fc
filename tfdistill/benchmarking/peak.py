"""Holds a measured file against what this machine's processor and memory can do in the same runtime."""

import dataclasses
import functools
import json
import math

from tfdistill.benchmarking.isolation import run_child
from tfdistill.benchmarking.record import BenchmarkRecord
from tfdistill.benchmarking.timing import Timing, unpacked
from tfdistill.errors import BenchmarkError, ConfigurationError
from tfdistill.host import fingerprint
from tfdistill.records import Record
from tfdistill.runtime.peak_files import MULTIPLY_MACS, TYPES, add_file, multiply_file
from tfdistill.utils.files import temporary_folder

_TIMING = Timing(min_seconds=0.5, max_seconds=1.0, processes=1)
_LIMIT_SECONDS = 120.0


@dataclasses.dataclass(frozen=True)
class Roofline(Record):
    """How near a file comes to what the machine can do.

    Williams, Waterman and Patterson, Roofline (CACM 52(4), 2009): a program with an intensity of I multiply-accumulates for each byte that it moves does at most the lower of
    the processor's peak and I times the memory's. The peaks are those of a large convolution, and of a sum of vectors that are as large as what the file moves, so that the cache that holds its data
    counts (as in the cache-aware roofline of Ilic, Pratas and Sousa, IEEE CAL 13(1), 2014); both run as .tflite files on the same target.

    Attributes:
        path: The file.
        compute_type: Type of most of its multiply-accumulates, whose peak counts: `int8` or `float32`.
        macs: Multiply-accumulates of one run.
        moved_bytes: Size of all tensors that its operations read and write.
        macs_per_byte: The intensity. Kernels that keep data in registers between operations move less.
        gmac_per_s: Billions of multiply-accumulates in a second that the file reached at its median latency.
        peak_gmac_per_s: Those of the large convolution of the same type, in its fastest run.
        peak_gbytes_per_s: Billions of bytes in a second that the sum of vectors moved, in its fastest run.
        roof_gmac_per_s: The lower of the peak and of intensity times bytes.
        bound: `"compute"` or `"memory"`: which of the two is lower.
        share: `gmac_per_s` as a share of `peak_gmac_per_s`.

    Example:
        >>> timing = tfdistill.benchmarking.Timing(min_seconds=0.05, max_seconds=0.2, warmup_seconds=0, processes=1)
        >>> found = tfdistill.benchmarking.roofline(tfdistill.benchmark("student.tflite", timing=timing))
        >>> found.compute_type, found.macs, 0 < found.share < 1
        ('int8', 4688, True)
    """

    path: str
    compute_type: str
    macs: int
    moved_bytes: int
    macs_per_byte: float
    gmac_per_s: float
    peak_gmac_per_s: float
    peak_gbytes_per_s: float
    roof_gmac_per_s: float
    bound: str
    share: float


def roofline(record: BenchmarkRecord) -> Roofline:
    """Holds a benchmark's record against the measured peaks of this machine, which takes about three seconds once for each process and target.

    Args:
        record: A record that was measured on this machine.

    Returns:
        A `Roofline`.

    Raises:
        ConfigurationError: if the record is of another machine, or has no count of multiply-accumulates of a type whose peak can be measured.
        BenchmarkError: if the peaks cannot be measured on the record's target.

    Example:
        >>> timing = tfdistill.benchmarking.Timing(min_seconds=0.05, max_seconds=0.2, warmup_seconds=0, processes=1)
        >>> tfdistill.benchmarking.roofline(tfdistill.benchmark("student.tflite", timing=timing)).peak_gmac_per_s > 1
        True
    """
    if (record.host.cpu_model, record.host.cores) != (fingerprint().cpu_model, fingerprint().cores):
        raise ConfigurationError(
            f"The record of '{record.path}' is of another machine: {record.host.line()}.",
            "one that was measured here",
            "benchmark the file here",
        )
    if not record.macs or not record.moved_bytes or record.compute_type not in TYPES:
        raise ConfigurationError(
            f"The multiply-accumulates of '{record.path}' are not counted, or their type is none of {', '.join(TYPES)} ({record.compute_type}).",
            "a file of convolutions or dense layers",
        )
    spec = json.dumps(record.target_settings, sort_keys=True)
    peak = MULTIPLY_MACS / _fastest_seconds(record.compute_type, spec) / 1e9
    size = _size_class(record.moved_bytes)
    moved = size / _fastest_seconds("memory", spec, size) / 1e9
    achieved, intensity = record.macs / record.p50_ms / 1e6, record.macs / record.moved_bytes
    roof = min(peak, intensity * moved)
    return Roofline(
        path=record.path,
        compute_type=record.compute_type,
        macs=record.macs,
        moved_bytes=record.moved_bytes,
        macs_per_byte=intensity,
        gmac_per_s=achieved,
        peak_gmac_per_s=peak,
        peak_gbytes_per_s=moved,
        roof_gmac_per_s=roof,
        bound="compute" if roof == peak else "memory",
        share=achieved / peak,
    )


@functools.cache
def _fastest_seconds(kind, spec, moved_bytes=None):
    with temporary_folder() as folder:
        path = folder / f"{kind}.tflite"
        path.write_bytes(multiply_file(kind) if moved_bytes is None else add_file(moved_bytes))
        request = {"path": str(path), "target": json.loads(spec), "timing": dataclasses.asdict(_TIMING), "invoke_only": True}
        try:
            found = run_child(request, _LIMIT_SECONDS, "tfdistill.benchmarking.again", "measuring the peak")
        except BenchmarkError as error:
            raise BenchmarkError(f"The peak of the target ({kind}) cannot be measured: {error.happened}") from error
    return float(unpacked(found["times"]).seconds.min())


def _size_class(moved_bytes):
    """Rounds up to a power of two within what is worth measuring: a run of the smallest takes some microseconds, the largest fits no cache of a small device."""
    return min(max(1 << math.ceil(math.log2(max(moved_bytes, 1))), 1 << 18), 1 << 28)
