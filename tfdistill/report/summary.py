"""What a run from teacher to file came to: stages, exports and benchmarks in one record."""

import dataclasses

from tfdistill.host import HostFingerprint
from tfdistill.records import Record


@dataclasses.dataclass(frozen=True)
class Stage(Record):
    """One trained model.

    Attributes:
        name: teacher, scratch, distilled, pruned or quantized.
        accuracy: Share (0 to 1) of test samples that the Keras model gets right.
        parameters: Number of weights.
        nonzero_parameters: Number of weights that are not zero.
        seconds: Time it took to train.
    """

    name: str
    accuracy: float
    parameters: int
    nonzero_parameters: int
    seconds: float


@dataclasses.dataclass(frozen=True)
class Exported(Record):
    """One exported file; the names are those of `tfdistill.tflite.ExportRecord`."""

    variant: str
    path: str
    size_bytes: int
    accuracy: float | None
    max_abs_error: float
    argmax_agreement: float | None
    dtypes: dict[str, int]


@dataclasses.dataclass(frozen=True)
class Timed(Record):
    """Latency of one file; the names are those of `tfdistill.benchmarking.BenchmarkRecord`."""

    variant: str
    p50_ms: float
    p90_ms: float
    p99_ms: float


@dataclasses.dataclass(frozen=True)
class Summary(Record):
    """A whole run.

    Attributes:
        dataset: Name of the data set.
        seed: Seed of the run.
        host: Where it ran, and with which packages.
        stages: The models, in the order of training.
        exports: The files.
        benchmarks: Their latencies.
    """

    dataset: str
    seed: int
    host: HostFingerprint
    stages: tuple[Stage, ...]
    exports: tuple[Exported, ...]
    benchmarks: tuple[Timed, ...]
