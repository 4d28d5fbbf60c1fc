"""Measures the memory of a model in the process that runs it."""

from tfdistill.benchmarking.process_memory import activations_bytes, peak_bytes, reset_peak, resident_bytes
from tfdistill.runtime.delegated import operation_nodes

__all__ = ["arena_bytes", "peak_bytes", "reset_peak", "resident_bytes"]


def arena_bytes(model):
    """Measures the memory of a model's activations.

    Args:
        model: A `TFLiteModel` that was opened without XNNPACK (which keeps activations in memory of its own) and has run once.

    Returns:
        Bytes from the first to the last non-constant tensor of the main graph, which share memory if their lifetimes allow it, plus the
        tensors outside that operations allocated at run time. The values of resource variables are not in it: the interpreter does not show them.
    """
    nodes = operation_nodes(model.interpreter)
    return activations_bytes(model.interpreter, nodes, [info.index for info in model.inputs.values()])
