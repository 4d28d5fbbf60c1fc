"""Runs the models that others wrote, a row per process, and writes their records and their part of docs/coverage.md.

    python tests/zoo_foreign/run_foreign.py [--only NAME ...] [--records runs/zoo_foreign] [--page docs/coverage.md]

With `--only` the other rows of the page come from the records that are there. It needs the packages of requirements-foreign.txt.
"""

import functools
import importlib.metadata
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "zoo"))

from foreign_rows import COLUMNS, rows, run_row
from runner import Zoo, main
from stages import PASSED, REFUSED

INTRODUCTION = """Made by `make zoo-foreign` (`tests/zoo_foreign/`): models of keras-hub {hub} and kimm {kimm} in small configurations, and models built as the tutorials of
keras.io build them, none of which was changed or registered for this library. All have random weights. {missing}Of {cells} cells {passed} passed ({share:.0f} %),
{refused} were refused and {failed} failed.

`make zoo-foreign` runs all rows on one state of the library. Inputs of any length stay so in the file (`batch_size=None`).

- **refused**: the step's plan says before any training that it cannot be done, and why.
- **bridge**: as above. **pruning**: layers of which half the weights are zero, after two steps of training with the teacher on.
- **QAT**: layers trained quantized, of all layers that compute, after two steps. **QAT's file**: size of its int8 file, and the mean difference from the
  quantization-aware model as a share of the output's scale; it passes within 2 %, or within what two independent roundings would differ by, as above.
- **calibrated file**: the same for an int8 file of the original model, calibrated on 32 samples without training, against that model in float; within 3 %,
  or the same bound.
- **distillation**: two steps of the `Distiller`, with a second model of the same kind as the teacher.
"""


def filled(text, rows, total):
    """The text above a table.

    Args:
        text: The text with fields for versions and numbers of cells.
        rows: List of the `ZooRow`s in it.
        total: Number of all models.
    """
    cells = [cell.state for row in rows for cell in row.cells.values()]
    count = {state: cells.count(state) for state in (PASSED, REFUSED)}
    return text.format(
        missing="" if len(rows) == total else f"Only {len(rows)} of the {total} models have been run. ",
        hub=importlib.metadata.version("keras-hub"),
        kimm=importlib.metadata.version("kimm"),
        cells=len(cells),
        passed=count[PASSED],
        share=100 * count[PASSED] / len(cells),
        refused=count[REFUSED],
        failed=len(cells) - sum(count.values()),
    )


if __name__ == "__main__":
    names = tuple(rows())
    written = functools.partial(filled, INTRODUCTION, total=len(names))
    zoo = Zoo(__file__, names, COLUMNS, run_row, pathlib.Path("runs/zoo_foreign"), "## Models that others wrote", written, 900, 2)
    main(zoo, __doc__)
