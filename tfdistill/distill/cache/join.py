"""Joins data with the teacher outputs in a cache: both are read side by side and shuffled together."""

import dataclasses
import math

import keras
import numpy as np
import tensorflow as tf

from tfdistill.distill.cache import augmentation, sources
from tfdistill.distill.cache import position as cache_position
from tfdistill.distill.cache.manifest import Manifest
from tfdistill.distill.objective.batch import BatchWithTargets
from tfdistill.errors import ConfigurationError, DataError
from tfdistill.utils import validate
from tfdistill.utils.arrays import rows_of

# Teacher outputs that are shuffled with one another: the shards in this many bytes are read at once.
POOL_BYTES = 16 << 20
# Inputs of a tf.data.Dataset that are shuffled with one another, unless the caller gives a number of elements.
STREAM_POOL_BYTES, STREAM_POOL_ELEMENTS = 64 << 20, 8192


@dataclasses.dataclass(frozen=True)
class Order:
    """The batches and the order of a joined data set.

    Attributes:
        batch_size: Elements in a batch, or None for the data's own (32 for arrays).
        shuffle: True, False, or the number of elements of a `tf.data.Dataset` that are shuffled with one another.
        seed: Whole number that determines the order of every epoch. None draws one (from Python's generator, which
            `keras.utils.set_random_seed` sets).

    Raises:
        ConfigurationError: if a value is out of its range.
    """

    batch_size: int | None = None
    shuffle: bool | int = True
    seed: int | None = None

    def __post_init__(self):
        size, shuffle = self.batch_size, self.shuffle
        if size is not None:
            validate.whole_number("batch_size", size)
        if not isinstance(shuffle, bool) and not validate.is_whole_number(shuffle, 2):
            raise ConfigurationError(f"shuffle is {shuffle!r}.", "True, False, or a number of elements above 1")
        if self.seed is None:
            object.__setattr__(self, "seed", int(keras.random.SeedGenerator().state.numpy()[0]))
        validate.whole_number("seed", self.seed, at_least=0, at_most=2**63 - 1)


@dataclasses.dataclass(frozen=True)
class Joining:
    """Joins one cache with data.

    Attributes:
        directory: Folder of the cache.
        manifest: `Manifest`.
        order: `Order`.
        augment: The function that made the views, or None.
    """

    directory: object
    manifest: Manifest
    order: Order
    augment: object

    @property
    def layout(self):
        return self.manifest.settings.layout

    @property
    def paths(self):
        return [str(self.directory / shard.file) for shard in self.manifest.shards]

    def join(self, source):
        """Joins the cache with a source.

        Returns:
            A `tf.data.Dataset`, or for a PyDataset a `keras.utils.PyDataset`, of `(BatchWithTargets,)`, `(BatchWithTargets, y)` or
            `(BatchWithTargets, y, sample_weight)`.
        """
        if isinstance(source, sources.Arrays):
            return self._arrays(source)
        if isinstance(source, sources.Stream):
            return self._stream(source)
        if self.order.batch_size is not None or self.order.shuffle is not True:
            raise ConfigurationError(
                "A PyDataset has batches of its own, and fit(shuffle=...) decides whether they are shuffled.",
                "neither batch_size nor shuffle",
            )
        return JoinedPyDataset(source, self)

    def _arrays(self, source):
        size = self.order.batch_size or 32
        data = tuple(keras.tree.map_structure(_as_tensor, part) for part in (source.x, source.y, source.sample_weight) if part is not None)
        shards = self.manifest.shards
        firsts = np.cumsum([0, *(shard.elements for shard in shards)])
        starts, ends = tf.constant(firsts[:-1], tf.int64), tf.constant(firsts[1:], tf.int64)
        paths = tf.constant(self.paths)
        readers = max(1, POOL_BYTES // (self.manifest.settings.shard_elements * self.layout.row_bytes))

        def pools(seed):
            numbers = tf.range(len(shards))
            if self.order.shuffle:
                numbers = tf.random.experimental.stateless_shuffle(numbers, seed)
            groups = tf.data.Dataset.from_tensor_slices(numbers).batch(readers).enumerate(1)
            return groups.map(lambda number, group: read(group, seed + number))

        def read(group, seed):
            records = tf.data.TFRecordDataset(tf.gather(paths, group)).batch(self.manifest.elements).get_single_element()
            elements = tf.ragged.range(tf.gather(starts, group), tf.gather(ends, group)).values
            return self._shuffled((elements, self.layout.from_records(records)), seed)

        def batch(numbered, data):
            elements, rows, views = numbered
            return self._with_targets(tf.nest.map_structure(lambda a: tf.gather(a, elements), data), elements, rows, views)

        position = cache_position.Position()
        joined = self._seeds(position).flat_map(pools).prefetch(1).rebatch(size)
        joined = tf.data.Dataset.zip(joined, tf.data.Dataset.from_tensors(data).repeat()).map(batch, num_parallel_calls=tf.data.AUTOTUNE)
        # As Keras does for arrays: serializing the graph for its optimization would copy them.
        options = tf.data.Options()
        options.experimental_optimization.apply_default_optimizations = False
        options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
        return cache_position.register(self._of_known_length(joined, size).with_options(options), position)

    def _stream(self, source):
        size = self.order.batch_size or rows_of(next(source.blocks_as_they_come()))
        pool = self._stream_pool(source, size)
        stored = tf.data.TFRecordDataset(self.paths).map(lambda record: self.layout.from_records(record[None])).rebatch(pool)

        def pools(seed):
            pairs = tf.data.Dataset.zip(source.dataset.map(_as_tuple).rebatch(pool), stored).enumerate()
            return pairs.map(lambda number, pair: shuffled(number, *pair, seed + number + 1))

        def shuffled(number, data, rows, seed):
            count = tf.shape(tf.nest.flatten(data)[0], out_type=tf.int64)[0]
            same = tf.debugging.Assert(
                tf.equal(count, tf.shape(rows, out_type=tf.int64)[0]),
                ["The dataset has another number of elements than the cache; from its element", number * pool, "on, found", count],
            )
            with tf.control_dependencies([same] if same is not None else []):
                elements = number * pool + tf.range(count)
            return (*self._shuffled((elements, rows, data), seed),)

        def batch(elements, rows, data, views):
            return self._with_targets(data, elements, rows, views)

        position = cache_position.Position()
        joined = self._seeds(position).flat_map(pools)
        if pool != size:
            joined = joined.prefetch(1).rebatch(size)
        joined = self._of_known_length(joined.map(batch, num_parallel_calls=tf.data.AUTOTUNE), size)
        return cache_position.register(joined, position)

    def _stream_pool(self, source, size):
        if self.order.shuffle is False:
            return size
        if self.order.shuffle is not True:
            return max(size, self.order.shuffle)
        specs = tf.nest.flatten(source.dataset.element_spec)
        per_element = sum(s.dtype.size * math.prod(d or 1 for d in s.shape[1:]) for s in specs if s.shape.rank is not None and s.dtype.size)
        return max(size, min(STREAM_POOL_ELEMENTS, STREAM_POOL_BYTES // max(1, per_element)))

    def _seeds(self, position):
        """A dataset of one seed, int64 of shape (2,), which follows from the order's seed and from the epoch that the pass belongs to."""

        # tf.data's own random numbers would depend on the process's global seed as well.
        def numbers():
            yield (np.random.SeedSequence([self.order.seed, position.next_pass()]).generate_state(2, "uint64") >> 2).astype("int64")

        return tf.data.Dataset.from_generator(numbers, output_signature=tf.TensorSpec((2,), tf.int64))

    def _shuffled(self, columns, seed):
        """Applies one permutation to columns of equal length, if the order is shuffled, and adds the view that is drawn for each row."""
        elements = columns[0]
        count = tf.shape(elements)[0]
        if self.order.shuffle:
            places = tf.random.experimental.stateless_shuffle(tf.range(count), seed)
            columns = tf.nest.map_structure(lambda c: tf.gather(c, places), columns)
        views = tf.zeros_like(elements)
        if self.layout.views > 1:
            views = tf.random.stateless_uniform([count], seed + 1, maxval=self.layout.views, dtype=tf.int64)
        return (*columns, views)

    def _with_targets(self, data, elements, rows, views):
        x, *labels = data
        if self.augment is not None:
            x = augmentation.on_batches(self.augment)(x, augmentation.element_seeds(elements, views))
        return (BatchWithTargets(x, self.layout.unpack(rows, views)), *labels)

    def _of_known_length(self, dataset, size):
        length = -(-self.manifest.elements // size)
        return dataset.apply(tf.data.experimental.assert_cardinality(length)).prefetch(tf.data.AUTOTUNE)


class JoinedPyDataset(keras.utils.PyDataset):
    """A PyDataset whose batches come with the teacher's outputs.

    Args:
        source: `sources.Indexed`.
        joining: `Joining`.

    Attributes:
        position: `Position`: the epoch that the views are drawn for.
    """

    # A cache requires data that gives the same batch for an index every time, so a batch can be read ahead of training.
    rereadable = True

    def __init__(self, source, joining):
        inner = source.dataset
        super().__init__(workers=inner.workers, use_multiprocessing=inner.use_multiprocessing, max_queue_size=inner.max_queue_size)
        self._source, self._joining = source, joining
        self.position = cache_position.Position()
        self._augmented = augmentation.on_batches(joining.augment) if joining.augment else None

    @property
    def num_batches(self):
        return self._source.batches

    def __getitem__(self, index):
        x, *labels = _as_tuple(*_packed(self._source.dataset[index]))
        first, layout = index * self._source.batch_size, self._joining.layout
        count = rows_of(x)
        if first + count > self._joining.manifest.elements:
            raise DataError(
                f"Batch {index} of the {type(self._source.dataset).__name__} reaches beyond the {first} elements before it and the cache."
            )
        views = np.random.default_rng([self._joining.order.seed, self.position.current, index]).integers(layout.views, size=count)
        if self._augmented:
            x = self._augmented(x, augmentation.element_seeds(tf.range(first, first + count, dtype=tf.int64), views))
            x = keras.tree.map_structure(lambda t: t.numpy(), x)
        return (BatchWithTargets(x, layout.unpack_arrays(self._rows(first, count), views)), *labels)

    def _rows(self, first, count):
        settings, parts = self._joining.manifest.settings, []
        while count:
            shard, row = divmod(first, settings.shard_elements)
            here = min(count, settings.shard_elements - row)
            parts.append(settings.layout.read_rows(self._joining.paths[shard], row, here, settings.block))
            first, count = first + here, count - here
        return np.concatenate(parts)

    def on_epoch_begin(self):
        self._source.dataset.on_epoch_begin()

    def on_epoch_end(self):
        self._source.dataset.on_epoch_end()
        self.position.finish_pass()


def without_targets(data):
    """Returns the data that a joined data set was made of, for what needs no teacher; other data as it is."""
    if isinstance(data, JoinedPyDataset):
        return data._source.dataset
    if isinstance(data, tf.data.Dataset) and isinstance(data.element_spec, tuple) and isinstance(data.element_spec[0], BatchWithTargets):
        return data.map(lambda batch, *labels: (batch.inputs, *labels))
    return data


def _packed(element):
    return element if isinstance(element, tuple) else (element,)


def _as_tuple(*element):
    """An element as `(x,)`, `(x, y)` or `(x, y, sample_weight)`."""
    return tuple(part for part in keras.utils.unpack_x_y_sample_weight(element) if part is not None)


def _as_tensor(array):
    # As Keras does before training.
    return tf.convert_to_tensor(array.astype(keras.config.floatx()) if array.dtype.kind == "f" else array)
