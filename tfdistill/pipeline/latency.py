"""How long the file of a smaller model runs beside that of the original."""

import dataclasses
import math
import pathlib

import keras

from tfdistill.benchmarking.alternating import alternate
from tfdistill.benchmarking.run import benchmark
from tfdistill.benchmarking.targets.base import Target, to_spec
from tfdistill.benchmarking.targets.cpu import Cpu
from tfdistill.benchmarking.timing import Timing
from tfdistill.convert.signature import describe
from tfdistill.convert.variants import Tolerances, VariantName, variant_named
from tfdistill.errors import BenchmarkError, ConfigurationError
from tfdistill.tflite.export import export_tflite
from tfdistill.utils import validate
from tfdistill.utils.files import temporary_folder
from tfdistill.utils.types import Data, PathLike


@dataclasses.dataclass(frozen=True)
class FileLatency:
    """Measures the time of one run of a file: `assign_bits(model, x, latency_ms=0.5, latency=FileLatency())`.

    The file runs in a process of its own. The time is the median.

    Args:
        threads: CPU threads of this machine, at least 1.
        seconds: How long it runs at most, above 0.
        target: Where it runs, as `tfdistill.benchmark` takes it; None is the CPU of this machine.

    Raises:
        ConfigurationError: if a setting has a wrong value, the target times nothing, or there are threads and a target.

    Example:
        >>> latency = tfdistill.pipeline.FileLatency(seconds=0.1)
        >>> latency("student.tflite") > 0
        True
    """

    threads: int = 1
    seconds: float = 1.0
    target: Target | None = None

    def __post_init__(self) -> None:
        validate.whole_number("threads", self.threads, at_least=1, owner="FileLatency")
        validate.number("seconds", self.seconds, above=0, owner="FileLatency")
        _require_timed(self.target)
        if self.target is not None and self.threads != 1:
            raise ConfigurationError(
                f"FileLatency got threads={self.threads} and target={self.target!r}.", "one of them; a target has threads of its own"
            )

    def __call__(self, path: PathLike) -> float:
        """Returns the median time of one run in milliseconds.

        Args:
            path: The .tflite file.

        Raises:
            TfdistillError: as `tfdistill.benchmark`.
        """
        return _median_ms(path, Cpu(threads=self.threads) if self.target is None else self.target, self.seconds)


def _require_timed(target):
    if target is None:
        return
    to_spec(target)  # refuses what is no target
    if not target.is_timed:
        raise ConfigurationError(f"Times of {target.describe()} mean nothing.", "a target that times runs")


def _median_ms(path, target, seconds):
    record = benchmark(path, target, timing=Timing(min_seconds=min(seconds, 0.5), max_seconds=seconds))
    if record.status != "measured":
        raise BenchmarkError(f"'{path}' has no time on {record.target}: {record.status}, {record.failure}", "a file that the target runs")
    return record.p50_ms


@dataclasses.dataclass(frozen=True, eq=False)  # arrays have no equality that is one bool
class LatencyRatio:
    """Measures the time of one run of a smaller model as a share of the original's: `PruneChannels(keep_latency=0.5, latency=LatencyRatio(samples))`.

    Both models are exported and run in one process of their own on this machine, on one thread with XNNPACK, by turns, so that both have the same load; the ratio is
    that of the medians. Small models differ by little more than the noise of the machine: give them more seconds. On another target the original's file runs before and
    after the other's, and the ratio is that to the geometric mean of its two medians, so that a device that gets slower as it gets warm favours neither.

    Args:
        calibration: Samples for the integers of the files, as `export_tflite` takes them.
        variant: What is exported.
        seconds: How long the two files run in each measurement, above 0; on this machine each runs 30 times in any case.
        target: Where they run, as `tfdistill.benchmark` takes it: a board, an Android device, an accelerator; None is the CPU of this machine.

    Raises:
        ConfigurationError: if the variant is not known, the time is not above 0, or the target times nothing.

    Example:
        >>> ratio = tfdistill.pipeline.LatencyRatio(x, seconds=0.1)
        >>> step = tfdistill.compress.PruneChannels(keep_latency=0.5, latency=ratio)
        >>> ratio(teacher, student) > 0
        True
    """

    calibration: Data = dataclasses.field(repr=False)
    variant: VariantName = "int8"
    seconds: float = 3.0
    target: Target | None = None

    def __post_init__(self) -> None:
        variant_named(self.variant)
        validate.number("seconds", self.seconds, above=0, owner="LatencyRatio")
        _require_timed(self.target)

    def __call__(self, model: keras.Model, smaller: keras.Model) -> float:
        """Returns the median time of the second model's file as a share of the first one's.

        Args:
            model: The original, a built Keras model.
            smaller: The other one.

        Raises:
            TfdistillError: as `export_tflite`, if one of them cannot be exported, or as `tfdistill.benchmark`, if the files cannot be timed.
        """
        with temporary_folder() as folder:
            paths = [pathlib.Path(folder) / f"{name}.tflite" for name in ("model", "smaller")]
            for each, path in zip((model, smaller), paths, strict=True):
                # It is timed, not used: how near it is to the model does not matter.
                batch_size = describe(each).batch_size
                export_tflite(each, path, self.variant, calibration=self.calibration, batch_size=batch_size, tolerances=Tolerances())
            if self.target is None:
                return alternate(*paths, seconds=self.seconds).ratio
            before, other, after = (_median_ms(path, self.target, self.seconds / 3) for path in (paths[0], paths[1], paths[0]))
            return other / math.sqrt(before * after)
