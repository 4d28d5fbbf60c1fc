"""What is read of a running `fit` and of Keras's random generator: a Keras that moves one of them fails here."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfdistill.graph import epochs


class Look(keras.callbacks.Callback):
    """Keeps what the functions return inside `fit`."""

    def on_train_begin(self, logs=None):
        self.list, self.iterator = epochs.calling_list(), epochs.running_iterator()
        self.shuffled = epochs.shuffled_without_seed(self.iterator)


@pytest.fixture
def unseeded(monkeypatch):
    """No global seed of TensorFlow while the test runs."""
    monkeypatch.setattr(epochs.context, "global_seed", lambda: None)


def fitted(x, look, **arguments):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(x, verbose=0, callbacks=[look], **arguments)
    return look


def arrays():
    return np.arange(16, dtype="float32").reshape(8, 2), np.zeros((8, 1), "float32")


def dataset():
    return tf.data.Dataset.from_tensor_slices(arrays()).batch(2)


def test_a_callback_finds_its_list_and_the_iterator():
    look = fitted(dataset(), Look(), shuffle=False)
    assert look in look.list.callbacks
    assert look.iterator.steps_per_execution == 1


def test_outside_of_fit_there_is_neither():
    assert epochs.calling_list() is None
    assert epochs.running_iterator() is None


@pytest.mark.parametrize(("make", "shuffle", "expected"), [(arrays, True, True), (arrays, False, False), (dataset, False, False)])
def test_arrays_shuffled_without_a_seed_are_found(unseeded, make, shuffle, expected):
    data = make()
    x, more = (data[0], dict(y=data[1])) if isinstance(data, tuple) else (data, {})
    assert fitted(x, Look(), shuffle=shuffle, **more).shuffled is expected


def test_a_seed_decides_the_order():
    keras.utils.set_random_seed(1)
    x, y = arrays()
    assert not fitted(x, Look(), y=y).shuffled


class Counting(keras.utils.PyDataset):
    """Counts the ends of its epochs."""

    ends = 0

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return arrays()

    def on_epoch_end(self):
        self.ends += 1


def test_replay_calls_the_hooks_of_a_pydataset():
    data = Counting()

    class Replay(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            before = data.ends
            epochs.replay(epochs.running_iterator(), 3)
            self.ends = data.ends - before

    assert fitted(data, Replay()).ends == 3


class Recorder(keras.Model):
    """Records the first number of each batch that it is trained on."""

    def __init__(self):
        super().__init__()
        self.built, self.seen = True, []

    def train_step(self, data):
        self.seen.append(float(data[0][0, 0]))
        return {"loss": tf.constant(0.0)}


@pytest.mark.parametrize("replayed", [0, 1, 2])
def test_replay_advances_a_shared_iterator(replayed):
    class Replay(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            epochs.replay(epochs.running_iterator(), replayed)

    model = Recorder()
    model.compile(run_eagerly=True)
    model.fit(dataset().repeat(), steps_per_epoch=3, shuffle=False, verbose=0, callbacks=[Replay()])
    assert model.seen == [4.0 * ((3 * replayed + step) % 4) for step in range(3)]


@pytest.mark.parametrize(("batches", "left"), [(1, [1, 2, 3, 4]), (3, [3, 4]), (5, []), (7, [])])
def test_skip_drops_batches(batches, left):
    iterator = iter(range(5))
    epochs.skip(iterator, batches)
    assert list(iterator) == left
    with pytest.raises(StopIteration):
        epochs.skip(iterator, 1)


def test_the_random_state_of_keras_is_restored():
    keras.utils.set_random_seed(5)
    keras.random.uniform((1,))  # makes the generator
    state = epochs.keras_random_state()
    drawn = [np.asarray(keras.random.uniform((3,))) for _ in range(2)]
    epochs.set_keras_random_state(None)
    epochs.set_keras_random_state(state)
    for expected in drawn:
        np.testing.assert_array_equal(keras.random.uniform((3,)), expected)
