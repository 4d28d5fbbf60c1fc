"""The process that tries one target for `tfdistill.benchmarking.available`."""

import json
import os
import pathlib
import sys

from tfdistill.benchmarking.targets.base import from_spec
from tfdistill.benchmarking.truth import require_delegated
from tfdistill.errors import TfdistillError
from tfdistill.runtime.delegates import load_delegate
from tfdistill.runtime.small_file import addition
from tfdistill.runtime.tensors import sample_inputs


def main(result_fd):
    """Tries the target of the request, a line of JSON on standard input; writes `{"usable": ..., "text": ...}`."""
    request = json.loads(sys.stdin.buffer.readline())
    try:
        answer = {"usable": True, "text": tried(from_spec(request["target"]), pathlib.Path(request["folder"]))}
    except TfdistillError as error:
        words = error.happened.partition(" said:\n")[2]  # the runtime's own, without the name of the file that was tried
        answer = {"usable": False, "text": words or error.happened}
    except ImportError as error:  # the interpreter of another engine
        answer = {"usable": False, "text": str(error)}
    with os.fdopen(result_fd, "w", encoding="utf-8") as result:
        json.dump(answer, result)


def tried(target, folder):
    """Runs a file of one addition on a target. A delegate is only loaded: which operations and types it takes is its own affair.

    Returns:
        The name and version of its runtime.

    Raises:
        TfdistillError: if that fails, or something else runs it.
    """
    found = target.import_runtime()
    if target.kind == "delegate":
        load_delegate(target.library, target.options, target.engine)
        return found
    path = folder / f"{target.kind}.tflite"
    path.write_bytes(addition())
    model = target.open(path)
    require_delegated(target, model)
    model.set_inputs(sample_inputs(model.inputs, 0))
    model.invoke()
    model.read_outputs()
    return found
