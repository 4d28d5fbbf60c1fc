"""What a benchmark itself costs: the time that its loop adds to each run, and how long a stable model takes in all.

    python benchmarks/cost_of_benchmark.py [--rounds 31]

A function of about 10 microseconds is run with and without the loop, by turns, and the difference of the processor times, all statistics included, is divided by the runs; likewise
one that does nothing, whose difference is the loop alone. Then small .tflite files are benchmarked as users do it.
"""

import argparse
import time

import numpy as np

import tfdistill
from tfdistill.benchmarking.measuring import measure
from tfdistill.runtime.peak_files import TYPES, multiply_file
from tfdistill.utils.files import temporary_folder

BUSY_SECONDS, RUNS = 10e-6, 5000


def busy_function():
    """Returns a function of about 10 microseconds of processor time."""
    began, count = time.process_time(), 20_000_000
    for _ in range(count // 20):
        pass
    loops = range(round(BUSY_SECONDS * (count // 20) / (time.process_time() - began)))

    def busy():
        for _ in loops:
            pass

    return busy


def added_microseconds(busy, rounds):
    """Processor times that the loop adds to each run, in microseconds: one of each round."""
    found = []
    for _ in range(rounds):
        began = time.process_time()
        timed = measure(busy, warmup_seconds=0, warmup_runs=0, min_runs=RUNS, min_seconds=0, precision=0.999)
        looped = (time.process_time() - began) / len(timed.seconds)
        began = time.process_time()
        for _ in range(len(timed.seconds)):
            busy()
        found.append(1e6 * (looped - (time.process_time() - began) / len(timed.seconds)))
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=31)
    rounds = parser.parse_args().rounds
    busy = busy_function()
    added, plain = np.array(added_microseconds(busy, rounds)), np.array(added_microseconds(lambda: None, rounds))
    for words, found in (("a run of 10 us", added), ("one that does nothing", plain)):
        print(
            f"The loop adds {np.median(found):.2f} us to {words} (median of {rounds}; half of them {np.percentile(found, 25):.2f} to {np.percentile(found, 75):.2f})."
        )
    with temporary_folder() as folder:
        for kind in TYPES:
            path = folder / f"{kind}.tflite"
            path.write_bytes(multiply_file(kind))
            seconds, records = [], []
            for _ in range(5):
                began = time.perf_counter()
                records.append(tfdistill.benchmark(path))
                seconds.append(time.perf_counter() - began)
            known = sum(record.converged for record in records)
            print(
                f"A convolution in {kind} of {records[0].p50_ms:.3f} ms: benchmarked in {np.median(seconds):.2f} s ({min(seconds):.2f} to {max(seconds):.2f}), "
                f"{known} of {len(records)} converged, load {records[-1].load_average:.1f}."
            )


if __name__ == "__main__":
    main()
