"""Times two .tflite files against each other in a process of their own: one thread, runs that alternate, medians.

Both have the same load of the machine then, whatever it is; times that were taken one after the other may not.
"""

import dataclasses
import json
import pathlib
import subprocess
import sys
import time

import numpy as np

from tfdistill.errors import RuntimeUnavailableError
from tfdistill.runtime.delegated import delegation
from tfdistill.runtime.interpreter import open_file
from tfdistill.runtime.tensors import sample_inputs

WARM_UP_RUNS, LEAST_RUNS = 5, 30


@dataclasses.dataclass(frozen=True)
class Alternated:
    """What was measured of two files, in the order in which they were given.

    Attributes:
        p50_ms: Median times of one run, in milliseconds.
        delegated: Shares of the operations that XNNPACK takes, from 0 to 1.
    """

    p50_ms: tuple[float, float]
    delegated: tuple[float, float]

    @property
    def ratio(self):
        """The second file's time as a multiple of the first's."""
        return self.p50_ms[1] / self.p50_ms[0]


def alternate(path, other, seconds=3.0):
    """Times two files that the caller has just written.

    Args:
        path: A .tflite file.
        other: Another one.
        seconds: How long they run, at least; each runs `LEAST_RUNS` times in any case.

    Returns:
        `Alternated`.

    Raises:
        RuntimeUnavailableError: if the process ends; with what it said.
    """
    command = [sys.executable, "-m", "tfdistill.benchmarking.alternating", str(path), str(other), str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeUnavailableError(
            f"'{path}' and '{other}' could not be timed: the process ended with {done.returncode}.\n{done.stderr[-2000:]}"
        )
    found = json.loads(done.stdout.splitlines()[-1])
    return Alternated(tuple(found["p50_ms"]), tuple(found["delegated"]))


def main(path, other, seconds):
    """Prints what `alternate` reads."""
    files = [open_file(pathlib.Path(each), threads=1, trusted=True) for each in (path, other)]
    for file in files:
        file.set_inputs(sample_inputs(file.inputs, 0))
        for _ in range(WARM_UP_RUNS):
            file.invoke()
    times, end = ([], []), time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[0]) < LEAST_RUNS:
        for file, found in zip(files, times, strict=True):
            began = time.perf_counter()
            file.invoke()
            found.append(1000 * (time.perf_counter() - began))
    shares = [delegation(file.interpreter).share for file in files]
    print(json.dumps({"p50_ms": [float(np.median(found)) for found in times], "delegated": shares}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]))
