"""A traced function with its variables as constants."""

# Beyond that, the graph would come near to the 2 GB that it may have.
_MOST_BYTES = 500_000_000


def frozen(concrete):
    """Returns a concrete function that holds the values of its variables as constants, which are saved and converted several times as fast.

    Some are returned as they are: a function that holds others, as the converter knows an LSTM by its function, which would be written out; one that assigns
    to a variable; and one with many weights.
    """
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    graph, definition = concrete.graph, concrete.graph.as_graph_def()
    assigns = any(node.op.startswith("Assign") for node in definition.node)
    if assigns or definition.library.function or sum(v.shape.num_elements() * v.dtype.size for v in graph.variables) > _MOST_BYTES:
        return concrete
    return convert_variables_to_constants_v2(concrete, lower_control_flow=False)
