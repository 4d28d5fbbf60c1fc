"""The process that runs samples for `tfdistill.benchmarking.outputs`."""

import json
import os
import pathlib
import sys

import numpy as np

from tfdistill.benchmarking.targets.base import from_spec
from tfdistill.benchmarking.truth import require_delegated
from tfdistill.errors import TfdistillError
from tfdistill.runtime import bootstrap


def main(result_fd):
    """Runs the samples of the request, a line of JSON on standard input; writes the names of the outputs, or `{"error": ...}`."""
    request = json.loads(sys.stdin.buffer.readline())
    bootstrap.end_with_input()
    try:
        answer = {"record": json.dumps(run(request))}
    except TfdistillError as error:
        answer = {"error": str(error), "kind": type(error).__name__, "parts": [error.happened, error.expected, error.fix]}
    os.write(result_fd, json.dumps(answer).encode() + b"\n")


def run(request):
    """Runs the samples and writes the outputs beside them; returns the names of the outputs."""
    folder, target = pathlib.Path(request["folder"]), from_spec(request["target"])
    target.import_runtime()
    model = target.open(request["path"], request["shapes"])
    require_delegated(target, model)
    with np.load(folder / "inputs.npz", allow_pickle=False) as found:
        inputs = {name: found[f"input_{i}"] for i, name in enumerate(request["names"])}
    outputs = model.run(inputs.get("", inputs))
    np.savez(folder / "outputs.npz", **{f"output_{i}": array for i, array in enumerate(outputs.values())})
    return list(outputs)
