"""Times two .tflite files against each other in a process of their own: one thread, runs that alternate, medians.

    python latency.py FILE OTHER [SECONDS]

Both have the same load of the machine then, whatever it is; the figures of two processes would not.
"""

import json
import pathlib
import subprocess
import sys
import time

import numpy as np

WARM_UP, LEAST_RUNS = 5, 30


def compare(path, other, seconds=3.0):
    """Returns a dict of `ms` (medians of both files in milliseconds) and `share` (of the operations of both that XNNPACK takes, from 0 to 1)."""
    done = subprocess.run([sys.executable, __file__, str(path), str(other), str(seconds)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"The files could not be timed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main(path, other, seconds):
    from tfdistill.runtime.delegated import delegation
    from tfdistill.runtime.interpreter import open_file
    from tfdistill.runtime.tensors import sample_inputs

    files = [open_file(pathlib.Path(each), threads=1, trusted=True) for each in (path, other)]
    for file in files:
        file.set_inputs(sample_inputs(file.inputs, 0))
        for _ in range(WARM_UP):
            file.invoke()
    times, end = ([], []), time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[0]) < LEAST_RUNS:
        for file, found in zip(files, times, strict=True):
            began = time.perf_counter()
            file.invoke()
            found.append(1000 * (time.perf_counter() - began))
    print(json.dumps({"ms": [float(np.median(found)) for found in times], "share": [delegation(file.interpreter).share for file in files]}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]) if len(sys.argv) > 3 else 3.0)
