"""The zoo's small models, and four families, go the whole road. `make zoo` runs all of it and writes docs/coverage.md."""

import pytest
from zoo_models import SMALL
from zoo_rows import COLUMNS, FAILED, PASSED, Cell, ZooRow, _cell, crashed, run_row

FOUR = ("MobileNet", "MobileNetV2", "MobileNetV3Small", "VGG16")


@pytest.mark.slow
@pytest.mark.parametrize("name", [*SMALL, *FOUR])
def test_a_model_goes_the_whole_road(name):
    *_, row = run_row(name)
    assert {column: cell.text for column, cell in row.cells.items() if cell.state == FAILED} == {}


def test_a_stage_that_fails_is_no_pass():
    def broken():
        raise ValueError("broken")

    assert _cell(broken) == Cell(FAILED, "ValueError: broken", 0.0)
    assert _cell(lambda: "0") == Cell(PASSED, "0", 0.0)


def test_a_row_reads_itself_again(tmp_path):
    from tfdistill.host import fingerprint

    row = ZooRow("lstm", 3, {"bridge": Cell(PASSED, "0", 0.1)}, fingerprint())
    assert ZooRow.load(row.save(tmp_path / "row.json")) == row
    whole = crashed(row, -11)
    assert tuple(whole.cells) == COLUMNS
    assert whole.cells["bridge"].state == PASSED
    assert {whole.cells[column].state for column in COLUMNS[1:]} == {FAILED}
