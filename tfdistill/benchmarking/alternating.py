"""Times .tflite files against each other in a process of their own: one thread, runs that alternate, medians.

All have the same load of the machine then, whatever it is; times that were taken one after the other may not. In each turn the first run of a file does not count:
the caches hold what the file reads in the others, as they do in a program that runs this file alone.
"""

import dataclasses
import json
import pathlib
import random
import subprocess
import sys

import numpy as np

from tfdistill.benchmarking.turns import time_by_turns
from tfdistill.errors import RuntimeUnavailableError
from tfdistill.runtime.amx import refuse_amx
from tfdistill.runtime.delegated import delegation
from tfdistill.runtime.interpreter import open_file
from tfdistill.runtime.tensors import sample_inputs

WARM_UP_RUNS, LEAST_ROUNDS = 5, 30


@dataclasses.dataclass(frozen=True)
class Alternated:
    """What was measured of files, in the order in which they were given.

    Attributes:
        p50_ms: Median times of one run, in milliseconds.
        least_ms: Smallest times, which other programs have not made longer.
        shares: Medians of the times as shares of those of the first file in the same round.
        delegated: Shares of the operations that XNNPACK takes, from 0 to 1.
    """

    p50_ms: tuple[float, ...]
    least_ms: tuple[float, ...]
    shares: tuple[float, ...]
    delegated: tuple[float, ...]

    @property
    def ratio(self):
        """The last file's time as a multiple of the first's."""
        return self.p50_ms[-1] / self.p50_ms[0]


def alternate(*paths, seconds=3.0, amx=True):
    """Times files that the caller has just written.

    Args:
        paths: Two or more .tflite files.
        seconds: How long they run, at least; each has `LEAST_ROUNDS` turns in any case.
        amx: Whether XNNPACK may use AMX, as in `tfdistill.benchmarking.Cpu`.

    Returns:
        `Alternated`.

    Raises:
        RuntimeUnavailableError: if the process ends; with what it said.
    """
    command = [sys.executable, "-m", "tfdistill.benchmarking.alternating", str(seconds), str(int(amx)), *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        named = ", ".join(f"'{path}'" for path in paths)
        raise RuntimeUnavailableError(f"{named} could not be timed: the process ended with {done.returncode}.\n{done.stderr[-2000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    return Alternated(**{name: tuple(values) for name, values in found.items()})


def main(seconds, amx, *paths):
    """Prints what `alternate` reads."""
    if not amx:
        refuse_amx()
    files = [open_file(pathlib.Path(path), threads=1, trusted=True) for path in paths]
    for file in files:
        file.set_inputs(sample_inputs(file.inputs, 0))
        for _ in range(WARM_UP_RUNS):
            file.invoke()
    times = time_by_turns([file.invoke for file in files], seconds, LEAST_ROUNDS, random.Random(0)) / 1e6
    found = {
        "p50_ms": np.median(times, axis=0).tolist(),
        "least_ms": times.min(axis=0).tolist(),
        "shares": np.median(times / times[:, :1], axis=0).tolist(),
        "delegated": [delegation(file.interpreter).share for file in files],
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(float(sys.argv[1]), bool(int(sys.argv[2])), *sys.argv[3:])
