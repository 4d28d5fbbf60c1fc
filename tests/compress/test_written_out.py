"""Attention, normalizations and the like as people write them out in keras.ops go through quantization-aware training into integer files."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops
from test_odd_layers import decibels, exported, group

from tfdistill.bridge.integer import traced
from tfdistill.compress import QuantizeAware
from tfdistill.compress.quantize import consumers
from tfdistill.compress.quantize.scores import with_scores
from tfdistill.compress.rebuild import open_model

STEPS, WIDTH = 6, 8
EARLIER = np.tril(np.ones((STEPS, STEPS), "float32"))


def attention(hide):
    """Scores, as `hide` changes them, with a softmax."""

    def compute(x):
        q, k = layers.Dense(WIDTH)(x), layers.Dense(WIDTH)(x)
        scores = hide(ops.matmul(q, ops.transpose(k, (0, 2, 1))) * WIDTH**-0.5)
        return ops.matmul(ops.softmax(scores), layers.Dense(WIDTH)(x))

    return compute


def mean_square(x):
    return ops.mean(ops.square(x), -1, keepdims=True) + 1e-6


def dense(function):
    return lambda x: function(layers.Dense(WIDTH)(x))


ROWS = {
    "a stack": lambda x: ops.reshape(ops.stack([-layers.Dense(4)(x), 5.0 * layers.Dense(4)(x)], -2), (-1, STEPS, WIDTH)),
    "reciprocal of a root": dense(lambda x: x * ops.reciprocal(ops.sqrt(mean_square(x)))),
    "a division by a norm": dense(lambda x: x / ops.sqrt(mean_square(x))),
    "a division by a sum": dense(lambda x: ops.exp(-ops.abs(x)) / ops.sum(ops.exp(-ops.abs(x)), -1, keepdims=True)),
    "hidden by a large number": attention(lambda s: s + (1.0 - EARLIER) * -1e9),
    "hidden by subtraction": attention(lambda s: s - 1e6 * (1.0 - EARLIER)),
    "hidden by a hundred": attention(lambda s: s + (1.0 - EARLIER) * -100.0),
    "hidden by selection": attention(lambda s: ops.where(EARLIER > 0, s, -np.inf)),
    "padded and cut": dense(lambda x: ops.pad(x, ((0, 0), (1, 1), (0, 0)))[:, ::2]),
    "two normalizations": dense(lambda x: layers.LayerNormalization()(x) + layers.LayerNormalization(epsilon=1e-2)(x)),
}


@pytest.mark.slow
def test_what_is_written_out_is_exported_in_integers(tmp_path):
    before, trained, found, record = exported(group((STEPS, WIDTH), ROWS), tmp_path)
    assert not record.census.stray_floats(float_io=True)
    measured = {}
    for i, name in enumerate(ROWS):
        file = found[f"y{i}"].reshape(trained[f"y{i}"].shape)
        measured[name] = decibels(trained[f"y{i}"], file), decibels(before[f"y{i}"], file)
    assert not {name: pair for name, pair in measured.items() if min(pair) < 25}, measured


def numbers(body):
    inputs = keras.Input((STEPS,), dtype="int32")
    return keras.Model(inputs, {"y0": layers.Dense(3)(body(ops.cast(inputs, "float32")))})


# The file looks up the integers of the range, or every nth of a wide one.
NUMBERS = {
    "few": lambda x: x / 20.0,
    "some below 0": lambda x: (x - 10.0) / 10.0,
    "compared": lambda x: x * ops.cast(x > 7.5, "float32") / 20.0,
}


@pytest.mark.parametrize("name", [n if n == "few" else pytest.param(n, marks=pytest.mark.slow) for n in NUMBERS])
def test_integers_become_floats_in_an_integer_file(name, tmp_path):
    keras.utils.set_random_seed(0)
    before, trained, found, record = exported(numbers(NUMBERS[name]), tmp_path)
    assert not record.census.stray_floats(float_io=True)
    assert decibels(trained["y0"], found["y0"]) > 30
    assert decibels(before["y0"], found["y0"]) > 30


TIED = {"tied": {}, "of two tables": {"tie_weights": False}, "capped": {"logit_soft_cap": 0.5}}
TIED = TIED if hasattr(layers, "ReversibleEmbedding") else {}  # not in Keras 3.12


@pytest.mark.slow
@pytest.mark.parametrize("name", TIED)
def test_an_embedding_that_gives_logits_too_has_integers_in_both_calls(name, tmp_path):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((STEPS,), dtype="int32")
    embed = layers.ReversibleEmbedding(20, WIDTH, embeddings_initializer=keras.initializers.RandomNormal(stddev=1.0, seed=1), **TIED[name])
    hidden = embed(inputs)
    hidden = layers.Dense(WIDTH)(hidden * ops.reciprocal(ops.sqrt(mean_square(hidden))))
    model = keras.Model(inputs, {"y0": embed(hidden, reverse=True)})
    before, trained, found, record = exported(model, tmp_path)
    assert not record.census.stray_floats(float_io=True)
    assert decibels(trained["y0"], found["y0"]) > 25
    assert decibels(before["y0"], found["y0"]) > 20
    assert QuantizeAware().plan(model, dry_run=False).row(embed.name).reason == "weights trained quantized"


def test_a_cast_to_the_type_that_is_there_has_no_range():
    inputs = keras.Input((WIDTH,))
    x = ops.cast(layers.Dense(WIDTH)(inputs), "float32")
    plan = QuantizeAware().plan(keras.Model(inputs, x * ops.cast(x > 0.5, "float32")), dry_run=False)
    reasons = [row.reason for row in plan.rows if row.name.startswith("cast")]
    assert reasons == ["adds no range of its own", "output trained quantized"]


@pytest.mark.parametrize(("shape", "passes"), [((None, 4), True), ((None, 1), False), (None, False)])
def test_what_changes_nothing_passes_where_it_is_known_to_repeat_nothing(shape, passes):
    assert traced.only_moves(lambda x: x * tf.ones(4), [tf.TensorSpec(shape)]) == passes


def scores_of(function):
    inputs = keras.Input((STEPS, STEPS))
    places = consumers.places(open_model(keras.Model(inputs, function(inputs))).legacy)
    return [path for path, place in with_scores(places).items() if place.scores]


def test_only_what_softmaxes_alone_read_may_hide_scores():
    assert scores_of(
        lambda x: layers.Softmax()(ops.reshape(layers.Add(name="sum")([x, layers.Dense(STEPS, name="bias")(x)]), (-1, 36)))
    ) == [
        "bias",
        "sum",
        "reshape",
    ]
    both = layers.Dense(STEPS, name="both")
    assert scores_of(lambda x: ops.softmax(both(x)) + both(x)) == []
    assert scores_of(lambda x: layers.Dense(STEPS, name="last")(x)) == []


def test_a_division_by_what_may_be_negative_is_still_refused():
    inputs = keras.Input((4,))
    x = layers.Dense(4)(inputs)
    plan = QuantizeAware().plan(keras.Model(inputs, ops.reciprocal(ops.square(x) - x)))
    assert ["a division by what may be negative" in row.reason for row in plan.rows if row.action == "impossible"] == [True]
