"""Times each operation of a .tflite file, as LiteRT runs it on the CPU with XNNPACK."""

import dataclasses
import json

import numpy as np

from tfdistill.errors import RuntimeUnavailableError
from tfdistill.runtime import isolated
from tfdistill.runtime.interpreter import read_file
from tfdistill.runtime.structure import check_structure
from tfdistill.utils import validate
from tfdistill.utils.files import temporary_folder

# Share of the runs, the slowest ones, that do not count: other programs disturbed them.
_DISTURBED = 0.2


@dataclasses.dataclass(frozen=True)
class OperationTime:
    """The time of one operation.

    Attributes:
        name: Name of the operation: as in the .tflite schema, or XNNPACK's own name where it runs the operation. XNNPACK joins some operations into one.
        delegated: Whether XNNPACK runs it.
        mean_us: Mean time in microseconds, over the runs that count.
        share: Share of the time of all operations, from 0 to 1.
    """

    name: str
    delegated: bool
    mean_us: float
    share: float


def profile_operations(path, runs=50, threads=1, timeout_seconds=120.0, amx=True):
    """Times the operations of a file, in an isolated process.

    LiteRT's clock counts whole microseconds, so an operation of less than one needs many runs.

    Args:
        path: A .tflite file.
        runs: Number of timed runs, at least 1.
        threads: CPU threads, at least 1.
        timeout_seconds: The process is ended after this time.
        amx: Whether XNNPACK may use AMX, as in `tfdistill.benchmarking.Cpu`.

    Returns:
        Tuple of `OperationTime`s, in the order in which they run.

    Raises:
        ConfigurationError: for a missing file or an impossible argument.
        ExportError: if the file is damaged.
        RuntimeUnavailableError: if LiteRT is missing, or fails or crashes on the file; with what it printed.
    """
    validate.whole_number("runs", runs, 1)
    validate.whole_number("threads", threads, 1)
    file = read_file(path)
    check_structure(file.content)
    with temporary_folder() as folder:
        # The bytes that were checked, whatever happens to the file meanwhile.
        copy = folder / "model.tflite"
        copy.write_bytes(file.content)
        request = json.dumps({"path": str(copy), "runs": runs, "threads": threads, "amx": amx}).encode() + b"\n"
        ended = isolated.run("tfdistill.runtime.profile_child", request, timeout_seconds)
    if ended.failure:
        raise RuntimeUnavailableError(
            f"The process that times the operations of '{file.path}' {ended.failure}.\nIt said:\n{ended.log}",
            "a file that LiteRT's CPU runs",
        )
    answer = json.loads(ended.output)
    if "error" in answer:
        raise RuntimeUnavailableError(f"The operations of '{file.path}' cannot be timed: {answer['error']}")
    return summarize(answer["runs"])


def summarize(runs):
    """Returns the `OperationTime`s of runs.

    Args:
        runs: List of runs, each a list of `(name, delegated, microseconds)`.

    Raises:
        RuntimeUnavailableError: if not all runs have the same operations.
    """
    kinds = {tuple((name, delegated) for name, delegated, _ in run) for run in runs}
    if len(kinds) != 1:
        raise RuntimeUnavailableError(
            f"LiteRT lists {len(kinds)} different sequences of operations in {len(runs)} runs.", "the same in every run"
        )
    times = np.array([[elapsed for *_, elapsed in run] for run in runs], np.float64).reshape(len(runs), -1)
    totals = times.sum(axis=1)
    counted = times[totals <= np.quantile(totals, 1 - _DISTURBED)].mean(axis=0)
    whole = counted.sum() or 1.0
    return tuple(
        OperationTime(name, delegated, float(t), float(t / whole)) for (name, delegated), t in zip(kinds.pop(), counted, strict=True)
    )
