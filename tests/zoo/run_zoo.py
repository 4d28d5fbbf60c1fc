"""Runs the zoo, a row per process, and writes its records and its part of docs/coverage.md.

    python tests/zoo/run_zoo.py [--only NAME ...] [--resume] [--records runs/zoo] [--page docs/coverage.md] [--files FOLDER] [--again COLUMN ...]

With `--only` the other rows of the page come from the records that are there. With `--resume` only what has no record, or failed, is run, and the columns of `--again`. With `--files`
the .tflite files are kept (about 1 GB), so that the times can be taken again in a minute when the machine is at rest: `--resume --files runs/zoo_files --workers 1 --again "float32, ms" "int8, ms" "int8 / float32"`.
"""

import pathlib

from runner import Zoo, main
from zoo_rows import COLUMNS, NAMES, run_row

INTRODUCTION = """Made by `make zoo` (`tests/zoo/`). The families of `keras.applications` begin with random weights and are taught a few dozen steps on made-up classes of images;
the other models have random weights. All normalizations have the statistics of the data. Pruning, clustering and quantization-aware training (QAT) each train for two
steps with the teacher on.

- **bridge**: largest difference between the Keras 3 model and its tf_keras twin on random input; in brackets, where rounding alone makes that over 1e-6, the
  largest of a layer fed what the original feeds it, as a share of its scale.
- **pruning**, **clustering**: layers treated, of half the weights zero and of 8 distinct weights; both hold in the stripped Keras 3 model.
- **QAT**: layers trained quantized, of all layers that compute; the converter calibrates the others, and the step's plan says why.
- **integer file**: size of the int8 .tflite file, which holds integer tensors only.
- **parity**: mean difference between the file and the quantization-aware Keras model, as a share of the output's scale; at most 2 %.
- **int8 by training**, **by calibration**: the int8 file of QAT, and that of `export_tflite(model, path, "int8", calibration=x)`, on other samples than it was calibrated
  on: mean difference to the float model as a share of the output's scale, and the share of samples whose largest output is the same. Calibration alone passes up to 3 %.
- **float32**, **int8**: median time of one run, one thread, XNNPACK without AMX, which no phone or board has; both files in one process, taking turns. Where the int8 file misses its goal (faster than float32 in
  convolutional rows, 0.6 of it in MobileNetV3Small and EfficientNetB0, 0.9 in transformers), the operation that takes most of its time, first of those outside XNNPACK.
- **XNNPACK**: share of the int8 file's operations that it takes.
"""

ZOO = Zoo(__file__, NAMES, COLUMNS, run_row, pathlib.Path("runs/zoo"), "# What is covered", lambda rows: INTRODUCTION, 3600)

if __name__ == "__main__":
    main(ZOO, __doc__)
