"""The memory of this process, and of the activations of an interpreter in it.

Standard library and NumPy only, for Python 3.8 and later: `docs/make_kits.py` copies this module to the kits of boards.
"""

import pathlib
import resource
import sys

import numpy as np

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


def activations_bytes(interpreter, nodes, inputs):
    """Measures the memory of the activations of an interpreter without delegates that has run once.

    Args:
        interpreter: The interpreter.
        nodes: Its operations, as dicts with the tensor indices of their `inputs` and `outputs`.
        inputs: Tensor indices of the inputs of the file.

    Returns:
        Bytes from the first to the last non-constant tensor, which share memory if their lifetimes allow it, plus the tensors outside that
        operations allocated at run time.
    """
    made, read = set(inputs), set()
    for operation in nodes:
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
