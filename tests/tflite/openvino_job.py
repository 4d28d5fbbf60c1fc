"""Runs .tflite files with OpenVINO, in an environment that has it: each on the rows of the .npz file beside it, name of a tensor -> rows.

Writes the outputs of each into a .npz file likewise; prints why it does not read a file.
"""

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
    with np.load(path.with_suffix(".npz")) as file:
        given = dict(file)
    found = {name: [] for output in model.outputs for name in output.names}
    for row in range(len(next(iter(given.values())))):
        for output, value in model({name: rows[row][None] for name, rows in given.items()}).items():
            for name in output.names:
                found[name].append(value[0])
    np.savez(path.with_suffix(".openvino.npz"), **found)
