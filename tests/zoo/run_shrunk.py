"""Runs the shrinking steps over the zoo, a row per process, and writes their records and their part of docs/coverage.md.

    python tests/zoo/run_shrunk.py [--only NAME ...] [--resume] [--records runs/zoo_shrunk] [--page docs/coverage.md]

With `--only` the other rows of the page come from the records that are there. With `--resume` only what has no record, or failed, is run.
"""

import pathlib

from runner import Zoo, main
from shrunk_rows import COLUMNS, run_row
from zoo_rows import NAMES

INTRODUCTION = """Made by `make zoo-shrunk` (`tests/zoo/`): the models of the first table, from which `PruneChannels(keep_macs=0.7)` removes at least 30 % of the
multiply-accumulates (MACs). Families are then taught again, a few dozen steps; the normalizations of the other models have the statistics of the data again. Each later step
takes that, with the whole model as the teacher. Families keep multiples of 8 channels (`divisor=8`, the default); of the small models, whose layers have 3 to 16 channels, single ones
go (`divisor=1`), so that they may lose more than was asked for.

- **refused**: the plan says before any work that it cannot be done, and why; the later steps then have nothing to take.
- **MACs left**, **parameters left**: share that stays.
- **zeroed channels**: largest difference between the outputs of the pruned model and those of the whole one in which the removed channels are zero behind every layer, as a share
  of their largest value, as `apply` finds it on random input.
- **calibrated file**: size of the int8 file by calibration alone; on other samples, its mean difference from the pruned model in float as a share of the output's scale, at most
  3 %, and the share of samples whose largest output is the same.
- **QAT**: layers trained quantized, of all layers that compute, after two steps. **QAT's file**: size of its int8 file, and the mean difference from the quantization-aware
  model as a share of the output's scale; at most 2 %.
- **pruning**: layers of which half the weights are zero in the stripped model, after two steps of TFMOT's pruning.
- **low rank**: layers that `LowRank(keep_parameters=0.8)` factorizes in the whole model, the share of all parameters that stays, and the largest share of a kernel's energy
  that is lost. `apply` compares each of these layers with the product of its factors, within 1e-4.
"""

ZOO = Zoo(__file__, NAMES, COLUMNS, run_row, pathlib.Path("runs/zoo_shrunk"), "## Smaller shapes", lambda rows: INTRODUCTION, 3600)

if __name__ == "__main__":
    main(ZOO, __doc__)
