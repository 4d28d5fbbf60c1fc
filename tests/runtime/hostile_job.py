"""Gives damaged files to everything that reads one; run by a test in a process of its own, which must live. Prints counts as JSON.

Arguments: a folder, the number of files, their seed, and N to benchmark every N-th of them (0: none), as that starts a process.
"""

import collections
import concurrent.futures
import json
import os
import pathlib
import sys
import time
import traceback
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
from mutants import mutants, originals

import tfdistill
from tfdistill import verify
from tfdistill.benchmarking import Timing
from tfdistill.distill.teachers.files import TFLiteTeacher
from tfdistill.errors import TfdistillError
from tfdistill.tflite import census
from tfdistill.tflite.inspection.weights import integer_weights

QUICK = Timing(warmup_seconds=0, warmup_runs=0, min_runs=1, min_seconds=0, max_seconds=0.01, processes=1)


def main(folder, count, seed, every):
    """Runs every reader on every mutant.

    Args:
        folder: Where the files are written.
        count: Number of mutants.
        seed: Their seed.
        every: Which of them are benchmarked.
    """
    warnings.simplefilter("error", ResourceWarning)
    keras.utils.disable_interactive_logging()
    files = originals(folder)
    readers = {
        "census": lambda path, model, x: census(path),
        "weights": lambda path, model, x: integer_weights(path),
        "verify": lambda path, model, x: verify(path, model, x),
        "teacher": lambda path, model, x: TFLiteTeacher(path)(x),
        "benchmark": lambda path, model, x: tfdistill.benchmark(path, timing=QUICK, timeout_seconds=5),
    }
    outcomes, seconds = {name: collections.Counter() for name in readers}, collections.Counter()
    foreign = []

    def try_one(reader, number, name):
        began = time.monotonic()
        try:
            readers[reader](folder / f"{number}.tflite", *files[name][1:])
            outcome = "read"
        except TfdistillError as error:
            text = str(error)
            outcome = "ended" if "was killed by" in text else "late" if "still busy" in text else type(error).__name__
        except Exception:
            outcome = "foreign"
            foreign.append(f"{number} {name} {reader}: {traceback.format_exc()[-1500:]}")
        return reader, outcome, time.monotonic() - began

    # Benchmarks mostly wait for a process to start: they run beside the others, which also shows that threads do not disturb each other.
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        results, waiting = [], []
        for number, (name, content) in enumerate(mutants({n: c for n, (c, _, _) in files.items()}, count, seed)):
            (folder / f"{number}.tflite").write_bytes(content)
            if every and number % every == 0:
                waiting.append(pool.submit(try_one, "benchmark", number, name))
            results += [try_one(reader, number, name) for reader in ("census", "weights", "verify", "teacher")]
        results += [done.result() for done in waiting]
    for reader, outcome, took in results:
        outcomes[reader][outcome] += 1
        seconds[reader] += took
    print(json.dumps({"outcomes": outcomes, "seconds": {n: round(s, 1) for n, s in seconds.items()}, "foreign": foreign}))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), *map(int, sys.argv[2:]))
