"""Measures the memory of a model in the process that runs it."""

import pathlib
import resource
import sys

import numpy as np

from tfdistill.runtime.delegated import operation_nodes

_STATUS = pathlib.Path("/proc/self/status")


def reset_peak():
    """Resets the peak, if the kernel supports it; otherwise the peak since the start of the process is reported."""
    clear_refs = pathlib.Path("/proc/self/clear_refs")
    if clear_refs.exists():
        try:
            clear_refs.write_text("5")
        except PermissionError:
            return  # some containers forbid it; the measuring process has just started, so its peak hardly differs


def resident_bytes():
    """Returns the resident memory of this process, in bytes."""
    return _status("VmRSS") if _STATUS.exists() else peak_bytes()


def peak_bytes():
    """Returns the largest resident memory of this process since `reset_peak`, in bytes."""
    if _STATUS.exists():
        return _status("VmHWM")
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def _status(field):
    for line in _STATUS.read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"{_STATUS} has no {field}")


def arena_bytes(model):
    """Measures the memory of a model's activations.

    Args:
        model: A `TFLiteModel` that was opened without XNNPACK (which keeps activations in memory of its own) and has run once.

    Returns:
        Bytes from the first to the last non-constant tensor of the main graph, which share memory if their lifetimes allow it, plus the
        tensors outside that operations allocated at run time. The values of resource variables are not in it: the interpreter does not show them.
    """
    interpreter = model.interpreter
    made, read = {info.index for info in model.inputs.values()}, set()
    for operation in operation_nodes(interpreter):
        made.update(int(i) for i in operation["outputs"])
        read.update(int(i) for i in operation["inputs"])
    spans = []
    for detail in interpreter.get_tensor_details():
        index = detail["index"]
        if index in read and index not in made:
            continue  # a constant, which is stored in the file
        if np.dtype(detail["dtype"]).hasobject:
            continue  # a handle of a variable, at which there is nothing to see: asking for its memory ends the process
        try:
            view = interpreter.tensor(index)()
        except ValueError:
            continue  # no memory: fused into another operation, or unused
        start = view.__array_interface__["data"][0]
        spans.append((start, start + view.nbytes))
    return sum(end - start for start, end in _regions(spans))


def _regions(spans):
    # The gaps of one arena are never larger than all tensors together, so a larger gap separates two allocations.
    most = sum(end - start for start, end in spans)
    regions = []
    for start, end in sorted(spans):
        if regions and start - regions[-1][1] <= most:
            regions[-1][1] = max(regions[-1][1], end)
        else:
            regions.append([start, end])
    return regions
