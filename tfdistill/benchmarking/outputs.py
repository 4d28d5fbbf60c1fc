"""Runs samples on a target, in a process of its own."""

import json
from collections.abc import Mapping

import numpy as np

from tfdistill.benchmarking.isolation import run_child
from tfdistill.benchmarking.targets.base import to_spec
from tfdistill.runtime.interpreter import read_file
from tfdistill.utils.files import temporary_folder


def run_samples(path, target, inputs, shapes, timeout_seconds):
    """Runs a .tflite file on samples on a target.

    Args:
        path: The file.
        target: A target of this machine.
        inputs: Dict of input name -> array (samples, ...), or a single array, as `TFLiteModel.run` takes them.
        shapes: Dict of input name -> full shape, to resize these inputs to; or None.
        timeout_seconds: The process is ended after this time.

    Returns:
        Dict of output name -> array (samples, ...), dequantized to float32 if the tensor is quantized.

    Raises:
        DelegationError: if an accelerator leaves operations to the CPU.
        BenchmarkError: if the file does not run on the target, or ends the process.
    """
    path = read_file(path).path  # or the error that there is none
    if not isinstance(inputs, Mapping):
        inputs = {"": inputs}  # the file knows the name of its only input
    with temporary_folder() as folder:
        np.savez(folder / "inputs.npz", **{f"input_{i}": array for i, array in enumerate(inputs.values())})
        request = {
            "path": str(path.absolute()),
            "target": to_spec(target),
            "folder": str(folder),
            "names": list(inputs),
            "shapes": shapes,
        }
        names = run_child(request, timeout_seconds, "tfdistill.benchmarking.outputs_child", "running on the target")
        with np.load(folder / "outputs.npz", allow_pickle=False) as found:
            return {name: found[f"output_{i}"] for i, name in enumerate(json.loads(names))}
