"""The process that times the operations of a file for `tfdistill.runtime.profile`."""

import json
import os
import sys

from tfdistill.errors import TfdistillError
from tfdistill.runtime.amx import refuse_amx
from tfdistill.runtime.interpreter import open_file
from tfdistill.runtime.litert_c import ProfiledModel
from tfdistill.runtime.tensors import sample_inputs

WARM_UP_RUNS = 3


def main(result_fd):
    """Times the file of the request, a line of JSON on standard input; writes `{"runs": [...]}` or `{"error": "..."}`."""
    request = json.loads(sys.stdin.readline())
    try:
        answer = {"runs": timed_runs(**request)}
    except TfdistillError as error:
        answer = {"error": str(error)}
    with os.fdopen(result_fd, "w", encoding="utf-8") as result:
        json.dump(answer, result)


def timed_runs(path, runs, threads, amx):
    """Returns a list with the operations of each run, as `ProfiledModel.timed_run` lists them."""
    if not amx:
        refuse_amx()
    opened = open_file(path, trusted=True)
    outputs = {name: (info.dtype, info.shape) for name, info in opened.outputs.items()}
    model = ProfiledModel(path, sample_inputs(opened.inputs, 0), outputs, threads)
    for _ in range(WARM_UP_RUNS):
        model.run()
    return [model.timed_run() for _ in range(runs)]
