"""The operations of TensorFlow's graphs."""


def needed_operations(graph, outputs):
    """Lists the operations of a graph that some tensors of it need, in the order in which they can be computed.

    Args:
        graph: `tf.Graph`.
        outputs: The tensors.
    """
    wanted, stack = set(), [tensor.op for tensor in outputs]
    while stack:
        op = stack.pop()
        if op not in wanted:
            wanted.add(op)
            stack.extend(tensor.op for tensor in op.inputs)
    return [op for op in graph.get_operations() if op in wanted]
