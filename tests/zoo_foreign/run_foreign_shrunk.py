"""Makes models that others wrote smaller, a row per process, and writes the records and their part of docs/coverage.md.

    python tests/zoo_foreign/run_foreign_shrunk.py [--only NAME ...] [--resume] [--records runs/zoo_foreign_shrunk] [--page docs/coverage.md]

With `--only` the other rows of the page come from the records that are there. It needs the packages of requirements-foreign.txt.
"""

import functools
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "zoo"))

from foreign_rows import rows
from foreign_shrunk_rows import COLUMNS, run_row
from run_foreign import filled
from runner import Zoo, main

INTRODUCTION = """Made by `make zoo-foreign-shrunk` (`tests/zoo_foreign/`): the models of keras-hub {hub}, kimm {kimm} and the tutorials of keras.io of the table above. What their
classes hide is opened by `tfdistill.compress.open_layers`, then made smaller; single channels may go (`divisor=1`), as these models are small. {missing}Of {cells} cells {passed}
passed ({share:.0f} %), {refused} were refused and {failed} failed.

- **refused**: a plan or an error says before any work that it cannot be done, and why.
- **opened**: layers of classes that Keras does not have of which the inside took the place, of all; the largest difference of the outputs.
- **MACs left**: multiply-accumulates that stay after `PruneChannels(keep_macs=0.7)`, or for the smallest share that can be met. `apply` compares the result with the whole model
  in which the removed channels are zero.
- **int8 file**: size of the int8 file of that, calibrated without training, verified against it. **loaded**: it is saved, loaded, and computes the same.
- **low rank**: parameters that stay after `LowRank(keep_parameters=0.8)`, or for the smallest share that can be met.
- **half the width**: multiply-accumulates of `shrink_like(width=0.5)`.
"""

if __name__ == "__main__":
    names = tuple(rows())
    written = functools.partial(filled, INTRODUCTION, total=len(names))
    heading = "## Models that others wrote, smaller"
    main(Zoo(__file__, names, COLUMNS, run_row, pathlib.Path("runs/zoo_foreign_shrunk"), heading, written, 900, 2), __doc__)
