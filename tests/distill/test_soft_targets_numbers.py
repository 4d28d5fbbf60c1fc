"""Kept numbers are the teacher's to the promised precision, and never made of NaN."""

import os
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from small import mlp
from test_soft_targets import Batches

from tfdistill.distill.cache import manifest
from tfdistill.distill.cache.build import soft_targets
from tfdistill.distill.cache.format import Layout, Leaf, from_scales, with_scales
from tfdistill.distill.cache.options import CacheOptions
from tfdistill.distill.cache.reader import SoftTargetCache
from tfdistill.distill.cache.writer import ShardWriter
from tfdistill.distill.teachers.remote import RemoteTeacher
from tfdistill.errors import DataError

ROWS = 40
X = np.arange(2 * ROWS, dtype="float32").reshape(ROWS, 2)
RELATIVE = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-24}
# What a tensor of the teacher may look like, before it is scaled; float64.
SHAPES = {
    "normal": lambda rng: rng.normal(size=(ROWS, 10)),
    "of many sizes": lambda rng: rng.normal(size=(ROWS, 10)) * 10.0 ** rng.uniform(-7, 0, (ROWS, 10)),
    "probabilities": lambda rng: softmax(rng.normal(size=(ROWS, 10)) * 6),
    "rows of many sizes": lambda rng: rng.normal(size=(ROWS, 10)) * 10.0 ** rng.uniform(-9, 0, (ROWS, 1)),
    "images": lambda rng: rng.normal(size=(ROWS, 3, 4, 2)),
    "one number": lambda rng: rng.normal(size=(ROWS,)),
    "mostly zeros": lambda rng: rng.normal(size=(ROWS, 10)) * (rng.uniform(size=(ROWS, 10)) > 0.9),
}


def softmax(logits):
    e = np.exp(logits - logits.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def remote(values):
    """A teacher whose output for element i is row i of an array."""
    return RemoteTeacher(lambda x: values[(x[:, 0] / 2).astype(int)], "an array")


def read(cache, x=X, kind="arrays"):
    """The outputs of a cache for the elements in their order, as the student's losses see them."""
    if kind == "PyDataset":
        joined = cache.join(Batches(x, x[:, 0], 8))
        batches = [joined[i][0] for i in range(joined.num_batches)]
    else:
        dataset = tf.data.Dataset.from_tensor_slices(x).batch(8) if kind == "stream" else x
        batches = [b[0] for b in cache.join(dataset, batch_size=16, shuffle=False)]
    found = [cache(batch) for batch in batches]
    return keras.tree.map_structure(lambda *parts: np.concatenate(parts), *found)


def stored(values, dtype):
    """Values as they come back from a row of bytes."""
    leaf = Leaf("output", "0", values.shape[1:], dtype)
    layout = Layout(with_scales([leaf]), 1)
    rows = layout.pack([[values]])
    assert rows.shape == (ROWS, leaf.size_bytes + (dtype == "float16"))
    stored, *scales = layout.unpack(tf.constant(rows))
    found = tf.cast(stored, tf.float32).numpy()
    for scale in scales:
        found = found * from_scales(scale).numpy().reshape(-1, *[1] * (values.ndim - 1))
    assert found.dtype == np.float32
    return found.astype("float64")


def each(numbers, like):
    """A number for each row, for broadcasting."""
    return numbers.reshape(-1, *[1] * (like.ndim - 1))


@pytest.mark.parametrize("scale", [10.0**e for e in range(-8, 7)] + [1e-20, 6e3])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", RELATIVE)
def test_kept_numbers_have_the_promised_precision(rng, dtype, shape, scale):
    values, relative = SHAPES[shape](rng) * scale, RELATIVE[dtype]
    largest = np.abs(values).reshape(ROWS, -1).max(axis=1)
    if dtype == "float16" and largest.max() > 65504:
        with pytest.raises(DataError, match="which float16 cannot hold") as error:
            stored(values, dtype)
        assert error.value.fix == "store the outputs with dtype='bfloat16' or 'float32'"
        assert np.isfinite([stored(values, other) for other in ("bfloat16", "float32")]).all()
        return
    found = stored(values, dtype)
    # float32 has no numbers between 0 and 2**-149.
    allowed = np.maximum(relative * np.abs(values), 2.0**-150)
    if dtype == "float16":
        promised = np.abs(values) >= 2.0**-28 * each(largest, values)
        assert (np.abs(found - values) <= relative * np.abs(values))[promised].all()
        allowed = np.maximum(allowed, 2.0**-39 * each(largest, values))
    # A number of float64 is rounded to float32 first by bfloat16.
    assert (np.abs(found - values) <= allowed * (1 + 1e-6)).all()


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int32"])
def test_a_teacher_may_answer_in_any_type(rng, dtype):
    values = (rng.normal(size=(ROWS, 4)) * 100).astype(dtype)
    np.testing.assert_allclose(stored(values, "float16"), values.astype("float64"), rtol=2.0**-11)


@pytest.mark.parametrize("kind", ["arrays", "stream", "PyDataset"])
def test_every_way_of_reading_undoes_the_scale(tmp_path, rng, kind):
    values = rng.normal(size=(ROWS, 3)) * 10.0 ** rng.uniform(-9, 2, (ROWS, 1))
    found = read(soft_targets(remote(values), X, tmp_path, options=CacheOptions(batch_size=16, shard_elements=16)), kind=kind)
    np.testing.assert_allclose(found, values, rtol=2.0**-11)


@pytest.mark.parametrize("top_k", [None, 2])
@pytest.mark.parametrize("views", [1, 3])
def test_layers_largest_logits_and_views_keep_it_too(tmp_path, top_k, views):
    teacher = mlp(6, name="teacher")
    teacher.get_layer("logits").set_weights([w * 1e-7 for w in teacher.get_layer("logits").get_weights()])
    teacher.get_layer("hidden_0").set_weights([w * 1e-6 for w in teacher.get_layer("hidden_0").get_weights()])
    x = np.random.default_rng(0).normal(size=(ROWS, 8)).astype("float32")
    cache = soft_targets(
        teacher,
        x,
        tmp_path,
        options=CacheOptions(layers=["hidden_0"], top_k=top_k, views=views, augment=lambda a, seed: a),
        log_fn=lambda text: None,
    )
    expected = keras.Model(teacher.input, [teacher.output, teacher.get_layer("hidden_0").output]).predict(x, verbose=0)
    recorded = []
    cache.recorded[0].call = lambda value: recorded.append(value) or value
    batch = next(iter(cache.join(x, batch_size=ROWS, shuffle=False)))[0]
    outputs = cache(batch)
    if top_k:
        outputs = outputs.values
        expected[0] = -np.sort(-expected[0], axis=-1)[:, :2]
    np.testing.assert_allclose(outputs, expected[0], rtol=2.0**-10)
    np.testing.assert_allclose(recorded[0], expected[1], rtol=2.0**-10)


def test_a_scale_is_the_exponent_of_a_float32():
    np.testing.assert_array_equal(from_scales(tf.constant([1, 15, 126, 127], tf.uint8)), np.exp2([-126.0, -112.0, -1.0, 0.0]))


# Caches of format 1 had no scales.


@pytest.fixture
def first_format(monkeypatch):
    monkeypatch.setattr(manifest, "FORMAT", 1)
    return monkeypatch


def test_an_old_cache_is_read(tmp_path, rng, first_format):
    values = rng.normal(size=(ROWS, 3))
    cache = soft_targets(remote(values), X, tmp_path, options=CacheOptions(batch_size=8, shard_elements=16))
    first_format.undo()
    assert cache.manifest.settings.format == 1
    # Records of 8 rows of 6 bytes, and nothing else.
    records = list(tf.data.TFRecordDataset(str(tmp_path / "shard-00001.tfrecord")).as_numpy_iterator())
    assert records == [values[i : i + 8].astype("<f2").tobytes() for i in (16, 24)]
    again = SoftTargetCache(tmp_path)
    again.verify()
    np.testing.assert_array_equal(read(again), values.astype("float16").astype("float32"))
    soft_targets(remote(values), X, tmp_path)
    with pytest.raises(DataError, match="another teacher"):
        soft_targets(RemoteTeacher(lambda x: x, "another"), X, tmp_path)


@pytest.mark.parametrize("teacher", ["remote", "model"])
def test_an_unfinished_old_cache_is_finished_as_it_was_begun(tmp_path, first_format, teacher):
    x = np.random.default_rng(0).normal(size=(ROWS, 8)).astype("float32")
    net = mlp(4)
    made = RemoteTeacher(lambda a: net.predict(a, verbose=0), "net") if teacher == "remote" else net
    whole = soft_targets(made, x, tmp_path / "whole", options=CacheOptions(batch_size=8, shard_elements=16))
    write = ShardWriter.write

    def stopped(self, index, *args, **kwargs):
        if index == 1:
            raise KeyboardInterrupt
        return write(self, index, *args, **kwargs)

    first_format.setattr(ShardWriter, "write", stopped)
    with pytest.raises(KeyboardInterrupt):
        soft_targets(made, x, tmp_path / "begun", options=CacheOptions(batch_size=8, shard_elements=16))
    first_format.undo()
    assert soft_targets(made, x, tmp_path / "begun").manifest == whole.manifest


# NaN


@keras.saving.register_keras_serializable(package="test_soft_targets_numbers")
class Log(keras.layers.Layer):
    """NaN for negative numbers, -inf for zero."""

    def call(self, inputs):
        return keras.ops.log(inputs)


def two_outputs():
    """The logarithm of the sum of the inputs is the second output; the first is whole."""
    x = inputs = keras.Input((8,))
    whole = keras.layers.Dense(3, name="whole")(x)
    summed = keras.layers.Lambda(lambda a: keras.ops.sum(a, axis=-1, keepdims=True))(x)
    return keras.Model(inputs, {"whole": whole, "logarithm": Log(name="logarithm")(summed)})


def hidden():
    """A logarithm that a fused ReLU hides."""
    x = inputs = keras.Input((8,))
    x = Log()(x)
    x = keras.layers.Dense(4, activation="relu", name="hiding")(x)
    return keras.Model(inputs, keras.layers.Dense(3)(x))


def convolution():
    x = inputs = keras.Input((6, 6, 2))
    x = keras.layers.Conv2D(4, 3, name="conv")(x)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.ReLU()(x)
    return keras.Model(inputs, keras.layers.Dense(3, name="head")(keras.layers.GlobalAveragePooling2D()(x)))


def embedding():
    x = inputs = keras.Input((4,), dtype="int32")
    x = keras.layers.Embedding(9, 4, name="words")(x)
    return keras.Model(inputs, keras.layers.Dense(3)(keras.layers.GlobalAveragePooling1D()(x)))


def nested():
    inner = mlp(4, name="inner")
    inputs = keras.Input((8,))
    return keras.Model(inputs, keras.layers.Dense(3)(inner(inputs)))


def broken(model, weight, value=np.nan, place=-1):
    """Puts one bad value into the weight whose path ends so."""
    (found,) = [w for w in model.weights if w.path.endswith(weight)]
    array = keras.ops.convert_to_numpy(found).copy()
    array.reshape(-1)[place] = value
    found.assign(array)
    return model


def ones(*shape):
    return np.ones((ROWS, *shape), "float32")


def with_one(row, column, value):
    """Ones, and one other number."""
    x = ones(8)
    x[row, column] = value
    return x


WEIGHTS = {
    "a kernel before a ReLU": (lambda: broken(mlp(4, 4), "hidden_1/kernel"), ones(8), "hidden_1/kernel", "NaN"),
    "a bias before a ReLU": (lambda: broken(mlp(4, 4), "hidden_0/bias"), ones(8), "hidden_0/bias", "NaN"),
    "the last kernel": (lambda: broken(mlp(4), "logits/kernel"), ones(8), "logits/kernel", "NaN"),
    "infinity": (lambda: broken(mlp(4), "hidden_0/kernel", np.inf), ones(8), "hidden_0/kernel", "infinity"),
    "minus infinity": (lambda: broken(mlp(4), "hidden_0/bias", -np.inf), ones(8), "hidden_0/bias", "infinity"),
    "a convolution": (lambda: broken(convolution(), "conv/kernel"), ones(6, 6, 2), "conv/kernel", "NaN"),
    "a moving variance": (lambda: broken(convolution(), "norm/moving_variance"), ones(6, 6, 2), "norm/moving_variance", "NaN"),
    "a row of an embedding that no element uses": (
        lambda: broken(embedding(), "words/embeddings"),
        ones(4).astype("int32"),
        "words",
        "NaN",
    ),
    "a nested model": (lambda: broken(nested(), "hidden_0/kernel"), ones(8), "hidden_0/kernel", "NaN"),
}


@pytest.mark.parametrize("case", WEIGHTS)
def test_a_teacher_with_a_weight_that_is_no_number_is_refused(tmp_path, case):
    make, x, name, kind = WEIGHTS[case]
    with pytest.raises(DataError, match=f"weight '[^']*{name}[^']*' of the teacher .* has {kind}: 1 of"):
        soft_targets(make(), x, tmp_path / "c")
    assert [n for n in os.listdir(tmp_path / "c") if n != ".lock"] == []


def test_a_saved_model_with_a_weight_that_is_no_number_is_refused(tmp_path):
    broken(mlp(4, 4), "hidden_1/kernel").export(tmp_path / "saved", verbose=False)
    with pytest.raises(DataError, match="has NaN: 1 of 16 values"):
        soft_targets(str(tmp_path / "saved"), ones(8), tmp_path / "c")


NON_FINITE = {
    "hidden by a fused ReLU": (hidden, with_one(3, 2, -1.0), dict(), "output 'output' is nan at \\[0\\] of element 3, when"),
    "a layer that is stored": (hidden, with_one(3, 2, -1.0), dict(layers=["hiding"]), "is nan at \\[0\\] of element 3"),
    "only in the second output": (two_outputs, with_one(5, 0, -9.0), dict(), "output 'logarithm' is nan at \\[0\\] of element 5"),
    "only in a later batch": (
        two_outputs,
        with_one(29, 1, -9.0),
        dict(),
        "output 'logarithm' is nan at \\[0\\] of element 29; 1 of 8 elements",
    ),
    "infinity in a later batch": (two_outputs, with_one(20, 1, -7.0), dict(), "output 'logarithm' is -inf at \\[0\\] of element 20"),
    "an input": (mlp, with_one(30, 1, np.nan), dict(), "The input has NaN in the batch that begins with element 24"),
    "an infinite input": (mlp, with_one(30, 1, -np.inf), dict(), "The input has infinity in the batch that begins with element 24"),
    "one view": (
        mlp,
        ones(8),
        dict(views=2, augment=lambda x, seed: tf.where((seed[0] == 17) & (seed[1] == 1), np.float32("nan"), x)),
        "The input has NaN in the batch that begins with element 16",
    ),
}


@pytest.mark.parametrize("case", NON_FINITE)
def test_nan_is_reported_with_its_place_and_never_written(tmp_path, case):
    make, x, settings, words = NON_FINITE[case]
    with pytest.raises(DataError, match=words) as error:
        soft_targets(make(), x, tmp_path, options=CacheOptions(batch_size=8, shard_elements=8, **settings), log_fn=lambda text: None)
    assert not (tmp_path / "manifest.json").exists()
    # Shards of 8 elements; those before the one that is said are there, it and later ones are not.
    number = int(re.search(r"element (\d+)", str(error.value))[1])
    assert len(list(tmp_path.glob("*.tfrecord"))) == number // 8


@pytest.mark.parametrize("place", [(4, 0), (4, 2)])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_among_the_logits_is_reported_whatever_is_stored_of_them(tmp_path, place, value):
    logits = np.tile(np.array([3.0, 2.0, 1.0], "float32"), (ROWS, 1))
    logits[place] = value
    with pytest.raises(DataError, match="of element 4"):
        soft_targets(remote(logits), X, tmp_path, options=CacheOptions(top_k=1))
    assert list(tmp_path.glob("*.tfrecord")) == []


@pytest.mark.parametrize("dtype", RELATIVE)
def test_a_repaired_teacher_continues_after_the_finished_shards(tmp_path, dtype):
    """As the error advises: the shards before the bad output stay."""
    values = np.ones((ROWS, 3))
    values[33] = np.nan
    with pytest.raises(DataError, match=r"is nan at \[0\] of element 33; 1 of 8 elements"):
        soft_targets(remote(values), X, tmp_path, options=CacheOptions(dtype=dtype, batch_size=8, shard_elements=8))
    assert len(list(tmp_path.glob("shard-*.tfrecord"))) == 4
    values[33] = 5
    np.testing.assert_array_equal(read(soft_targets(remote(values), X, tmp_path, options=CacheOptions(dtype=dtype))), values)
