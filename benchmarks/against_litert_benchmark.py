"""The library's medians against those of LiteRT's own `litert-benchmark`, on the same files in the same minutes; writes the table of docs/benchmarking.md.

    python benchmarks/against_litert_benchmark.py [FILE ...] [--rounds 9] [--seconds 0.5] [--page docs/benchmarking.md]

Each round runs the program and the library once, each in a new process, in random order; the ratio of the two medians of a round is one observation, so that both have the same load of
the machine; the median ratio counts, with its interval from order statistics. The program times the run alone, the library also copies inputs and outputs. The program prints hundredths of a millisecond; here it runs as it is, but for the rounding.
Ends with exit code 1 if a ratio is off by more than 5 %.
"""

import argparse
import dataclasses
import json
import pathlib
import random
import subprocess
import sys

import numpy as np

from tfdistill.benchmarking.isolation import run_child
from tfdistill.benchmarking.measuring import median_ranks
from tfdistill.benchmarking.targets.base import to_spec
from tfdistill.benchmarking.targets.cpu import Cpu
from tfdistill.benchmarking.timing import Timing, unpacked
from tfdistill.host import fingerprint
from tfdistill.utils.files import temporary_folder, write_whole
from tfdistill.utils.progress import track

BEGIN, END = "<!-- against_litert_benchmark -->", "<!-- end -->"
# Runs the program's own code, whose `round` is replaced: medians of 0.1 ms would be known to 10 % only.
PROGRAM = "import sys; from ai_edge_litert.tools import benchmark_litert_model as b; b.round = lambda value, digits=None: value; b.main()"
ALLOWED = 0.05
# Name -> Keras application, its arguments, pixels and variant.
NETS = {
    "MobileNet 0.5, 128 x 128, float32": ("MobileNet", {"alpha": 0.5}, 128, "float32"),
    "MobileNet 0.5, 128 x 128, int8": ("MobileNet", {"alpha": 0.5}, 128, "int8"),
    "MobileNetV2 0.35, 96 x 96, float32": ("MobileNetV2", {"alpha": 0.35}, 96, "float32"),
    "MobileNetV2 0.35, 96 x 96, int8": ("MobileNetV2", {"alpha": 0.35}, 96, "int8"),
    "MobileNetV2 1.0, 160 x 160, int8": ("MobileNetV2", {}, 160, "int8"),
}


def made(folder):
    """Dict of name -> file of nets with random weights, on which the times do not depend."""
    import keras
    from forms import settled

    from tfdistill.tflite import Tolerances, export_tflite

    found = {}
    for i, (name, (application, arguments, pixels, variant)) in enumerate(NETS.items()):
        model = getattr(keras.applications, application)(
            (pixels, pixels, 3), weights=None, classes=10, classifier_activation=None, **arguments
        )
        data = np.random.default_rng(0).uniform(0, 1, (16, pixels, pixels, 3)).astype("float32")
        found[name] = pathlib.Path(
            export_tflite(settled(model, 16), folder / f"{i}.tflite", variant, calibration=data, tolerances=Tolerances()).path
        )
    return found


def program_ms(path, runs, folder):
    """The median of `litert-benchmark` in milliseconds."""
    result = folder / "result.json"
    command = [sys.executable, "-c", PROGRAM, "--model", str(path), "--num_runs", str(runs), "--warmup_runs", str(max(5, runs // 5))]
    subprocess.run([*command, "--num_threads", "1", "--result_json", str(result)], check=True, capture_output=True)
    return json.loads(result.read_text())["latency"]["median_ms"]


def library_ms(path, seconds):
    """The median of one process of the library in milliseconds."""
    timing = Timing(min_seconds=seconds, max_seconds=seconds, warmup_seconds=0.2 * seconds, processes=1)
    request = {"path": str(path), "target": to_spec(Cpu(threads=1)), "timing": dataclasses.asdict(timing)}
    return 1e3 * float(np.median(unpacked(run_child(request, 120, "tfdistill.benchmarking.again")["times"]).seconds))


def compared(path, rounds, seconds, folder):
    """List of (program's median, library's median) of each round."""
    runs, pairs, draw = max(20, round(seconds / library_ms(path, 0.1) * 1e3)), [], random.Random(0)
    for _ in range(rounds):
        program, library = (lambda: program_ms(path, runs, folder)), (lambda: library_ms(path, seconds))
        if draw.random() < 0.5:
            first = program()
            pairs.append((first, library()))
        else:
            first = library()
            pairs.append((program(), first))
    return pairs


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=9, help="at least 6, for an interval")
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--page", type=pathlib.Path, help="a page whose table is replaced")
    arguments = parser.parse_args()
    lines = ["| file | litert-benchmark, ms | tfdistill, ms | ratio | 95 % interval |", "|---|---|---|---|---|"]
    agreed = True
    with temporary_folder() as folder:
        files = {path.name: path.absolute() for path in arguments.files} or made(folder)
        for name, path in track(files.items(), "benchmarking", len(files)):
            pairs = np.array(compared(path, arguments.rounds, arguments.seconds, folder))
            ratios = np.sort(pairs[:, 1] / pairs[:, 0])
            ranks = median_ranks(len(ratios))
            ratio, low, high = np.median(ratios), *ratios[list(ranks)]
            theirs, ours = np.median(pairs, axis=0)
            lines.append(f"| {name} | {theirs:.4g} | {ours:.4g} | {ratio:.3f} | {low:.3f} to {high:.3f} |")
            agreed &= abs(ratio - 1) <= ALLOWED
            print(lines[-1], flush=True)
    host = fingerprint()
    versions = ", ".join(f"{name} {host.packages[name]}" for name in ("ai-edge-litert", "numpy"))
    table = "\n".join([*lines, "", f"{arguments.rounds} rounds on {host.cpu_model}, one thread; {versions}."])
    print(table)
    if arguments.page:
        text = arguments.page.read_text(encoding="utf-8")
        before, _, rest = text.partition(BEGIN)
        with write_whole(arguments.page) as beside:
            beside.write_text(f"{before}{BEGIN}\n{table}\n{END}{rest.partition(END)[2]}", encoding="utf-8")
    sys.exit(not agreed)


if __name__ == "__main__":
    main()
