"""Memory of a model in the process that runs it."""

import pathlib
import resource
import sys

_STATUS = pathlib.Path("/proc/self/status")


def reset_peak():
    """Makes the peak begin anew, where the kernel can; elsewhere it is the peak since the process began."""
    forget = pathlib.Path("/proc/self/clear_refs")
    if forget.exists():
        try:
            forget.write_text("5")
        except PermissionError:
            return  # some containers forbid it; the measuring process is young, so its peak hardly differs


def resident_bytes():
    """Returns the resident memory of this process now."""
    return _status("VmRSS") if _STATUS.exists() else peak_bytes()


def peak_bytes():
    """Returns the largest resident memory of this process since `reset_peak`."""
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
    """Measures the memory that a model's activations take.

    Args:
        model: A `TFLiteModel` that was opened without XNNPACK (which keeps activations in memory of its own) and has run once.

    Returns:
        Bytes from the first to the last of its non-constant tensors in the main graph, which share memory where their lifetimes allow.
        Tensors that an operation sized while it ran lie elsewhere and are added.
    """
    interpreter = model.interpreter
    made, read = {info.index for info in model.inputs.values()}, set()
    for operation in interpreter._get_ops_details():
        made.update(int(i) for i in operation["outputs"])
        read.update(int(i) for i in operation["inputs"])
    spans = []
    for detail in interpreter.get_tensor_details():
        index = detail["index"]
        if index in read and index not in made:
            continue  # a constant: it lies in the file
        try:
            view = interpreter.tensor(index)()
        except ValueError:
            continue  # no memory of its own: fused away, or never needed
        start = view.__array_interface__["data"][0]
        spans.append((start, start + view.nbytes))
    return sum(end - start for start, end in _regions(spans))


def _regions(spans):
    # One arena cannot have a hole larger than all tensors together, so a larger one separates two allocations.
    most = sum(end - start for start, end in spans)
    regions = []
    for start, end in sorted(spans):
        if regions and start - regions[-1][1] <= most:
            regions[-1][1] = max(regions[-1][1], end)
        else:
            regions.append([start, end])
    return regions
