"""Reads a first batch ahead of training and puts it back, for data that cannot be read from the start again."""

import keras
import tensorflow as tf

from tfdistill.distill.objective.batch import BatchWithTargets
from tfdistill.graph.datasets import function_operations, source_datasets

# Operations of a dataset's functions whose next result depends on what was read before.
_READ_ONCE = ("GeneratorDataset", "PyFunc", "EagerPyFunc", "IteratorGetNext", "IteratorGetNextSync", "IteratorGetNextAsOptional")


def reads_once(dataset):
    """Tells whether a second pass over a `tf.data.Dataset` may take elements away from the first.

    True if it calls Python, or reads a queue or an iterator. False for data that is joined with a cache of soft targets, as a cache belongs
    to data that can be read again.
    """
    operations = set()
    queue = [dataset]
    while queue:
        stage = queue.pop()
        if any(isinstance(part, BatchWithTargets) for part in _parts(stage.element_spec)):
            return False
        queue += source_datasets(stage)
        operations |= function_operations(stage)
    return any(op in _READ_ONCE or "Dequeue" in op for op in operations)


def _parts(spec):
    """The inputs, labels and weights in an element of a dataset, or the element itself where it is no tuple."""
    return spec if type(spec) is tuple else (spec,)


def read_ahead(dataset):
    """Takes the first element of a `tf.data.Dataset`, once.

    Args:
        dataset: A dataset for which `reads_once` holds.

    Returns:
        The element, or None where there is none; and a dataset whose first pass gives that element and then the rest of the same pass.
        Every later pass is one over `dataset` itself.
    """
    rest = iter(dataset)
    first = next(rest, None)
    if first is None:
        return None, dataset
    passes = tf.Variable(0, dtype=tf.int64, trainable=False)

    def one_pass(_):
        # Runs once each time that the dataset is iterated.
        again = tf.greater(passes.assign_add(1), 1)
        count = tf.where(again, tf.constant(0, tf.int64), tf.constant(-1, tf.int64))
        opened = tf.data.Dataset.counter().take(count).map(lambda _: rest.get_next_as_optional(), num_parallel_calls=1)
        opened = opened.take_while(lambda element: element.has_value()).map(lambda element: element.get_value())
        head = tf.data.Dataset.from_tensors(first).take(count)
        return head.concatenate(opened).concatenate(dataset.take(-1 - count))

    whole = tf.data.Dataset.from_tensors(0).flat_map(tf.autograph.experimental.do_not_convert(one_pass)).prefetch(tf.data.AUTOTUNE)
    size = dataset.cardinality()
    return first, whole if size == tf.data.UNKNOWN_CARDINALITY else whole.apply(tf.data.experimental.assert_cardinality(size))


class FirstBatchKept(keras.utils.PyDataset):
    """A PyDataset whose first batch was read already: the first epoch gets that batch, and does not read it again.

    Args:
        dataset: A `keras.utils.PyDataset`.
        first: `dataset[0]`.
    """

    def __init__(self, dataset, first):
        super().__init__(workers=dataset.workers, use_multiprocessing=dataset.use_multiprocessing, max_queue_size=dataset.max_queue_size)
        self._dataset = dataset
        self._first = [first]

    @property
    def num_batches(self):
        return self._dataset.num_batches

    def __len__(self):
        return len(self._dataset)

    def __getitem__(self, index):
        if index == 0 and self._first:
            return self._first.pop()
        return self._dataset[index]

    def on_epoch_begin(self):
        self._dataset.on_epoch_begin()

    def on_epoch_end(self):
        self._first.clear()
        self._dataset.on_epoch_end()
