"""Opens, counts and measures a .tflite file from a working folder that holds somebody's own modules; run by a test.

Argument: a .tflite file.
"""

import os
import sys

import tfdistill
from tfdistill.benchmarking import Timing
from tfdistill.runtime.interpreter import open_file
from tfdistill.tflite import census

QUICK = Timing(warmup_seconds=0, warmup_runs=0, min_runs=1, min_seconds=0, max_seconds=0.01, processes=1)


def main(path):
    """Lets every kind of child process start.

    Args:
        path: A .tflite file.
    """
    census(path)
    open_file(path)
    # As an interactive session has it, and as a careless profile sets it.
    sys.path.insert(0, "")
    os.environ["PYTHONPATH"] = os.pathsep.join([".", os.getcwd()])
    print(tfdistill.benchmark(path, timing=QUICK).runs > 0)


if __name__ == "__main__":
    main(sys.argv[1])
