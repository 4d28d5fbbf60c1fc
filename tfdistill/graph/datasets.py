"""How TensorFlow keeps a `tf.data.Dataset`, and how it reads records: its private parts are read here."""

from tensorflow.python.lib.io.tf_record import tf_record_random_reader


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


def record_reader(path):
    """Opens a TFRecord file for reading records at given positions.

    Calls `tensorflow.python.lib.io.tf_record.tf_record_random_reader`, a file reader without tf.data, which worker processes may use. If
    TensorFlow moves it, importing this module fails.

    Args:
        path: Path of the file, as bytes.

    Returns:
        An object whose `read(offset)` returns the record at a byte offset, and the offset of the next one.
    """
    return tf_record_random_reader(path)
