"""A joined dataset: its order and its views follow from (seed, epoch), and every row that it reads is compared with its checksum."""

import os
import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf
from small import data, pair

from tfdistill import Distiller
from tfdistill.distill.cache.build import soft_targets
from tfdistill.distill.cache.options import CacheOptions
from tfdistill.distill.cache.position import following_epochs, positions_of
from tfdistill.distill.cache.reader import SoftTargetCache
from tfdistill.errors import DataError
from tfdistill.losses import SoftTargets

N, BATCH = 96, 16


class Batches(keras.utils.PyDataset):
    """Batches of arrays."""

    def __init__(self, x, y, **kwargs):
        super().__init__(**kwargs)
        self.x, self.y = x, y

    def __len__(self):
        return N // BATCH

    def __getitem__(self, index):
        part = slice(index * BATCH, (index + 1) * BATCH)
        return self.x[part], self.y[part]


def stream(x, y):
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(BATCH)


def noisy(x, seed):
    return x + tf.random.stateless_normal(tf.shape(x), seed)


class Recorder(keras.Model):
    """Keeps what it is trained on: the inputs (which tell the order and the view) and the teacher's outputs."""

    def __init__(self):
        super().__init__()
        self.seen = []
        self.compile()
        self.built = True

    def train_step(self, batch):
        tf.py_function(lambda *arrays: self.seen.append([a.numpy() for a in arrays]), [batch[0].inputs, *batch[0].teacher_outputs], [])
        return {"loss": tf.constant(0.0)}


KINDS = {
    "arrays": lambda cache, x, y: cache.join((x, y), batch_size=BATCH, seed=5),
    "a tf.data.Dataset": lambda cache, x, y: cache.join(stream(x, y), seed=5),
    "prefetched": lambda cache, x, y: cache.join((x, y), batch_size=BATCH, seed=5).map(lambda *batch: batch).prefetch(2),
    "zipped": lambda cache, x, y: tf.data.Dataset.zip(cache.join((x, y), batch_size=BATCH, seed=5), tf.data.Dataset.range(9)).map(
        lambda batch, number: batch
    ),
    "a PyDataset": lambda cache, x, y: cache.join(Batches(x, y), seed=5),
    "a PyDataset with workers": lambda cache, x, y: cache.join(Batches(x, y, workers=2), seed=5),
}


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    keras.utils.set_random_seed(7)
    x, y = data(N)
    teacher, _ = pair()
    options = CacheOptions(batch_size=BATCH, shard_elements=32, dtype="float32", views=3, augment=noisy)
    return x, y, soft_targets(teacher, (x, y), tmp_path_factory.mktemp("position") / "cache", options=options)


def seen(joined, *epochs):
    """What is trained on in one `fit` for each pair of a first and a last epoch."""
    model = Recorder()
    for dataset, (first, last) in zip(joined, epochs, strict=True):
        with following_epochs(model, dataset, initial_epoch=first, epochs=last, verbose=0, shuffle=False) as (args, kwargs):
            model.fit(*args, **kwargs)
    return [np.concatenate(arrays) for arrays in zip(*model.seen, strict=True)]


def differs(one, other):
    return any((a != b).any() for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_an_epoch_comes_as_its_number_says(labelled, kind):
    x, y, cache = labelled
    join = lambda: KINDS[kind](cache, x, y)  # noqa: E731
    whole = seen([join()], (0, 3))
    assert not differs(whole, seen([join(), join()], (0, 1), (1, 3)))
    assert differs([a[:N] for a in whole], [a[N : 2 * N] for a in whole]), "epochs must differ from one another"


def fitted(cache, joined, *epochs):
    keras.utils.set_random_seed(3)
    _, student = pair()
    distiller = Distiller(cache, student, SoftTargets(4.0), student_loss_weight=0.0)
    distiller.compile("sgd")
    for dataset, (first, last) in zip(joined, epochs, strict=True):
        distiller.fit(dataset, initial_epoch=first, epochs=last, verbose=0, shuffle=False)
    return student.get_weights()


def test_a_distiller_follows_the_epochs(labelled):
    x, y, cache = labelled
    join = lambda: KINDS["arrays"](cache, x, y)  # noqa: E731
    assert not differs(fitted(cache, [join()], (0, 2)), fitted(cache, [join(), join()], (0, 1), (1, 2)))


def test_after_fit_passes_are_counted_again(labelled):
    x, y, cache = labelled
    joined = KINDS["arrays"](cache, x, y)
    passes = [np.concatenate([b[1] for b in joined.as_numpy_iterator()]) for _ in range(2)]
    assert (passes[0] != passes[1]).any()
    seen([joined], (0, 1))
    assert [p.epoch for p in positions_of(joined)] == [None]


def test_callbacks_are_kept_however_they_are_given(labelled):
    x, y, cache = labelled
    joined = KINDS["arrays"](cache, x, y)
    counted = []
    count = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: counted.append(epoch))
    model = Recorder()
    whole = keras.callbacks.CallbackList([count], add_history=True, model=model, epochs=1, steps=6, verbose=0)
    before = list(whole.callbacks)
    for callbacks in (None, count, [count], (count, [count]), whole):
        with following_epochs(model, joined, None, None, 1, 0, callbacks, shuffle=False) as (args, kwargs):
            model.fit(*args, **kwargs)
    assert len(counted) == 5
    assert whole.callbacks == before


def test_a_dataset_that_is_not_joined_has_no_position(labelled):
    x, y, cache = labelled
    for other in (x, None, stream(x, y), Batches(x, y), (x, y)):
        assert positions_of(other) == []
    joined = cache.join(Batches(x, y), seed=1)
    assert pickle.loads(pickle.dumps(joined.position)).current == 0, "worker processes are given a copy"


# Damage after the data was joined, and how it is said.
def flip(path, place):
    whole = bytearray(path.read_bytes())
    whole[place] ^= 16
    path.write_bytes(whole)


DAMAGE = {
    "a byte of a row": (lambda p: flip(p, 40), "record 0 .* does not have the checksum"),
    "a byte of the last row": (lambda p: flip(p, -5), "record 1 .* does not have the checksum"),
    "the checksum": (lambda p: flip(p, -2), "record 1 .* does not have the checksum"),
    "the length": (lambda p: flip(p, 3), "record 0 .* does not have the checksum"),
    "the checksum of the length": (lambda p: flip(p, 9), "record 0 .* does not have the checksum"),
    "a cut file": (lambda p: p.write_bytes(p.read_bytes()[:-3]), "ends before|damaged"),
    "half a file": (lambda p: p.write_bytes(p.read_bytes()[: p.stat().st_size // 2]), "ends before row"),
    "an empty file": (lambda p: p.write_bytes(b""), "ends before row"),
    "no file": (lambda p: p.unlink(), "is gone"),
}


@pytest.fixture
def damaged(tmp_path):
    x, y = data(N)
    teacher, _ = pair()
    return x, y, soft_targets(teacher, (x, y), tmp_path / "cache", options=CacheOptions(batch_size=BATCH, shard_elements=32))


@pytest.mark.parametrize("case", DAMAGE)
def test_rows_of_a_pydataset_are_checked_when_they_are_read(damaged, case):
    x, y, cache = damaged
    joined = cache.join(Batches(x, y))
    act, words = DAMAGE[case]
    act(cache.directory / "shard-00001.tfrecord")
    good = [joined[i] for i in (0, 1, 4, 5)]
    assert all(np.isfinite(b[0].teacher_outputs[0]).all() for b in good)
    with pytest.raises(DataError, match=words) as error:
        [joined[i] for i in (2, 3)]
    assert "shard-00001.tfrecord" in str(error.value)


@pytest.mark.parametrize("join", ["arrays", "a tf.data.Dataset", "a PyDataset"])
@pytest.mark.parametrize("case", DAMAGE)
def test_a_shard_that_changed_since_is_checked_again_by_join(damaged, case, join):
    x, y, cache = damaged
    KINDS[join](cache, x, y)
    DAMAGE[case][0](cache.directory / "shard-00001.tfrecord")
    with pytest.raises(DataError, match="shard-00001"):
        KINDS[join](cache, x, y)


def test_a_shard_that_was_replaced_within_its_time_stamp_is_checked_again(damaged):
    x, y, cache = damaged
    cache.join((x, y))
    path = cache.directory / "shard-00001.tfrecord"
    times = path.stat()
    flip(path, 40)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(DataError, match="is damaged"):
        cache.join((x, y))


def test_a_shard_is_compared_once_while_it_stays(damaged, monkeypatch):
    x, y, cache = damaged
    compared = []
    monkeypatch.setattr("tfdistill.distill.cache.manifest.sha256_of", lambda path: compared.append(path.name) or shas[path.name])
    shas = {shard.file: shard.sha256 for shard in cache.manifest.shards}
    fresh = SoftTargetCache(cache.directory)
    fresh.join((x, y))
    assert len(compared) == 3
    fresh.join((x, y))
    assert len(compared) == 3
    fresh.verify()
    assert len(compared) == 6
