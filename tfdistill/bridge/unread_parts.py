"""Takes the parts of a graph's splits that nothing reads away.

The converter gives all results of a split one range, but finds it for a result that nothing reads only by chance, with the order in which it looks at the
operations: the same model became integers in one process and kept a split of floats in the next.
"""

import collections

# Operations of TensorFlow with a result for each part -> the places of the value and of the axis among their inputs; the axis of the last is an attribute.
_PARTS = {"Split": (1, 0), "SplitV": (0, 2), "Unpack": (0, None)}


def without_unread_parts(definition, graph, outputs):
    """Replaces splits some of whose parts nothing reads by a slice for each part that is read.

    Args:
        definition: `GraphDef` without variables and functions, which is changed.
        graph: The traced graph that it was made of, whose tensors have shapes.
        outputs: Names of the tensors that are the graph's results; their operations stay.
    """
    import tensorflow as tf

    nodes = {node.name: node for node in definition.node}
    reads = collections.defaultdict(set)
    for text in [text for node in definition.node for text in node.input] + list(outputs):
        name, _, part = text.partition(":")
        reads[name].add(int(part or 0))
    kept = {text.partition(":")[0] for text in outputs}
    moved = {}
    for node in [node for node in definition.node if node.op in _PARTS and node.name not in kept]:
        parts = _parts(node, nodes, graph)
        if parts is None or not reads[node.name] or len(reads[node.name]) == len(parts):
            continue
        value = node.input[_PARTS[node.op][0]]
        for part in sorted(reads[node.name]):
            name = f"{node.name}/part_{part}"
            begin, size, axis = parts[part]
            _constant(definition, f"{name}/begin", tf.make_tensor_proto(begin, tf.int32))
            _constant(definition, f"{name}/size", tf.make_tensor_proto(size, tf.int32))
            made = definition.node.add(name=name, op="Slice", input=[value, f"{name}/begin", f"{name}/size"])
            made.attr["T"].CopyFrom(node.attr["T"])
            made.attr["Index"].type = tf.int32.as_datatype_enum
            if node.op == "Unpack":
                squeezed = definition.node.add(name=f"{name}/squeezed", op="Squeeze", input=[name])
                squeezed.attr["T"].CopyFrom(node.attr["T"])
                squeezed.attr["squeeze_dims"].list.i.append(axis)
                name = squeezed.name
            moved[node.name, part] = name
    gone = {name for name, _ in moved}
    for node in definition.node:
        for place, text in enumerate(node.input):
            name, _, part = text.partition(":")
            if (name, int(part or 0)) in moved:
                node.input[place] = moved[name, int(part or 0)]
    left = [node for node in definition.node if node.name not in gone]
    if gone:
        del definition.node[:]
        definition.node.extend(left)


def _parts(node, nodes, graph):
    """Lists (begin, size, axis) of each part; None where they are not known beforehand."""
    import tensorflow as tf

    place, of_axis = _PARTS[node.op]
    name, _, number = node.input[place].partition(":")
    try:
        shape = graph.get_tensor_by_name(f"{name}:{number or 0}").shape
    except (KeyError, ValueError):
        return None  # made by what was put in place of a variable, or of another split
    if shape.rank is None:
        return None
    results = graph.get_operation_by_name(node.name).outputs
    if of_axis is None:
        axis, sizes = node.attr["axis"].i, [1] * len(results)
    else:
        constant = nodes.get(node.input[of_axis])
        if constant is None or constant.op != "Const":
            return None
        axis = int(tf.make_ndarray(constant.attr["value"].tensor))
        sizes = [None if result.shape.rank is None else result.shape[axis] for result in results]
    if None in sizes:
        return None
    axis %= shape.rank
    found, first = [], 0
    for size in sizes:
        begin, whole = [0] * shape.rank, [-1] * shape.rank
        begin[axis], whole[axis] = first, size
        found.append((begin, whole, axis))
        first += size
    return found


def _constant(definition, name, tensor):
    made = definition.node.add(name=name, op="Const")
    made.attr["dtype"].type = tensor.dtype
    made.attr["value"].tensor.CopyFrom(tensor)
