"""The data that a teacher is asked about, read in the one order in which its elements are counted.

| data | elements are counted | and must |
|---|---|---|
| arrays | along their first axis | - |
| `tf.data.Dataset` of batches | as they come | come in the same order every time: shuffle after joining, not before |
| `keras.utils.PyDataset` | batch after batch by index | have batches of one size (the last may be smaller) that stay what they are from epoch to epoch |

Each is `x`, `(x, y)` or `(x, y, sample_weight)`, as for `keras.Model.fit`. A generator has no order that could be repeated, and is refused.
"""

import keras
import numpy as np
import tensorflow as tf

from tfdistill.errors import ConfigurationError, DataError


def as_source(dataset):
    """Makes a source of a data set.

    Args:
        dataset: One of the kinds in the table above.

    Returns:
        An object with `count()`, and `blocks(size, first=0)`: an iterator over inputs in batches of `size` elements (the last may be smaller), from block
        number `first` on.

    Raises:
        ConfigurationError: for another kind of data.
        DataError: if it is empty, endless, or its arrays have different lengths.
    """
    if isinstance(dataset, (Arrays, Stream, Indexed)):
        return dataset
    if isinstance(dataset, tf.data.Dataset):
        return Stream(dataset)
    if isinstance(dataset, keras.utils.PyDataset):
        return Indexed(dataset)
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(tuple(dataset) if isinstance(dataset, tuple) else (dataset,))
    leaves = [a for a in keras.tree.flatten((x, y, sample_weight)) if a is not None]
    if leaves and all(isinstance(a, (np.ndarray, tf.Tensor, tf.Variable)) for a in leaves):
        return Arrays(x, y, sample_weight)
    raise ConfigurationError(
        f"The dataset is a {type(dataset).__name__}{'' if not leaves else f' of {type(leaves[0]).__name__}'}.",
        "arrays, as x, (x, y) or (x, y, sample_weight); a tf.data.Dataset of batches that always come in one order; or a keras.utils.PyDataset",
        "tf.data.Dataset.from_generator makes a dataset of a generator function",
    )


class Arrays:
    """Arrays that are all there."""

    def __init__(self, x, y=None, sample_weight=None):
        self.x, self.y, self.sample_weight = keras.tree.map_structure(np.asarray, (x, y, sample_weight), none_is_leaf=False)
        lengths = {len(a) if a.ndim else 0 for a in keras.tree.flatten((self.x, self.y, self.sample_weight)) if a is not None}
        if len(lengths) != 1 or lengths == {0}:
            raise DataError(f"The arrays of the dataset have the lengths {sorted(lengths)}.", "one length above 0")
        self._count = lengths.pop()

    def count(self):
        return self._count

    def blocks(self, size, first=0):
        for start in range(first * size, self._count, size):
            yield keras.tree.map_structure(lambda a, start=start: a[start : start + size], self.x)

    def samples(self, blocks):
        """Numbers of the blocks by which the data set is recognized: all, as reading them costs little."""
        return range(blocks)


class Indexed:
    """A `keras.utils.PyDataset`."""

    def __init__(self, dataset):
        self.dataset = dataset
        batches = dataset.num_batches
        if not batches:
            raise DataError(
                f"The {type(dataset).__name__} has {'no' if batches == 0 else 'endless'} batches.", "a number of batches above 0"
            )
        self.batches = batches
        self.batch_size = rows_of(self.inputs(0))
        self._count = (batches - 1) * self.batch_size + rows_of(self.inputs(batches - 1))

    def inputs(self, index):
        return keras.tree.map_structure(np.asarray, keras.utils.unpack_x_y_sample_weight(self.dataset[index])[0])

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
        """Numbers of the blocks by which the data set is recognized: the first, some in between, and the last."""
        return sorted({round(i * (blocks - 1) / 3) for i in range(4)})


class Stream:
    """A `tf.data.Dataset` of batches."""

    def __init__(self, dataset):
        self.dataset = dataset
        self.cardinality = int(dataset.cardinality())
        if self.cardinality == tf.data.INFINITE_CARDINALITY:
            raise DataError("The tf.data.Dataset never ends.", "every element once", "take repeat() away; fit repeats it for every epoch")
        if self.cardinality == 0:
            raise DataError("The tf.data.Dataset is empty.", "at least one batch")
        self.inputs = dataset.map(_inputs_alone)

    def count(self):
        """Counts by reading everything once."""
        rows = self.inputs.map(lambda x: tf.shape(tf.nest.flatten(x)[0], out_type=tf.int64)[0])
        return int(rows.reduce(np.int64(0), lambda a, b: a + b))

    def blocks(self, size, first=0):
        return self.inputs.rebatch(size).skip(first).prefetch(2).as_numpy_iterator()

    def blocks_as_they_come(self):
        """Iterator over inputs in the data set's own batches."""
        return self.inputs.as_numpy_iterator()

    def samples(self, blocks):
        """Numbers of the blocks by which the data set is recognized: the first four; later ones are as far away as they are late."""
        # Without a known number of batches, only reading all of them tells whether it is as long as it was.
        return range(min(blocks, 4)) if self.cardinality >= 0 else range(blocks)


def _inputs_alone(*element):
    return keras.utils.unpack_x_y_sample_weight(element)[0]


def rows_of(structure):
    """Number of elements in a batch: the length of its first array."""
    return len(keras.tree.flatten(structure)[0])


def rechunked(batches, size):
    """Cuts batches of any sizes into batches of `size`; the last may be smaller."""
    held, rows = [], 0
    for batch in batches:
        held.append(batch)
        rows += rows_of(batch)
        while rows >= size:
            whole = held[0] if len(held) == 1 else keras.tree.map_structure(lambda *parts: np.concatenate(parts), *held)
            yield keras.tree.map_structure(lambda a: a[:size], whole)
            rows -= size
            held = [keras.tree.map_structure(lambda a: a[size:], whole)] if rows else []
    if rows:
        yield held[0] if len(held) == 1 else keras.tree.map_structure(lambda *parts: np.concatenate(parts), *held)
