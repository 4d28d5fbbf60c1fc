"""Reads the data that a teacher runs on, in the order that numbers its elements.

| data | elements are numbered | requirements |
|---|---|---|
| arrays | along their first axis | - |
| `tf.data.Dataset` of batches | as they come | the same order every time: shuffle after joining, not before |
| `keras.utils.PyDataset` | batch after batch by index | batches of one size (the last may be smaller) that do not change from epoch to epoch |

Each is `x`, `(x, y)` or `(x, y, sample_weight)`, as for `keras.Model.fit`. A generator cannot be read twice, and is refused.
"""

import math

import keras
import numpy as np
import tensorflow as tf

from tfdistill.errors import ConfigurationError, DataError
from tfdistill.utils.arrays import inputs_of, rechunked, rows_of, slices
from tfdistill.utils.data import DATASET, PYDATASET, are_arrays, form_of, number_of_elements


def as_source(dataset):
    """Makes a source of a data set.

    Args:
        dataset: One of the kinds in the table above.

    Returns:
        An object with `count()`, and `blocks(size, first=0)`: an iterator over inputs in batches of `size` elements (the last may be
        smaller), from block number `first` on.

    Raises:
        ConfigurationError: for another kind of data.
        DataError: if it is empty, endless, or its arrays have different lengths.
    """
    if isinstance(dataset, (Arrays, Stream, Indexed)):
        return dataset
    if (form := form_of(dataset)) in (DATASET, PYDATASET):
        return Stream(dataset) if form == DATASET else Indexed(dataset)
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(tuple(dataset) if isinstance(dataset, tuple) else (dataset,))
    leaves = [a for a in keras.tree.flatten((x, y, sample_weight)) if a is not None]
    if leaves and are_arrays(leaves):
        return Arrays(x, y, sample_weight)
    raise ConfigurationError(
        f"The dataset is a {type(dataset).__name__}{'' if not leaves else f' of {type(leaves[0]).__name__}'}.",
        "arrays, as x, (x, y) or (x, y, sample_weight); a tf.data.Dataset of batches that always come in one order; or a keras.utils.PyDataset",
        "tf.data.Dataset.from_generator makes a dataset of a generator function",
    )


class Arrays:
    """Arrays in memory."""

    def __init__(self, x, y=None, sample_weight=None):
        self.x, self.y, self.sample_weight = keras.tree.map_structure(np.asarray, (x, y, sample_weight), none_is_leaf=False)
        lengths = {len(a) if a.ndim else 0 for a in keras.tree.flatten((self.x, self.y, self.sample_weight)) if a is not None}
        if len(lengths) != 1 or lengths == {0}:
            raise DataError(f"The arrays of the dataset have the lengths {sorted(lengths)}.", "one length above 0")
        self._count = lengths.pop()

    def count(self):
        return self._count

    def blocks(self, size, first=0):
        return slices(self.x, size, first)

    def samples(self, blocks):
        """Numbers of the blocks that are compared to recognize the data set: all, as reading them costs little."""
        return range(blocks)


class Indexed:
    """A `keras.utils.PyDataset`."""

    def __init__(self, dataset):
        self.dataset = dataset
        batches = number_of_elements(dataset)
        if batches in (0, math.inf):
            raise DataError(f"The {type(dataset).__name__} has {'endless' if batches else 'no'} batches.", "a number of batches above 0")
        self.batches = batches
        self.batch_size = rows_of(self.inputs(0))
        self._count = (batches - 1) * self.batch_size + rows_of(self.inputs(batches - 1))

    def inputs(self, index):
        return keras.tree.map_structure(np.asarray, inputs_of(self.dataset[index]))

    def count(self):
        return self._count

    def blocks(self, size, first=0):
        start = first * size
        return rechunked(self._batches_from(start), size)

    def _batches_from(self, start):
        index, skip = divmod(start, self.batch_size)
        for i in range(index, self.batches):
            inputs = self.inputs(i)
            if rows_of(inputs) != self.batch_size and i != self.batches - 1:
                raise DataError(
                    f"Batch {i} of the {type(self.dataset).__name__} has {rows_of(inputs)} elements, batch 0 has {self.batch_size}.",
                    "batches of one size; only the last may be smaller",
                )
            yield keras.tree.map_structure(lambda a, skip=skip: a[skip:], inputs) if skip else inputs
            skip = 0

    def samples(self, blocks):
        """Numbers of the blocks that are compared to recognize the data set: the first, two in between, and the last."""
        return sorted({round(i * (blocks - 1) / 3) for i in range(4)})


class Stream:
    """A `tf.data.Dataset` of batches."""

    def __init__(self, dataset):
        self.dataset = dataset
        self.batches = number_of_elements(dataset)
        if self.batches == math.inf:
            raise DataError("The tf.data.Dataset never ends.", "every element once", "take repeat() away; fit repeats it for every epoch")
        if self.batches == 0:
            raise DataError("The tf.data.Dataset is empty.", "at least one batch")
        self.inputs = dataset.map(lambda *element: inputs_of(element))

    def count(self):
        """Counts the elements in one pass over the data."""
        rows = self.inputs.map(lambda x: tf.shape(tf.nest.flatten(x)[0], out_type=tf.int64)[0])
        return int(rows.reduce(np.int64(0), lambda a, b: a + b))

    def blocks(self, size, first=0):
        return self.inputs.rebatch(size).skip(first).prefetch(2).as_numpy_iterator()

    def blocks_as_they_come(self):
        """Iterator over inputs in the data set's own batches."""
        return self.inputs.as_numpy_iterator()

    def samples(self, blocks):
        """Numbers of the blocks that are compared to recognize the data set: the first four, as reading later ones means reading all before."""
        # Where the number of batches is unknown, only reading all of them shows whether it changed.
        return range(min(blocks, 4)) if self.batches is not None else range(blocks)


def numbered_blocks(source, size, numbers, whole):
    """Yields (number, inputs) of blocks of a source.

    Args:
        source: From `as_source`.
        size: Number of elements in a block.
        numbers: Numbers of the blocks, in rising order.
        whole: Whether these are all blocks that are expected: then unexpected further ones are yielded, too.
    """
    if whole or isinstance(source, Stream):
        for number, inputs in enumerate(source.blocks(size)):
            if not whole and number >= len(numbers):
                return
            yield number, inputs
    else:
        for number in numbers:
            yield number, next(iter(source.blocks(size, number)))
