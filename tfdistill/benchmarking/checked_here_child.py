"""The process that runs a file here for `tfdistill.benchmarking.checked_here`."""

import dataclasses
import json
import os
import pathlib
import signal
import sys
import types

import numpy as np

from tfdistill.benchmarking import truth
from tfdistill.benchmarking.targets.base import from_spec
from tfdistill.errors import TfdistillError
from tfdistill.runtime import bootstrap
from tfdistill.runtime.interpreter import open_file
from tfdistill.runtime.work import work_of

# The signal ends the process then, which counts as a file that does not run here.
_LONGEST_SECONDS = 60


def main(result_fd):
    """Answers the request, a line of JSON on standard input: `{"record": {...}}` with the fields of the record, or `{"error": ...}`."""
    request = json.loads(sys.stdin.buffer.readline())
    bootstrap.end_with_input()
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, _LONGEST_SECONDS)
    try:
        answer = {"record": {**_work(request), **_compared(request)}}
    except TfdistillError as error:
        answer = {"error": str(error), "kind": type(error).__name__, "parts": [error.happened, error.expected, error.fix]}
    os.write(result_fd, json.dumps(answer).encode() + b"\n")


def _work(request):
    try:
        model = open_file(request["path"], shapes=request["shapes"], trusted=True)
    except TfdistillError:
        return {}
    found = work_of(model.interpreter)
    return dataclasses.asdict(found) if found else {}


def _compared(request):
    if not request["names"].get("last"):
        return {}
    sent = types.SimpleNamespace(
        **{part: _arrays(pathlib.Path(request["folder"]) / f"{part}.npz", names) for part, names in request["names"].items()}
    )
    return truth.compared(request, from_spec(request["target"]), sent)


def _arrays(path, names):
    with np.load(path, allow_pickle=False) as found:
        return {name: found[stored] for name, stored in names.items()}
