"""What Model Explorer colors the operations of a .tflite file with."""

from tfdistill.report.graph_page import COLORS, MEANINGS, state_of


def explorer_data(inspection, target="xnnpack"):
    """Returns what its "node data" is: for the main graph, what becomes of each operation on a target, in the colors of `graph_page`.

    Model Explorer finds an operation by the name of the tensor that it writes.

    Args:
        inspection: `FileInspection`.
        target: Name of the target.

    Returns:
        Dict that JSON can hold.
    """
    in_islands = {index for island in inspection.float_islands if island.graph == 0 for index in island.operations}
    results = {}
    for operation in inspection.operations:
        if operation.graph == 0:
            state = state_of(operation, in_islands, target)
            results[operation.output] = {"value": MEANINGS[state], "bgColor": COLORS[state]}
    return {"main": {"name": f"{target} ({inspection.targets[target].runtime})", "results": results}}
