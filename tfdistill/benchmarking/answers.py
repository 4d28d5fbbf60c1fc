"""Runs samples on a target, in a process of its own."""

import json
import pathlib

import numpy as np

from tfdistill.benchmarking.isolation import run_child
from tfdistill.benchmarking.targets.base import to_spec
from tfdistill.utils.files import temporary_folder

# Time for all but the runs: the process starts and opens the file, which an accelerator may have to compile.
_SECONDS, _SECONDS_PER_SAMPLE = 120.0, 5.0


def answers(path, target, inputs, shapes=None):
    """Runs a .tflite file on samples on a target.

    Args:
        path: The file.
        target: A target of this machine.
        inputs: Dict of input name -> array (samples, ...), as `TFLiteModel.run` takes them.
        shapes: Dict of input name -> full shape, to resize these inputs to; or None.

    Returns:
        Dict of output name -> array (samples, ...), dequantized to float32 if the tensor is quantized.

    Raises:
        DelegationError: if an accelerator leaves operations to the CPU.
        BenchmarkError: if the file does not run on the target, or ends the process.
    """
    with temporary_folder() as folder:
        np.savez(folder / "inputs.npz", **{f"input_{i}": array for i, array in enumerate(inputs.values())})
        request = {
            "path": str(pathlib.Path(path).absolute()),
            "target": to_spec(target),
            "folder": str(folder),
            "names": list(inputs),
            "shapes": shapes,
        }
        seconds = _SECONDS + _SECONDS_PER_SAMPLE * len(next(iter(inputs.values())))
        names = run_child(request, seconds, "tfdistill.benchmarking.answers_child", "running on the target")
        with np.load(folder / "outputs.npz", allow_pickle=False) as found:
            return {name: found[f"output_{i}"] for i, name in enumerate(json.loads(names))}
