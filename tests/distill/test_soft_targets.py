"""Training from stored outputs: equality with the live teacher, and every kind of data."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from small import data, mlp, pair, weights_of

from tfdistill.distill import Distiller
from tfdistill.distill.cache.build import plan_soft_targets, soft_targets
from tfdistill.distill.cache.options import CacheOptions
from tfdistill.distill.cache.reader import SoftTargetCache
from tfdistill.errors import ConfigurationError, DataError, ModelError
from tfdistill.losses import Hint, SoftTargets

N, BATCH = 150, 32


class Batches(keras.utils.PyDataset):
    """A PyDataset over arrays; `ends` counts the epochs."""

    def __init__(self, x, y, size=BATCH, **kwargs):
        super().__init__(**kwargs)
        self.x, self.y, self.size, self.ends = x, y, size, 0

    def __len__(self):
        return -(-len(self.x) // self.size)

    def __getitem__(self, index):
        part = slice(index * self.size, (index + 1) * self.size)
        return self.x[part], self.y[part]

    def on_epoch_end(self):
        self.ends += 1


def stream(x, y, size=BATCH):
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(size)


def unknown_length(x, y):
    return stream(x, y).filter(lambda a, b: True)


KINDS = {"arrays": lambda x, y: (x, y), "stream": stream, "unknown length": unknown_length, "PyDataset": Batches}


def trained(teacher, dataset, losses=None, epochs=2):
    keras.utils.set_random_seed(3)
    _, student = pair()
    distiller = Distiller(teacher, student, losses or SoftTargets(4.0), student_loss_weight=0.3)
    distiller.compile("adam", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    distiller.fit(dataset, epochs=epochs, verbose=0, shuffle=False)
    return distiller


def without_outputs(joined):
    return joined.map(lambda x, y: (x.inputs, y))


@pytest.fixture
def labelled(tmp_path):
    """A teacher, its data, and a function that stores its outputs."""
    x, y = data(N)
    teacher, _ = pair()

    def make(dataset=None, name="cache", **settings):
        return soft_targets(
            teacher, (x, y) if dataset is None else dataset, tmp_path / name, options=CacheOptions(**settings), log_fn=lambda text: None
        )

    return teacher, x, y, make


def test_training_equals_the_live_teacher_to_the_bit(labelled):
    teacher, x, y, make = labelled
    losses = [SoftTargets(4.0), Hint("hidden_0", "hidden_1")]
    cache = make(dtype="float32", batch_size=BATCH, shard_elements=BATCH, layers=["hidden_0"])
    joined = cache.join((x, y), batch_size=BATCH, shuffle=False)
    live, cached = (weights_of(trained(t, d, losses).student) for t, d in ((teacher, without_outputs(joined)), (cache, joined)))
    for a, b in zip(live, cached, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("float16", 1e-3), ("bfloat16", 8e-3)])
def test_training_shuffled_equals_the_live_teacher_within_rounding(labelled, dtype, tolerance):
    teacher, x, y, make = labelled
    cache = make(dtype=dtype)
    # Joined anew: a data set that is gone through again comes in another order, as every epoch does.
    live = weights_of(trained(teacher, without_outputs(cache.join((x, y), batch_size=BATCH, seed=4))).student)
    cached = weights_of(trained(cache, cache.join((x, y), batch_size=BATCH, seed=4)).student)
    for a, b in zip(live, cached, strict=True):
        np.testing.assert_allclose(a, b, atol=tolerance)


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("shard_elements", [1, 64, 1000])
@pytest.mark.parametrize("kind", KINDS)
def test_every_element_meets_its_own_outputs(labelled, kind, shuffle, shard_elements):
    teacher, x, y, make = labelled
    cache = make(KINDS[kind](x, y), dtype="float32", batch_size=16, shard_elements=shard_elements)
    expected = teacher.predict(x, verbose=0)
    if kind == "PyDataset":
        joined = cache.join(Batches(x, y))
        batches = [joined[i] for i in range(joined.num_batches)]
    else:
        batches = list(cache.join(KINDS[kind](x, y), batch_size=20, shuffle=shuffle).as_numpy_iterator())
        assert [len(labels) for _, labels in batches] == [20] * 7 + [10]
    inputs = np.concatenate([b[0].inputs for b in batches])
    rows = {row.tobytes(): i for i, row in enumerate(x)}
    order = [rows[row.tobytes()] for row in inputs]
    assert sorted(order) == list(range(N))
    if kind != "PyDataset":
        assert (order != list(range(N))) == shuffle
    np.testing.assert_allclose(np.concatenate([b[0].teacher_outputs[0] for b in batches]), expected[order], atol=1e-6)
    np.testing.assert_array_equal(np.concatenate([b[1] for b in batches]), y[order])


def order_of(joined):
    return np.concatenate([b[0].inputs[:, 0] for b in joined.as_numpy_iterator()])


@pytest.mark.parametrize("kind", ["arrays", "stream"])
def test_the_order_follows_from_the_seed_and_changes_with_the_epoch(labelled, kind):
    _, x, y, make = labelled
    cache = make(shard_elements=40, batch_size=20)
    first, second = (cache.join(KINDS[kind](x, y), seed=1) for _ in range(2))
    epoch = order_of(first)
    np.testing.assert_array_equal(epoch, order_of(second))
    assert (order_of(first) != epoch).any()
    assert (order_of(cache.join(KINDS[kind](x, y), seed=2)) != epoch).any()
    # Mixed across shards: the first batch is not of one shard alone.
    places = {value: i for i, value in enumerate(x[:, 0])}
    assert len({places[v] // 40 for v in epoch[:32]}) > 1


def test_a_pydataset_trains_and_hears_of_epochs(labelled):
    _, x, y, make = labelled
    batches = Batches(x, y)
    cache = make(batches)
    trained(cache, cache.join(batches))
    assert batches.ends >= 2


def test_outputs_have_the_structure_of_the_model(tmp_path):
    """Dict inputs, several outputs by name, sample weights."""
    rng = np.random.default_rng(0)
    x = {"a": rng.normal(size=(40, 4)).astype("float32"), "b": rng.normal(size=(40, 3)).astype("float32")}
    y = {"kind": rng.integers(3, size=40), "size": rng.normal(size=(40, 2)).astype("float32")}

    def net(name):
        inputs = {k: keras.Input(v.shape[1:], name=k) for k, v in x.items()}
        both = keras.layers.Concatenate()([inputs["a"], inputs["b"]])
        outputs = {"kind": keras.layers.Dense(3, name="kind")(both), "size": keras.layers.Dense(2, name="size")(both)}
        return keras.Model(inputs, outputs, name=name)

    teacher, student = net("teacher"), net("student")
    cache = soft_targets(teacher, (x, y, np.ones(40, "float32")), tmp_path, options=CacheOptions(dtype="float32"))
    distiller = Distiller(cache, student, {"kind": SoftTargets(2.0)})
    distiller.compile("adam", loss={"kind": keras.losses.SparseCategoricalCrossentropy(from_logits=True), "size": "mse"})
    joined = cache.join((x, y, np.ones(40, "float32")), batch_size=10, shuffle=False)
    distiller.fit(joined, verbose=0, shuffle=False)
    batch = next(joined.as_numpy_iterator())[0]
    expected = teacher.predict({k: v[:10] for k, v in x.items()}, verbose=0)
    outputs = cache(tf.nest.map_structure(tf.constant, batch))
    assert sorted(outputs) == ["kind", "size"]
    for name in outputs:
        np.testing.assert_allclose(outputs[name], expected[name], atol=1e-6)


def test_a_distiller_is_saved_with_its_cache(labelled, tmp_path):
    _, x, y, make = labelled
    cache = make()
    distiller = trained(cache, cache.join((x, y)))
    distiller.save(tmp_path / "d.keras")
    loaded = keras.models.load_model(tmp_path / "d.keras")
    assert loaded.teacher.directory == cache.directory
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), distiller.predict(x, verbose=0))
    loaded.fit(cache.join((x, y)), verbose=0, shuffle=False)
    assert distiller.evaluate(cache.join((x, y)), verbose=0)
    np.testing.assert_array_equal(distiller.predict(cache.join((x, y), shuffle=False), verbose=0), distiller.student.predict(x, verbose=0))


def test_sixty_thousand_rows_are_small(tmp_path):
    x = np.random.default_rng(0).normal(size=(60_000, 8)).astype("float32")
    cache = soft_targets(mlp(4, classes=10, name="teacher"), x, tmp_path)
    assert sum(p.stat().st_size for p in tmp_path.iterdir()) <= 1_300_000
    assert cache.elements == 60_000


def test_the_plan_is_logged_before_anything_is_written(labelled, tmp_path):
    teacher, x, _, _ = labelled
    logged = []
    cache = soft_targets(teacher, x, tmp_path / "c", options=CacheOptions(layers=["hidden_0"]), log_fn=logged.append)
    plan = plan_soft_targets(teacher, x, options=CacheOptions(layers=["hidden_0"]))
    assert plan.size_bytes == cache.size_bytes == sum(p.stat().st_size for p in (tmp_path / "c").glob("*.tfrecord"))
    assert logged == [str(plan)]
    assert "layer hidden_0: float16 (32,), 64 bytes" in logged[0]


def test_a_finished_folder_is_not_written_again(labelled):
    make = labelled[-1]
    cache = make()
    before = {p.name: p.stat().st_mtime_ns for p in cache.directory.iterdir() if p.name != ".lock"}
    again = make()
    assert {p.name: p.stat().st_mtime_ns for p in cache.directory.iterdir() if p.name != ".lock"} == before
    assert again.manifest == cache.manifest


def test_a_teacher_is_recognized_whatever_its_layers_are_called(labelled):
    teacher, _, _, make = labelled
    make()
    keras.models.clone_model(teacher)  # counts names up
    other = keras.Model.from_config(teacher.get_config())
    other.set_weights(teacher.get_weights())
    other.trainable = False
    from tfdistill.distill.cache.fingerprint import fingerprint_teacher

    assert fingerprint_teacher(other) == fingerprint_teacher(teacher)
    other.set_weights([w + 1e-7 for w in teacher.get_weights()])
    assert fingerprint_teacher(other) != fingerprint_teacher(teacher)


def other_teacher(teacher, x, y, make, cache):
    teacher.set_weights([w + 0.1 for w in teacher.get_weights()])
    make()


def changed(x):
    x = x.copy()
    x[-1, 0] += 1
    return x


BAD = {
    "another teacher": (DataError, "its weights differ", other_teacher),
    "other data to finish": (DataError, "Another dataset", lambda t, x, y, make, c: make(changed(x))),
    "other settings": (DataError, "dtype is 'float32', in the cache 'float16'", lambda t, x, y, make, c: make(dtype="float32")),
    "other inputs": (DataError, "another dataset: its inputs are x float64", lambda t, x, y, make, c: make(x.astype("float64"))),
    "other data": (DataError, "elements 0 to 255 are not those", lambda t, x, y, make, c: c.join((changed(x), y))),
    "a reversed stream": (DataError, "Another dataset", lambda t, x, y, make, c: c.join(stream(x[::-1], y))),
    "a short stream": (DataError, "it has 4 batches of 32", lambda t, x, y, make, c: c.join(stream(x[:120], y[:120]))),
    "a short stream of unknown length": (DataError, "Another dataset", lambda t, x, y, make, c: c.join(unknown_length(x[:120], y[:120]))),
    "fewer elements": (DataError, "149 elements", lambda t, x, y, make, c: c.join((x[1:], y[1:]))),
    "another PyDataset": (DataError, "Another dataset", lambda t, x, y, make, c: c.join(Batches(changed(x), y))),
    "a shuffling dataset": (DataError, "same order every time", lambda t, x, y, make, c: make(stream(x, y).shuffle(9), name="new")),
    "an endless dataset": (DataError, "never ends", lambda t, x, y, make, c: make(stream(x, y).repeat(), name="new")),
    "a generator": (ConfigurationError, "a tf.data.Dataset", lambda t, x, y, make, c: make((a for a in x), name="new")),
    "no data": (DataError, "above 0", lambda t, x, y, make, c: make(x[:0], name="new")),
    "unequal arrays": (DataError, "lengths", lambda t, x, y, make, c: make((x, y[1:]), name="new")),
    "an unknown layer": (ModelError, "hidden_0", lambda t, x, y, make, c: make(layers=["hidden0"], name="new")),
    "an unknown dtype": (ConfigurationError, "int8", lambda t, x, y, make, c: make(dtype="int8", name="new")),
    "views that are all the same": (ConfigurationError, "views", lambda t, x, y, make, c: make(views=2, name="new")),
    "a batch of nothing": (ConfigurationError, "batch_size", lambda t, x, y, make, c: c.join((x, y), batch_size=0)),
    "a strange shuffle": (ConfigurationError, "shuffle", lambda t, x, y, make, c: c.join((x, y), shuffle="yes")),
    "a strange check": (ConfigurationError, "quick", lambda t, x, y, make, c: c.join((x, y), check="some")),
    "data without outputs": (ModelError, "cache.join", lambda t, x, y, make, c: trained(c, stream(x, y))),
    "a callable": (ConfigurationError, "RemoteTeacher", lambda t, x, y, make, c: soft_targets(np.tanh, x, c.directory.parent / "new")),
    "a layer that was not stored": (
        ModelError,
        "no layer 'hidden_1'",
        lambda t, x, y, make, c: trained(c, c.join((x, y)), [Hint("hidden_1", "hidden_1")]),
    ),
    "an overflow": (DataError, "float16 cannot hold", lambda t, x, y, make, c: make(x * 1e6, name="new")),
    "NaN": (DataError, "NaN in the batch that begins with element 0", lambda t, x, y, make, c: make(x * np.nan, name="new")),
    "no such cache": (DataError, "manifest.json", lambda t, x, y, make, c: SoftTargetCache(c.directory / "nowhere")),
    "another cache than was saved": (DataError, "not the one", lambda t, x, y, make, c: SoftTargetCache(c.directory, sha256="0" * 64)),
}


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_is_refused(labelled, case):
    teacher, x, y, make = labelled
    cache = make()
    kind, words, act = BAD[case]
    with pytest.raises(kind) as error:
        act(teacher, x, y, make, cache)
    assert words in str(error.value)
