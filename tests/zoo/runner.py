"""Runs a table of models, a process for each, and writes its records and its part of docs/coverage.md."""

import argparse
import concurrent.futures
import dataclasses
import pathlib
import re
import subprocess
import sys

from stages import FAILED, PASSED, Cell, ZooRow

from tfdistill.utils.files import write_whole
from tfdistill.utils.progress import progress


@dataclasses.dataclass(frozen=True)
class Zoo:
    """A table of models.

    Attributes:
        script: Path of the script that `main` was called from.
        names: Names of the rows, in the order of the table.
        columns: Names of the stages.
        run_row: Function of a name, and of the `ZooRow` of stages already run or None, that yields a `ZooRow` after every stage.
        records: Folder of the records.
        heading: First line of its part of the page.
        introduction: Function of the rows that returns the text above the table.
        seconds: Time limit of a row.
        workers: How many rows run at the same time.
    """

    script: str
    names: tuple
    columns: tuple
    run_row: object
    records: pathlib.Path
    heading: str
    introduction: object
    seconds: float
    workers: int = 1


def main(zoo, description):
    """Runs the rows that the arguments name, and writes the page of all rows that there are records of."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME")
    parser.add_argument("--records", type=pathlib.Path, default=zoo.records)
    parser.add_argument("--page", type=pathlib.Path, default=pathlib.Path("docs/coverage.md"))
    parser.add_argument("--workers", type=int, default=zoo.workers, help="rows that run at the same time; each takes about 3 GiB")
    parser.add_argument(
        "--resume", action="store_true", help="keep what is done: only rows and stages without a result, or that failed, are run"
    )
    parser.add_argument("--files", type=pathlib.Path, help="folder that keeps the .tflite files of each row")
    parser.add_argument("--again", nargs="+", default=[], metavar="COLUMN", help="with --resume: stages that are run again")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    arguments = parser.parse_args()

    def path_of(name):
        return arguments.records / f"{''.join(c if c.isalnum() else '_' for c in name)}.json"

    if arguments.row:
        path = path_of(arguments.row)
        kept = {"files": arguments.files / path.stem} if arguments.files else {}
        for row in zoo.run_row(arguments.row, ZooRow.load(path) if path.exists() else None, **kept):
            row.save(path)
        return

    chosen = arguments.only or zoo.names
    for name in chosen:
        _begin(path_of(name), [column for column in zoo.columns if column not in arguments.again], arguments.resume)
    with progress("Models", total=len(chosen)) as advance, concurrent.futures.ThreadPoolExecutor(arguments.workers) as pool:
        running = {pool.submit(_run_row, zoo, name, path_of(name), arguments): name for name in chosen}
        for done in concurrent.futures.as_completed(running):
            cells = done.result()
            print(f"{running[done]:<20}", "  ".join(cells[c].text.strip().splitlines()[0][:60] for c in zoo.columns), flush=True)
            advance()
    rows = [_ended(ZooRow.load(path), zoo.columns, "there is no result") for name in zoo.names if (path := path_of(name)).exists()]
    with write_whole(arguments.page) as beside:
        beside.write_text(with_part(arguments.page, zoo.heading, part(rows, zoo)), encoding="utf-8")
    failed = [f"{row.name}, {column}" for row in rows for column, cell in row.cells.items() if cell.state == FAILED]
    if failed:
        raise SystemExit(f"Failed: {'; '.join(failed)}")


def _begin(path, columns, resume):
    """Removes the record of a row, or of it the stages that failed or are no longer there."""
    if not resume:
        path.unlink(missing_ok=True)
    elif path.exists():
        row = ZooRow.load(path)
        # In the order of the table: the stages of a row are run one after the other.
        kept = {column: row.cells[column] for column in columns if column in row.cells and row.cells[column].state != FAILED}
        dataclasses.replace(row, cells=kept).save(path)


def _run_row(zoo, name, path, arguments):
    """Runs one row in processes of its own: a crash inside the converter costs one stage, and memory is given back. Returns its cells."""
    while True:
        cells = ZooRow.load(path).cells if path.exists() else {}
        before = len(cells)
        if before == len(zoo.columns):
            return cells
        command = [sys.executable, zoo.script, "--row", name, "--records", str(arguments.records)]
        command += ["--files", str(arguments.files)] if arguments.files else []
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=zoo.seconds)
            ended, error = f"the process ended with {done.returncode}", done.stderr
        except subprocess.TimeoutExpired:
            ended, error = f"not done in {zoo.seconds:g} s", ""
        if not path.exists():
            raise SystemExit(f"The row {name}: {ended}\n{error[-2000:]}")
        row = ZooRow.load(path)
        if len(row.cells) < len(zoo.columns):  # the stage that it was in has failed; those after it may not have
            row = _ended(row, [column for column in zoo.columns if column not in row.cells][:1], ended)
            row.save(path)
        if len(row.cells) == before:
            raise SystemExit(f"The row {name} makes no progress: {ended}\n{error[-2000:]}")


def _ended(row, columns, how):
    """The row of a process that ended in the middle: of these columns, those that are missing have failed."""
    missing = {column: Cell(FAILED, how, 0.0) for column in columns if column not in row.cells}
    return dataclasses.replace(row, cells={**row.cells, **missing})


def part(rows, zoo):
    """The records as a part of the page, in Markdown."""
    lines = [f"| model | parameters | {' | '.join(zoo.columns)} |", "|---|---:|" + "---:|" * len(zoo.columns)]
    notes = {}
    for row in rows:
        cells = []
        for column in zoo.columns:
            cell = row.cells[column]
            if cell.state == PASSED:
                cells.append(cell.text)
            else:
                # Not where the files lie on this machine.
                text = re.sub(r"/[^ \"]*/(?=tfdistill/)", "", " ".join(cell.text.split()))
                said = f"{row.name}: {cell.state}: {text[:300]}"
                cells.append(f"{cell.state} ({notes.setdefault(said, len(notes) + 1)})")
        lines.append(f"| {row.name} | {row.parameters:,} | {' | '.join(cells)} |")
    numbered = [f"{number}. {note}" for note, number in notes.items()]
    host = rows[0].host
    below = ["", *numbered, *([""] if numbered else []), f"On {host.packages_line()}.", ""]
    return f"{zoo.heading}\n\n{zoo.introduction(rows)}\n" + "\n".join(lines + below)


def with_part(page, heading, text):
    """The page with one of its parts replaced, or added at the end. A part begins with a heading `# ` or `## `."""
    parts = []
    for line in page.read_text(encoding="utf-8").splitlines() if page.exists() else ():
        if line.startswith(("# ", "## ")):
            parts.append([])
        parts[-1].append(line)
    found = ["\n".join(lines).rstrip() for lines in parts]
    mine = [i for i, body in enumerate(found) if body.splitlines()[0] == heading]
    if mine:
        found[mine[0]] = text.rstrip()
    else:
        found.append(text.rstrip())
    return "\n\n".join(found) + "\n"
