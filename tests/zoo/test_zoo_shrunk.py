"""The shrinking steps take the zoo's small models. `make zoo-shrunk`, a step of a release, runs all of it and writes its part of docs/coverage.md."""

import pytest
from shrunk_rows import COLUMNS, run_row
from stages import FAILED, PASSED, REFUSED
from zoo_models import SMALL, mobile_block

MODELS = {**SMALL, "mobile_block": mobile_block}
# Whole rows of one kind each: convolutions on images, attention, a nested model.
WHOLE = ("transformer_encoder", "nested", "mobile_block")
# Column -> the models whose plans say that it cannot be done.
CHANNELS = COLUMNS[:-1]
REFUSALS = {"ops_graph": CHANNELS, **dict.fromkeys(("lstm", "gru"), COLUMNS[-1:])}


def states(name, columns):
    *_, row = run_row(name, columns=columns, builder=MODELS[name])
    assert {column: cell.text for column, cell in row.cells.items() if cell.state == FAILED} == {}
    return {column: cell.state for column, cell in row.cells.items()}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_gets_smaller_or_its_plan_says_why_not(name):
    columns = ("MACs left", "parameters left", "zeroed channels", "low rank")
    assert states(name, columns) == {column: REFUSED if column in REFUSALS.get(name, ()) else PASSED for column in columns}


@pytest.mark.release
@pytest.mark.parametrize("name", WHOLE)
def test_every_later_step_takes_what_is_left(name):
    assert set(states(name, COLUMNS).values()) == {PASSED}


def test_without_fewer_channels_the_later_steps_are_refused():
    assert states("ops_graph", CHANNELS) == dict.fromkeys(CHANNELS, REFUSED)
