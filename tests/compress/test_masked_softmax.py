"""Attention that others write with operations and a Softmax: a mask hides scores without taking the range of those that are seen."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from tfdistill.bridge import imports
from tfdistill.bridge.integer import traced
from tfdistill.bridge.integer.attention import masked_softmax
from tfdistill.bridge.integer.measuring import Histograms
from tfdistill.bridge.integer.rounding import ActivationRounder
from tfdistill.bridge.integer.trace import Trace
from tfdistill.compress import Quantize, QuantizeAware
from tfdistill.runtime.interpreter import open_file
from tfdistill.tflite import Tolerances
from tfdistill.tflite.export import export_tflite


def attention(mask_of, masked=True):
    """Attention on six tokens, of which each sees what the mask given as the second input shows, if there is one."""
    tokens, mask = keras.Input((6, 8), name="tokens"), keras.Input((6, 6), dtype="int32", name="mask")
    query, key, value = (layers.Dense(8, name=name)(tokens) for name in ("query", "key", "value"))
    scores = ops.matmul(query, ops.transpose(key, (0, 2, 1)))
    seen = layers.Softmax(axis=(-1,), name="softmax")(scores, mask=mask_of(mask))
    return keras.Model([tokens, mask] if masked else tokens, layers.Dense(3, name="out")(ops.matmul(seen, value)))


@pytest.mark.parametrize(("axis", "positional"), [(-1, False), (-1, True), ((-1,), False)])
def test_it_is_the_softmax_of_what_is_seen(axis, positional, rng):
    scores, mask = rng.normal(size=(3, 4, 5)).astype("float32"), rng.random((3, 4, 5)) < 0.6
    mask[..., 0] = True
    layer = imports.tf_keras().layers.Softmax(axis=axis)
    args, kwargs = ((tf.constant(mask),), {}) if positional else ((), {"mask": tf.constant(mask)})
    x = tf.constant(scores)
    with tf.GradientTape() as tape:
        tape.watch(x)
        found = masked_softmax(layer, ActivationRounder(lambda what: (None,) * 3, training=False, rounding=False), (x, *args), kwargs)
        total = tf.reduce_sum(found * found)
    powers = np.where(mask, np.exp(scores), 0.0)
    expected = powers / powers.sum(-1, keepdims=True)
    # d sum(p^2) / dx of a softmax p.
    gradient = 2 * expected * (expected - (expected**2).sum(-1, keepdims=True)) * mask
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(tape.gradient(total, x), gradient, atol=1e-6)


MASKS = {"a tensor": lambda mask: ops.cast(mask, "bool"), "a constant": lambda mask: np.tri(6, dtype="bool")}


@pytest.mark.parametrize(("kind", "trained"), [("a tensor", True), ("a tensor", False), ("a constant", True), ("a constant", False)])
def test_a_mask_goes_to_an_integer_file(kind, trained, rng, tmp_path):
    model = attention(MASKS[kind], kind == "a tensor")
    tokens = rng.normal(size=(64, 6, 8)).astype("float32")
    x = [tokens, np.tile(np.tri(6, dtype="int32"), (64, 1, 1))] if kind == "a tensor" else tokens
    if trained:
        step = QuantizeAware()
        applied = step.apply(model)
        applied(x, training=True)
        model = step.strip(applied)
    record = export_tflite(model, tmp_path / "model.tflite", "int8", calibration=x)
    (output,) = record.verification.outputs.values()
    assert output.mean_abs_error / output.scale < 0.01


class Ranges(dict):
    """Variables of ranges by their names."""

    def __call__(self, what):
        return self.setdefault(what, tuple(tf.Variable(start) for start in (-6.0, 6.0, 0.0)))


@pytest.mark.parametrize("settings", [{}, {"scores": True}, {"scores": True, "hides": True}])
@pytest.mark.parametrize("number", [-1e4, -1e9, -np.inf])
def test_scores_that_are_padded_are_hidden(number, settings, rng):
    """Behind the seen ones, which are nearly alike, so that any other score of the range would be seen as much as they are."""
    ranges, x = Ranges(), tf.constant(rng.normal(size=(8, 4), scale=0.2), tf.float32)

    def padded(x):
        return tf.nn.softmax(tf.pad(2.0 * x, [[0, 0], [0, 2]], constant_values=number))

    for training in (True, False):
        found = traced.compute(padded, [x], ActivationRounder(ranges, training, **settings), "inner")
    np.testing.assert_allclose(found, padded(x), atol=0.01)
    assert np.max(found[:, 4:]) < 1e-6


def test_scores_that_a_model_pads_are_hidden(rng):
    inputs = keras.Input((4,))
    scores = layers.Dense(4, kernel_initializer=keras.initializers.RandomNormal(0.1))(inputs)
    model = keras.Model(inputs, layers.Softmax()(ops.pad(scores, [[0, 0], [0, 2]], constant_values=-1e9)))
    quantized, x = QuantizeAware().apply(model), rng.normal(size=(8, 4)).astype("float32")
    quantized(x, training=True)
    found = np.asarray(quantized(x, training=False))
    np.testing.assert_allclose(found, model(x), atol=0.02)
    assert found[:, 4:].max() < 1e-6


# Function of two halves of a tensor, and whether softmaxes alone read that.
READ = {
    "one half": (lambda a, b: tf.nn.softmax(b), True),
    "both": (lambda a, b: [tf.nn.softmax(a), tf.nn.softmax(b)], True),
    "the other is a factor": (lambda a, b: tf.nn.softmax(a) * b, False),
    "the other is given back": (lambda a, b: [tf.nn.softmax(a), b], False),
}


@pytest.mark.parametrize("name", READ)
def test_all_parts_of_scores_are_read_by_softmaxes(name):
    function, expected = READ[name]
    trace = Trace.of(lambda x: function(*tf.split(tf.exp(x), 2, axis=-1)), [tf.TensorSpec([None, 4])])
    (halved,) = [op.outputs[0] for op in trace.needed if op.type == "Exp"]
    assert trace.are_scores(halved) == expected


@pytest.mark.parametrize(("settings", "inside", "counted"), [({}, True, False), ({"scores": True, "hides": True}, False, True)])
def test_a_range_that_hides_is_not_clipped(settings, inside, counted):
    ranges = Ranges()
    low, _, _ = ranges("sum")
    histograms = Histograms([id(low)])
    quantize = ActivationRounder(ranges, training=False, measuring=histograms, **settings)
    quantize(tf.constant([[1.0, 2.0, -2048.0]]), "sum", scores=inside)
    assert bool(histograms.counts) == counted


TOKENS, WIDTH = 6, 4
EARLIER = np.tri(TOKENS, dtype="float32")
LATER = EARLIER == 0


def later(mask):
    return 1.0 - ops.cast(mask, "float32")


def shown(mask):
    """What a mask shows, and each token itself: the two Keras differ where all scores are hidden, as they are by random masks."""
    return ops.cast(ops.maximum(mask, np.eye(TOKENS, dtype="int32")), "bool")


def written(hide):
    """Attention whose scores are hidden by a function of the scores and the mask; gives its weights too."""

    def compute(x, mask):
        query = layers.Dense(WIDTH, kernel_initializer=keras.initializers.RandomNormal(0.02), bias_initializer="ones")(x)
        key = layers.Dense(WIDTH, kernel_initializer="identity")(x)
        weights = hide(ops.matmul(query, ops.transpose(key, (0, 2, 1))), mask)
        return ops.matmul(weights, layers.Dense(WIDTH)(x)), layers.Identity()(weights)

    return compute


def of_keras(layer, **kwargs):
    """An attention layer with queries that are nearly alike, so that the scores follow the keys."""

    def compute(x, mask):
        query = layers.Dense(WIDTH, kernel_initializer=keras.initializers.RandomNormal(0.02), bias_initializer="ones")(x)
        given = {} if kwargs else {"attention_mask": shown(mask)}
        return layer()(query, x, **kwargs, **given), None

    return compute


ALIKE = {"kernel_initializer": keras.initializers.RandomUniform(0.09, 0.11), "bias_initializer": "ones"}
# How scores are hidden, in groups that are one model each.
HIDDEN = {
    "added": {
        "a constant is added": written(lambda s, m: ops.softmax(s + (1.0 - EARLIER) * -1e9)),
        "of a hundred": written(lambda s, m: ops.softmax(s + (1.0 - EARLIER) * -100.0)),
        "the smallest float": written(lambda s, m: ops.softmax(s + (1.0 - EARLIER) * np.finfo("float32").min)),
        "a tensor is added": written(lambda s, m: ops.softmax(s + later(m) * -1e9)),
        "by a layer": written(lambda s, m: layers.Softmax()(layers.Add()([s, later(m) * -1e9]))),
    },
    "given": {
        "an input": written(lambda s, m: ops.softmax(s + m)),
    },
    "computed": {
        "subtracted": written(lambda s, m: ops.softmax(s - 1e9 * later(m))),
        "a product less one": written(lambda s, m: ops.softmax(s + 1e9 * (ops.cast(m, "float32") - 1.0))),
        "a product, and added": written(lambda s, m: ops.softmax(s * ops.cast(m, "float32") - 1e9 * later(m))),
        "two are added": written(lambda s, m: ops.softmax(s + (1.0 - EARLIER) * -1e9 + later(m) * -1e9)),
        "their sum is": written(lambda s, m: ops.softmax(s + ops.add((1.0 - EARLIER) * -1e9, later(m) * -1e9))),
    },
    "selected": {
        "selected, infinite": written(lambda s, m: ops.softmax(ops.where(EARLIER > 0, s, -np.inf))),
        "selected by a tensor": written(lambda s, m: layers.Softmax()(ops.where(ops.cast(m, "bool"), s, -1e9))),
        "masked by a Softmax": written(lambda s, m: layers.Softmax()(s, mask=shown(m))),
        "MultiHeadAttention": of_keras(lambda: layers.MultiHeadAttention(2, 16, **ALIKE)),
        "MultiHeadAttention, causal": of_keras(lambda: layers.MultiHeadAttention(2, 16, **ALIKE), use_causal_mask=True),
        "GroupQueryAttention": of_keras(lambda: layers.GroupQueryAttention(16, 2, 1, **ALIKE)),
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("group", HIDDEN)
@pytest.mark.parametrize("step", [Quantize, QuantizeAware])
def test_nothing_of_what_is_hidden_is_seen_however_far_scores_are_apart(step, group, rng, tmp_path):
    """The scores of hidden tokens are up to 100 above those that are seen."""
    keras.utils.set_random_seed(0)
    # "given": the numbers that hide are an input.
    kind = "float32" if group == "given" else "int32"
    inputs = [keras.Input((TOKENS, WIDTH), name="x"), keras.Input((TOKENS, TOKENS), dtype=kind, name="mask")]
    found = {name: attend(*inputs) for name, attend in HIDDEN[group].items()}
    outputs = {f"y{i}": y for i, (y, _) in enumerate(found.values())} | {
        f"w{i}": w for i, (_, w) in enumerate(found.values()) if w is not None
    }
    model = keras.Model(inputs, outputs)
    ramp = 5.0 * (np.arange(TOKENS, dtype="float32") - 2.5)[:, None]
    x, mask = (
        ramp + rng.normal(size=(64, TOKENS, WIDTH)).astype("float32"),
        np.tile(np.where(LATER, -1e9, 0.0) if group == "given" else EARLIER, (64, 1, 1)).astype(kind),
    )
    if step is Quantize:
        quantized = Quantize().apply(model, [x, mask])
    else:
        quantized = QuantizeAware().apply(model)
        for _ in range(2):
            quantized([x, mask], training=True)
    record = export_tflite(quantized, tmp_path / "model.tflite", "int8", io="float32", tolerances=Tolerances())
    assert not record.census.stray_floats(float_io=True)
    opened = open_file(record.path)
    changed = np.concatenate([x[:, :3], -x[:, 3:]], 1)
    file, blind = (opened.run({"x": given, "mask": mask}) for given in (x, changed))
    floats, rounded = ({name: np.asarray(y) for name, y in of([x, mask], training=False).items()} for of in (model, quantized))
    wrong = {}
    for i, name in enumerate(HIDDEN[group]):
        expected, weights, shape = floats[f"y{i}"], f"w{i}", (64, TOKENS, -1)
        leaks = [of[weights].reshape(shape)[:, LATER].max() for of in (rounded, file) if weights in floats]
        error = np.abs(file[f"y{i}"].reshape(expected.shape) - expected).mean() / np.ptp(expected)
        same = np.array_equal(*(of[f"y{i}"].reshape(shape)[:, :3] for of in (file, blind)))
        if max(leaks, default=0.0) > 1e-6 or error > 0.02 or not same:
            wrong[name] = leaks, error, same
    assert not wrong, wrong
