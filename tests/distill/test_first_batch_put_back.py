"""The look at the first batch takes nothing away: every feed trains on all of its batches, in its order, in every epoch."""

import itertools
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from small import data, mlp

from tfdistill import Distiller
from tfdistill.distill.chains.mutual import mutual
from tfdistill.distill.chains.settings import ChainSettings
from tfdistill.distill.objective import first_batch, one_shot
from tfdistill.losses import SoftTargets

CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
SIGNATURE = (tf.TensorSpec((None, 8), tf.float32), tf.TensorSpec((None,), tf.int32))
STEPS, ROWS = 5, 4


def batches(epoch=0):
    """Batches with a number of their own: the labels hold the batch's number in the last bits of x."""
    x, y = data(STEPS * ROWS)
    x[:, 0] = np.repeat(np.arange(STEPS), ROWS) + 100 * epoch
    for i in range(STEPS):
        yield x[i * ROWS : (i + 1) * ROWS], y[i * ROWS : (i + 1) * ROWS]


def dataset_of(source, **kwargs):
    return tf.data.Dataset.from_generator(lambda: source, output_signature=SIGNATURE, **kwargs)


class Stream(keras.utils.PyDataset):
    """Gives the next batch whatever the index: what is read is gone."""

    def __init__(self, endless=False, **kwargs):
        super().__init__(**kwargs)
        self.endless, self.reads = endless, 0
        self.rest = itertools.chain.from_iterable(batches(epoch) for epoch in range(9))

    @property
    def num_batches(self):
        return None if self.endless else STEPS

    def __getitem__(self, index):
        self.reads += 1
        return next(self.rest)


class Student(keras.Model):
    """Writes down the first input of each batch that it is trained on."""

    def __init__(self, seen):
        super().__init__(name="student")
        self.head = keras.layers.Dense(5)
        self.note = seen.append

    def call(self, x, training=None):
        if training:
            self.note(float(x[0, 0]))
        return self.head(x)


def trained_on(x, distil=True, **arguments):
    """What a student is trained on: by a Distiller, or by plain Keras."""
    seen = []
    student = Student(seen)
    student(np.zeros((1, 8), "float32"))
    model = Distiller(mlp(4, name="teacher"), student, SoftTargets(2.0)) if distil else student
    model.compile(keras.optimizers.SGD(0.01), loss=CROSS_ENTROPY, run_eagerly=True)
    with warnings.catch_warnings():
        # Keras says it at the end of all data of unknown size.
        warnings.filterwarnings("ignore", "Your input ran out of data")
        model.fit(x, verbose=0, shuffle=False, **arguments)
    return seen


def python_map(x, y):
    return tf.numpy_function(lambda v: v, [x], tf.float32), y


def with_shape(x, y):
    return tf.ensure_shape(x, (None, 8)), y


def queue_of():
    queue = tf.queue.FIFOQueue(10, [tf.float32, tf.int32], shapes=[(ROWS, 8), (ROWS,)])
    for batch in batches():
        queue.enqueue(batch)
    queue.close()
    return queue


# Name -> (function that makes x, further arguments of fit). Each can be read once only.
FEEDS = {
    "generator": (batches, {}),
    "iterator": (lambda: iter(list(batches())), {}),
    "dataset of a generator": (lambda: dataset_of(batches()), {}),
    "dataset of a generator, prefetched": (lambda: dataset_of(batches()).prefetch(3), {}),
    "dataset of a generator, mapped": (lambda: dataset_of(batches()).map(lambda x, y: (x * 1.0, y)), {}),
    "dataset of a generator, one function of Python more": (lambda: dataset_of(batches()).map(python_map).map(with_shape), {}),
    "zipped with a pure one": (lambda: tf.data.Dataset.zip(dataset_of(batches()), tf.data.Dataset.range(STEPS)).map(lambda a, b: a), {}),
    "iterator of a dataset": (lambda: iter(dataset_of(batches())), {}),
    "dataset with a known size": (lambda: dataset_of(batches()).apply(tf.data.experimental.assert_cardinality(STEPS)), {}),
    "interleaved": (lambda: tf.data.Dataset.range(1).interleave(lambda _: dataset_of(batches())), {}),
    "generator with steps": (batches, dict(steps_per_epoch=STEPS)),
    "dataset of a generator with steps": (lambda: dataset_of(batches()), dict(steps_per_epoch=STEPS)),
}


@pytest.mark.parametrize("feed", FEEDS)
def test_all_batches_are_trained_on(feed):
    make, arguments = FEEDS[feed]
    assert trained_on(make(), **arguments) == list(range(STEPS))


STREAMS = {
    "of known size": {},
    "endless": dict(endless=True),
    "in a thread": dict(workers=1, max_queue_size=1),
}


@pytest.mark.parametrize("kind", STREAMS)
def test_a_pydataset_that_is_a_stream_trains_as_in_plain_keras(kind):
    # Keras itself reads two batches of a PyDataset for their shapes.
    arguments = dict(epochs=2, steps_per_epoch=STEPS) if kind == "endless" else dict(epochs=2)
    plain, ours = (trained_on(Stream(**STREAMS[kind]), distil, **arguments) for distil in (False, True))
    assert ours == plain
    assert len(ours) == 2 * STEPS


@pytest.mark.parametrize("buffer", [1, 3, 100])
def test_a_shuffled_generator_trains_on_all(buffer):
    assert sorted(trained_on(dataset_of(batches()).shuffle(buffer))) == list(range(STEPS))


def test_a_queue_keeps_its_first_element():
    queue = queue_of()
    dataset = tf.data.Dataset.range(STEPS).map(lambda _: queue.dequeue())
    assert one_shot.reads_once(dataset)
    assert trained_on(dataset) == list(range(STEPS))


class Epochs:
    """A source that begins anew each time it is opened, with other data: what plain Keras sees in epoch n has n in it."""

    def __init__(self):
        self.opened = -1

    def __call__(self):
        self.opened += 1
        return batches(self.opened)


def test_epochs_are_those_of_plain_keras():
    make = tf.data.Dataset.from_generator
    plain, ours = (trained_on(make(Epochs(), output_signature=SIGNATURE), distil, epochs=3) for distil in (False, True))
    assert ours == plain == [100 * epoch + i for epoch in range(3) for i in range(STEPS)]


def test_steps_that_cross_epochs_go_on_where_they_were():
    assert trained_on(dataset_of(batches()), epochs=2, steps_per_epoch=3) == list(range(STEPS))


def test_validation_data_that_can_be_read_once_is_not_read_ahead():
    read = []

    def validation():
        for batch in batches():
            read.append(len(read))
            yield batch

    x, y = data(8)
    assert trained_on(x, y=y, validation_data=validation(), validation_steps=STEPS)
    assert len(read) == STEPS


def test_mutual_learning_puts_it_back_too():
    read = []

    def source():
        for batch in batches():
            read.append(1)
            yield batch

    settings = ChainSettings(losses=SoftTargets(2.0), loss=CROSS_ENTROPY, compile=dict(run_eagerly=True), fit=dict(steps_per_epoch=STEPS))
    record = mutual([mlp(4, name="a"), mlp(4, name="b")], settings, dataset_of(source()), validation_data=data(8))
    assert len(read) == STEPS
    assert record.generations


PURE = {
    "slices": lambda: tf.data.Dataset.from_tensor_slices(data(8)).batch(4),
    "shuffled, repeated": lambda: tf.data.Dataset.from_tensor_slices(data(8)).shuffle(8).repeat().batch(4).prefetch(1),
    "random augmentation": lambda: tf.data.Dataset.from_tensor_slices(data(8)).map(lambda x, y: (x + tf.random.normal((8,)), y)).batch(4),
}


@pytest.mark.parametrize("kind", PURE)
def test_data_that_can_be_read_again_is_left_as_it_is(kind):
    dataset = PURE[kind]()
    assert not one_shot.reads_once(dataset)
    given, batch = first_batch.peek(dataset)
    assert given is dataset
    assert batch[0].shape[0] == 4


def test_size_and_structure_stay():
    dataset = dataset_of(batches()).apply(tf.data.experimental.assert_cardinality(STEPS))
    given, _ = first_batch.peek(dataset)
    assert given.element_spec == dataset.element_spec
    assert given.cardinality() == STEPS
    endless = dataset_of(batches()).repeat()
    assert first_batch.peek(endless)[0].cardinality() == endless.cardinality()
