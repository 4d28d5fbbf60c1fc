"""Runs the zoo, a row per process, and writes its records and its part of docs/coverage.md.

    python tests/zoo/run_zoo.py [--only NAME ...] [--records runs/zoo] [--page docs/coverage.md]

With `--only` the other rows of the page come from the records that are there.
"""

import pathlib

from runner import Zoo, main
from zoo_rows import COLUMNS, NAMES, run_row

INTRODUCTION = """Made by `make zoo` (`tests/zoo/`). Every model has random weights, small inputs and goes the whole road; pruning, clustering and quantization-aware
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

ZOO = Zoo(__file__, NAMES, COLUMNS, run_row, pathlib.Path("runs/zoo"), "# What is covered", lambda rows: INTRODUCTION, 3600)

if __name__ == "__main__":
    main(ZOO, __doc__)
