"""Runs the zoo, a row per process, and writes its records and docs/coverage.md.

    python tests/zoo/run_zoo.py [--only NAME ...] [--records runs/zoo] [--page docs/coverage.md]

With `--only` the other rows of the page come from the records that are there.
"""

import argparse
import pathlib
import subprocess
import sys

from tfdistill.utils.files import write_whole
from tfdistill.utils.progress import progress

INTRODUCTION = """# What is covered

Made by `make zoo` (`tests/zoo/`). Every model has random weights, small inputs and goes the whole road; pruning, clustering and quantization-aware
training (QAT) each train for two steps with the teacher on.

- **bridge**: largest difference between the Keras 3 model and its tf_keras twin on random input; in brackets, where rounding alone makes that over 1e-6, the
  largest of a layer fed what the original feeds it, as a share of its scale.
- **pruning**, **clustering**: layers treated, of half the weights zero and of 8 distinct weights; both hold in the stripped Keras 3 model.
- **QAT**: layers trained quantized, of all layers that compute; the converter calibrates the others, and the step's plan says why.
- **integer file**: size of the int8 .tflite file, which holds integer tensors only.
- **parity**: mean difference between the file and the quantization-aware Keras model, as a share of the output's scale; in brackets, what rounding itself
  changes in that model. Deep nets of random weights multiply every rounding, which trained ones do not; a file passes if it is within 2 % of its Keras
  model, or within what two independent roundings of that model would differ by (the square root of two times the figure in brackets).

"""


def page(rows, columns):
    """The records as a page in Markdown."""
    lines = [f"| model | parameters | {' | '.join(columns)} |", "|---|---:|" + "---:|" * len(columns)]
    notes = []
    for row in rows:
        cells = []
        for column in columns:
            cell = row.cells[column]
            if cell.state == "passed":
                cells.append(cell.text)
            else:
                notes.append(f"{row.name}, {column}: {cell.state}: {cell.text}")
                cells.append(f"{cell.state} ({len(notes)})")
        lines.append(f"| {row.name} | {row.parameters:,} | {' | '.join(cells)} |")
    numbered = [f"{number}. {' '.join(note.split())[:300]}" for number, note in enumerate(notes, 1)]
    host = rows[0].host
    versions = ", ".join(f"{name} {version}" for name, version in sorted(host.packages.items()))
    return INTRODUCTION + "\n".join([*lines, "", *numbered, *([""] if numbered else []), f"On {host.cpu_model}; {versions}.", ""])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME")
    parser.add_argument("--records", type=pathlib.Path, default=pathlib.Path("runs/zoo"))
    parser.add_argument("--page", type=pathlib.Path, default=pathlib.Path("docs/coverage.md"))
    parser.add_argument("--row", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    from zoo_rows import COLUMNS, FAILED, NAMES, ZooRow, crashed, run_row

    if arguments.row:
        for row in run_row(arguments.row):
            row.save(arguments.records / f"{arguments.row}.json")
        return

    chosen = arguments.only or NAMES
    with progress("Models", total=len(chosen)) as advance:
        for name in chosen:
            # A process of its own: a crash inside the converter costs one row, and memory is given back.
            command = [sys.executable, __file__, "--row", name, "--records", str(arguments.records)]
            path = arguments.records / f"{name}.json"
            path.unlink(missing_ok=True)
            done = subprocess.run(command, capture_output=True, text=True)
            if not path.exists():
                raise SystemExit(f"The row {name} ended with {done.returncode}:\n{done.stderr[-2000:]}")
            if done.returncode:
                crashed(ZooRow.load(path), done.returncode).save(path)
            cells = ZooRow.load(path).cells
            print(f"{name:<20}", "  ".join(cells[c].text.splitlines()[0][:60] for c in COLUMNS), flush=True)
            advance()
    rows = [crashed(ZooRow.load(path), "no result") for name in NAMES if (path := arguments.records / f"{name}.json").exists()]
    with write_whole(arguments.page) as beside:
        beside.write_text(page(rows, COLUMNS), encoding="utf-8")
    failed = [f"{row.name}, {column}" for row in rows for column, cell in row.cells.items() if cell.state == FAILED]
    if failed:
        raise SystemExit(f"Failed: {'; '.join(failed)}")


if __name__ == "__main__":
    main()
