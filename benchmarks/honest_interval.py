"""Whether the interval of a benchmark's median is honest: repeats it and counts the intervals that hold the median of all medians.

    python benchmarks/honest_interval.py [FILE ...] [--repeats 40] [--least 36] [--pause 0] [--records runs/honest_interval]

Without files, two are made: a convolution in int8 and one in float32. The files are measured by turns, so the repetitions of one are spread over the whole time and meet whatever
the machine does meanwhile. Beside the library's interval stands that of independent runs, from the same times. Ends with exit code 1 if fewer than `--least` intervals of a file hold.
"""

import argparse
import pathlib
import sys

import numpy as np

from tfdistill.benchmarking import again
from tfdistill.benchmarking.measuring import median_ranks
from tfdistill.benchmarking.run import benchmark
from tfdistill.benchmarking.timing import Timing
from tfdistill.runtime.peak_files import TYPES, multiply_file
from tfdistill.utils.files import temporary_folder
from tfdistill.utils.progress import track


def with_plain_intervals(kept):
    """Keeps the interval of independent runs of each benchmark in a list: what the library would say if it took the runs for independent."""
    whole = again.latency_fields

    def fields(several, *arguments):
        seconds = np.sort(np.concatenate([timed.seconds for timed in several])) * 1e3
        low, high = median_ranks(len(seconds))
        kept.append((seconds[low], seconds[high]))
        return whole(several, *arguments)

    again.latency_fields = fields


def measured(paths, repeats, timing, plain, records):
    """Dict of path -> list of (record, interval of independent runs)."""
    found = {path: [] for path in paths}
    for number in track(range(repeats), "benchmarking"):
        for path in paths:
            record = benchmark(path, timing=timing)
            found[path].append((record, plain[-1]))
            if records:
                record.save(records / f"{path.stem}_{number}.json")
    return found


def table(found):
    """The lines of the table, and the fewest intervals that hold."""
    lines = [
        "| file | p50 ms | intervals that hold | half width | of independent runs | half width | converged |",
        "|---|---|---|---|---|---|---|",
    ]
    fewest = []
    for path, rows in found.items():
        grand = float(np.median([record.p50_ms for record, _ in rows]))
        ours = [(record.p50_low_ms, record.p50_high_ms) for record, _ in rows]
        cells = [f"{grand:.4g}"]
        for intervals in (ours, [plain for _, plain in rows]):
            holds = sum(low <= grand <= high for low, high in intervals)
            width = float(np.median([(high - low) / 2 / grand for low, high in intervals]))
            cells += [f"{holds} of {len(rows)}", f"{100 * width:.2f} %"]
            fewest.append(holds)
        lines.append(f"| {path.name} | {' | '.join(cells)} | {sum(record.converged for record, _ in rows)} |")
    return lines, min(fewest[::2])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=pathlib.Path)
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--least", type=int, default=36, help="intervals that are to hold")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds between the processes of one benchmark")
    parser.add_argument("--records", type=pathlib.Path, help="folder to write the records to")
    arguments = parser.parse_args()
    plain = []
    with_plain_intervals(plain)
    with temporary_folder() as folder:
        paths = arguments.files or [folder / f"convolution {kind}.tflite" for kind in TYPES]
        if not arguments.files:
            for path, kind in zip(paths, TYPES, strict=True):
                path.write_bytes(multiply_file(kind))
        found = measured(paths, arguments.repeats, Timing(pause_seconds=arguments.pause), plain, arguments.records)
    lines, fewest = table(found)
    loads = [record.load_average for rows in found.values() for record, _ in rows if record.load_average is not None]
    print(
        "\n".join(
            [*lines, "", f"Load of the machine: {min(loads):.1f} to {max(loads):.1f}. {next(iter(found.values()))[0][0].host.line()}."]
        )
    )
    sys.exit(fewest < arguments.least)


if __name__ == "__main__":
    main()
