"""The zoo's small models go the whole road. `make zoo`, a step of a release, runs all of it and writes docs/coverage.md."""

import argparse
import functools
import pathlib
import shutil

import pytest
import runner
from small_files import int8_file
from stages import FAILED, PASSED, REFUSED, Cell, Refused, ZooRow, run_stage, run_stages
from zoo_models import SMALL, bidirectional_gru, gru, lstm, mobile_block
from zoo_rows import COLUMNS, TIMES, run_row, timed

from tfdistill.host import fingerprint

# Half as many steps are written out, and a block of what the families are made of goes in their place; tests/bridge/test_bridge.py takes each of them
# through the bridge and back.
STEPS = 4
MODELS = {
    **SMALL,
    **{builder.__name__: functools.partial(builder, STEPS) for builder in (lstm, gru, bidirectional_gru)},
    "mobile_block": mobile_block,
}


# Of what is like them, a GRU and a transformer are among the others.
LONG = ("lstm", "bidirectional_gru", "transformer_encoder")


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.release if name in LONG else pytest.mark.slow) for name in MODELS])
def test_a_model_goes_the_whole_road(name):
    *_, row = run_row(name, columns=COLUMNS[: COLUMNS.index("float32, ms")], builder=MODELS[name])
    assert {column: cell.text for column, cell in row.cells.items() if cell.state == FAILED} == {}


def test_a_stage_that_fails_is_no_pass():
    def broken():
        raise ValueError("broken")

    def refused():
        raise Refused("no kernel")

    assert run_stage(broken) == Cell(FAILED, "ValueError: broken", 0.0)
    assert run_stage(refused) == Cell(REFUSED, "no kernel", 0.0)
    assert run_stage(lambda: "0") == Cell(PASSED, "0", 0.0)


def test_a_row_reads_itself_again_and_goes_on(tmp_path):
    row = ZooRow("lstm", 3, {"bridge": Cell(PASSED, "0", 0.1)}, fingerprint())
    assert ZooRow.load(row.save(tmp_path / "row.json")) == row
    (after,) = run_stages(row, {"bridge": lambda: "not run again", "pruning": lambda: "1"})
    assert [cell.text for cell in after.cells.values()] == ["0", "1"]


def test_the_times_are_taken_again_from_files_that_were_kept(tmp_path):
    for path in timed(tmp_path):
        shutil.copy(int8_file(), path)
    row = ZooRow("unet", 3, {column: Cell(PASSED, "kept", 0.1) for column in COLUMNS if column not in TIMES}, fingerprint())
    *_, after = run_row("unet", row, builder=pytest.fail, files=tmp_path)
    assert list(after.cells) == list(COLUMNS)
    assert all(float(after.cells[column].text.split()[0]) > 0 for column in TIMES)
    assert {cell.text for column, cell in after.cells.items() if column not in TIMES} == {"kept"}


def test_a_process_that_ends_costs_one_stage(tmp_path):
    """A script whose second stage ends the process: that stage has failed, the others are run."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    zoo = runner.Zoo(str(script), ("a",), ("one", "two", "three"), None, tmp_path, "# Two", lambda rows: "", 120)
    cells = runner._run_row(zoo, "a", tmp_path / "a.json", argparse.Namespace(records=tmp_path, files=None))
    assert [(cell.state, cell.text) for cell in cells.values()] == [(PASSED, "1"), (FAILED, "the process ended with 7"), (PASSED, "3")]


def test_what_is_done_is_kept_and_what_failed_is_run_again(tmp_path):
    path = tmp_path / "a.json"
    ZooRow("a", 3, {"one": Cell(PASSED, "1", 0.1), "two": Cell(FAILED, "no", 0.1), "old": Cell(PASSED, "0", 0.1)}, fingerprint()).save(path)
    runner._begin(path, ("one", "two", "three"), resume=True)
    assert list(ZooRow.load(path).cells) == ["one"]
    runner._begin(path, ("one", "two", "three"), resume=False)
    assert not path.exists()


SCRIPT = f"""
import os, pathlib, sys
sys.path.insert(0, {str(pathlib.Path(__file__).parent)!r})
import runner
from stages import ZooRow, run_stages
from tfdistill.host import fingerprint

def run_row(name, row):
    stages = {{"one": lambda: "1", "two": lambda: os._exit(7), "three": lambda: "3"}}
    return run_stages(row or ZooRow(name, 0, {{}}, fingerprint()), stages)

runner.main(runner.Zoo(__file__, ("a",), ("one", "two", "three"), run_row, pathlib.Path(), "# Two", None, 1), "")
"""


def test_a_page_keeps_its_other_parts(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# One\n\nfirst\n\n## Two\n\nsecond\n", encoding="utf-8")
    assert runner.with_part(page, "# One", "# One\n\nnew\n") == "# One\n\nnew\n\n## Two\n\nsecond\n"
    assert runner.with_part(page, "## Three", "## Three\n") == page.read_text(encoding="utf-8") + "\n## Three\n"
    row = ZooRow("a", 1, {"one": Cell(PASSED, "5", 0.0), "two": Cell(REFUSED, "no\nkernel", 0.0)}, fingerprint())
    zoo = runner.Zoo("", ("a",), ("one", "two"), None, tmp_path, "## Two", lambda rows: f"{len(rows)} models", 1)
    text = runner.part([row], zoo)
    assert "1 models" in text
    assert "| a | 1 | 5 | refused (1) |" in text
    assert "1. a: refused: no kernel" in text
