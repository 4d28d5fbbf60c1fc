"""Runs .tflite files with OpenVINO, in an environment that has it: the outputs of each on the rows of the .npy file beside it; prints why it reads a file not."""

import pathlib
import sys

import numpy as np
import openvino

core = openvino.Core()
for path in map(pathlib.Path, sys.argv[1:]):
    try:
        # On processors that have bfloat16, OpenVINO would compute in it.
        model = core.compile_model(core.read_model(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    except RuntimeError as error:
        print(path.stem, "is not read:", str(error).replace("\n", " "))
        continue
    rows = [next(iter(model(row[None]).values()))[0] for row in np.load(path.with_suffix(".npy"))]
    np.save(path.with_suffix(".openvino.npy"), np.array(rows))
