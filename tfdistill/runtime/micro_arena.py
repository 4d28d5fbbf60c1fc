"""Runs .tflite files in tflite-micro, the runtime of microcontrollers, in an isolated process, and measures the memory that it needs."""

import dataclasses
import importlib.util
import io
import json

import numpy as np

from tfdistill.errors import RuntimeUnavailableError
from tfdistill.runtime import isolated
from tfdistill.runtime.structure import check_structure
from tfdistill.utils.files import temporary_folder
from tfdistill.utils.optional import missing_package


@dataclasses.dataclass(frozen=True)
class MicroRun:
    """What a file did in tflite-micro.

    Attributes:
        arena_bytes: The smallest arena in which the file opens and runs, to 16 bytes. tflite-micro itself reports less where it needs more to plan the tensors
            than to run. Pointers have 64 bits here, so a microcontroller of 32 bits needs somewhat less.
        used_bytes: What tflite-micro reports; 0 if it does not.
        outputs: A list for each sequence: a list for each run of an array for each output, in the order of the file.
    """

    arena_bytes: int
    used_bytes: int
    outputs: list


def run_in_micro(file, sequences, outputs, states=(), timeout_seconds=120.0):
    """Measures the arena of a file and runs it.

    Args:
        file: A `ModelFile`.
        sequences: List of sequences, each a list of runs, each a list with an array for each input, in the order of the file. Every sequence has an interpreter
            of its own. What is given for an input that is a state counts in the first run of a sequence only.
        outputs: Number of outputs.
        states: List of [position of an input, position of the output whose value it gets in the next run].
        timeout_seconds: The process is ended after this time.

    Returns:
        A `MicroRun`.

    Raises:
        MissingPackageError: if the package tflite-micro is not installed.
        ExportError: if the file is damaged.
        RuntimeUnavailableError: if tflite-micro refuses the file or crashes on it; with what it printed.
    """
    if importlib.util.find_spec("tflite_micro") is None:
        raise missing_package("tflite_micro", "run a file as a microcontroller does")
    check_structure(file.content)
    with temporary_folder() as folder:
        (folder / "model.tflite").write_bytes(file.content)
        shapes = [[len(run) for run in sequence] for sequence in sequences]
        np.savez(folder / "inputs.npz", *(array for sequence in sequences for run in sequence for array in run))
        request = {"folder": str(folder), "shapes": shapes, "states": [list(pair) for pair in states], "outputs": outputs}
        ended = isolated.run("tfdistill.runtime.micro_arena_child", json.dumps(request).encode() + b"\n", timeout_seconds)
    if ended.failure:
        raise _error(file, f"its process {ended.failure}", ended.log)
    head, _, arrays = ended.output.partition(b"\n")
    answer = json.loads(head)
    if "error" in answer:
        raise _error(file, answer["error"], ended.log)
    with np.load(io.BytesIO(arrays)) as loaded:
        flat = iter([loaded[f"arr_{i}"] for i in range(len(loaded.files))])
    made = [[[next(flat) for _ in range(outputs)] for _ in sequence] for sequence in sequences]
    return MicroRun(answer["arena_bytes"], _used(ended.log), made)


def _used(log):
    said = [line.split("total")[1].split()[0] for line in log.splitlines() if "Arena allocation total" in line]
    return int(said[-1]) if said and said[-1].isdigit() else 0


def _error(file, what, log):
    return RuntimeUnavailableError(
        f"tflite-micro cannot run '{file.path}' ({len(file.content)} bytes): {what}." + (f"\nIt said:\n{log}" if log else ""),
        "a file whose operations tflite-micro has",
    )
