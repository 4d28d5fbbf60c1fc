"""How a `tf.data.Dataset` is made, as TensorFlow keeps it: the private parts of a dataset are read here."""


def source_datasets(dataset):
    """Lists the datasets that a `tf.data.Dataset` is directly derived from.

    Reads `Dataset._inputs`, which TensorFlow defines for every kind of dataset. If TensorFlow renames it, this fails with an AttributeError
    at the first `fit` on a dataset.
    """
    return list(dataset._inputs())


def function_operations(dataset):
    """Lists the types of the operations in the functions that a `tf.data.Dataset` itself runs, as in `map` or `filter`.

    Reads `Dataset._functions`, in which TensorFlow keeps the traced functions. If TensorFlow renames it, this fails with an AttributeError
    at the first `fit` on a dataset.

    Returns:
        Set of names such as "PyFunc", inner functions included. Functions of the datasets that this one is derived from are not included.
    """
    operations = set()
    for function in dataset._functions():
        graph = function.function.graph.as_graph_def()
        operations |= {node.op for node in graph.node}
        operations |= {node.op for inner in graph.library.function for node in inner.node_def}
    return operations
