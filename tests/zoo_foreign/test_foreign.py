"""Models built as keras.io's tutorials build them go all stages. `make zoo-foreign` runs all of them and those of keras-hub, and writes the table."""

import foreign_shrunk_rows
import keras
import numpy as np
import pytest
from foreign_rows import COLUMNS, TUTORIALS, Road, data_for, resumable, run_row
from run_foreign import INTRODUCTION, filled
from stages import FAILED, PASSED, REFUSED, Cell, Refused, ZooRow, run_stage

from tfdistill.host import fingerprint

# One of each kind: custom blocks on tokens, ids that are moved before the lookup, own weights, a generator of random numbers, a contrastive head, patches.
FEW = ("text_transformer", "recommender", "graph_convolution", "compact_transformer", "contrastive_encoder", "mlp_mixer")
LONG = ("compact_transformer", "mlp_mixer")


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.release if name in LONG else pytest.mark.slow) for name in FEW])
def test_a_model_of_a_tutorial_goes_all_stages(name):
    *_, row = run_row(f"keras.io {name}")
    assert {column: cell.text for column, cell in row.cells.items() if cell.state != PASSED} == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["text_transformer", "graph_convolution"])
def test_a_model_of_a_tutorial_gets_smaller(name):
    *_, row = foreign_shrunk_rows.run_row(f"keras.io {name}")
    assert {column: cell.text for column, cell in row.cells.items() if cell.state != PASSED} == {}


def test_data_fits_the_inputs():
    x = data_for(TUTORIALS["wide_and_deep"](), np.random.default_rng(0))
    assert [(array.shape, array.dtype.name) for array in x] == [((32, 4), "float32"), ((32, 1), "int32")]
    assert x[1].max() == 4
    inputs = keras.Input((9,), dtype="int32", name="padding_mask")
    mask = data_for(keras.Model(inputs, keras.layers.Flatten()(inputs)), np.random.default_rng(0))
    assert set(np.unique(mask)) == {0, 1}
    assert (np.diff(mask) <= 0).all()


def test_what_a_plan_refuses_is_no_failure():
    """A layer that cannot be taken is named before training; what breaks afterwards has failed."""
    road = Road.__new__(Road)
    road.model, road.refused, road.quantized = keras.Sequential([keras.Input((2,)), keras.layers.Lambda(lambda x: 2 * x)]), None, None
    refused = run_stage(road.quantize)
    assert (refused.state, run_stage(road.export_trained)) == (REFUSED, Cell(REFUSED, refused.text, 0.0))
    assert isinstance(road.refused, Refused)
    road.refused = None
    assert run_stage(road.export_trained).state == FAILED


@pytest.mark.parametrize(
    ("missing", "state", "again"),
    [("calibrated file", PASSED, True), ("QAT's file", REFUSED, True), ("QAT's file", FAILED, False), ("distillation", PASSED, False)],
)
def test_a_row_without_a_file_trains_again(missing, state, again):
    """What rounding does, which a file is held against, is known of the model that is trained in the same process alone."""
    cells = {column: Cell(state, "", 0.0) for column in COLUMNS if column != missing}
    assert ("QAT" not in resumable(ZooRow("a", 1, cells, fingerprint())).cells) is again


def test_the_introduction_counts_the_cells(monkeypatch):
    monkeypatch.setattr("importlib.metadata.version", lambda name: "1.0")
    states = (PASSED, PASSED, PASSED, REFUSED, FAILED, PASSED)
    rows = [ZooRow("a", 1, dict(zip(COLUMNS, (Cell(state, "", 0.0) for state in states), strict=True)), fingerprint())] * 2
    whole, partial = (filled(INTRODUCTION, rows, total) for total in (2, 3))
    assert "Of 12 cells 8 passed (67 %),\n2 were refused and 2 failed." in whole
    assert "have been run" not in whole
    assert "Only 2 of the 3 models have been run. Of 12 cells" in partial
