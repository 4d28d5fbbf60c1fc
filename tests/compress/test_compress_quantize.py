"""Quantization-aware training: what is rounded, with which numbers, and what stays as it was."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from opened_models import opened
from test_compress_steps import convolutions, images, nested, sequential, train

from tfdistill.bridge.adopt import introspection
from tfdistill.bridge.integer.rounding import ActivationRounder, cluster_means, round_weights
from tfdistill.bridge.wrappers.base import variable_at
from tfdistill.bridge.wrappers.quantization import as_in_the_file, is_quantized_layer
from tfdistill.compress import QuantizeAware
from tfdistill.compress.quantize import scheme
from tfdistill.distill import Tap, Taps
from tfdistill.errors import ConfigurationError, ModelError

layers = keras.layers


# Rounding, against NumPy


def rounded(value, bits, axes):
    """The grid of TFLite's specification: scale = largest magnitude / (2 ** (bits - 1) - 1)."""
    others = tuple(a for a in range(value.ndim) if a not in axes)
    scale = np.abs(value).max(others, keepdims=True) / (2 ** (bits - 1) - 1)
    return np.round(value / np.where(scale == 0, 1, scale)) * scale


@pytest.mark.parametrize(
    ("bits", "axes", "shape"), [(8, (), (6, 5)), (8, (3,), (3, 3, 2, 4)), (8, (1,), (3, 4, 2)), (4, (), (6, 5)), (4, (2, 3), (3, 3, 4, 2))]
)
def test_weights_are_rounded_to_the_files_grid(rng, bits, axes, shape):
    value = rng.normal(size=shape).astype("float32")
    value[(slice(None),) * (len(shape) - 1) + (0,)] *= 0.1
    variable = tf.Variable(value)
    with tf.GradientTape() as tape:
        found = round_weights(variable, bits, axes)
        loss = tf.reduce_sum(found * 2.0)
    np.testing.assert_allclose(found, rounded(value, bits, axes), atol=1e-6)
    np.testing.assert_array_equal(tape.gradient(loss, variable), np.full(shape, 2.0))
    assert len(np.unique(found)) <= (2**bits - 1) * np.prod([shape[a] for a in axes], dtype=int)


def test_a_channel_of_zeros_stays_zero():
    value = np.ones((2, 3), "float32") * [[1.0, 0.0, 2.0]]
    np.testing.assert_array_equal(round_weights(tf.constant(value, "float32"), 8, (1,)), value)
    np.testing.assert_array_equal(round_weights(tf.zeros((2, 3)), 8), np.zeros((2, 3)))


def test_a_cluster_is_the_mean_of_its_members_and_so_is_its_gradient(rng):
    value, members = rng.normal(size=(4, 5)).astype("float32"), rng.integers(0, 3, (4, 5)).astype("int32")
    upstream = rng.normal(size=(4, 5)).astype("float32")
    variable = tf.Variable(value)
    with tf.GradientTape() as tape:
        found = cluster_means(variable, members, 3)
        loss = tf.reduce_sum(found * upstream)
    means, gradients = np.zeros_like(value), np.zeros_like(value)
    for cluster in range(3):
        inside = members == cluster
        means[inside], gradients[inside] = value[inside].mean(), upstream[inside].mean()
    np.testing.assert_allclose(found, means, atol=1e-6)
    np.testing.assert_allclose(tape.gradient(loss, variable), gradients, atol=1e-6)


@pytest.mark.parametrize("symmetric", [False, True])
def test_activations_are_rounded_over_the_mean_of_the_first_ranges(rng, symmetric):
    batches = [rng.normal(size=(8, 4)).astype("float32") + 1.0 for _ in range(3)]
    variables = tuple(tf.Variable(v) for v in (-6.0, 6.0, 0.0))
    for batch in batches:
        ActivationRounder({"x": variables}.get, training=True)(tf.constant(batch), "x")
    low, high = np.mean([min(b.min(), 0) for b in batches]), np.mean([b.max() for b in batches])
    np.testing.assert_allclose([v.numpy() for v in variables], [low, high, 3], rtol=1e-5)
    found = ActivationRounder({"x": variables}.get, training=False)(tf.constant(batches[0]), "x", symmetric=symmetric).numpy()
    scale = max(high / 127, -low / 128) if symmetric else (high - low) / 255
    zero = 0 if symmetric else np.round(-128 - low / scale)
    expected = (np.clip(np.round(batches[0] / scale) + zero, -128, 127) - zero) * scale
    np.testing.assert_allclose(found, expected, atol=1.01 * scale)
    assert np.mean(np.abs(found - expected) < 1e-5) > 0.9  # all but ties


def test_tensors_of_one_name_move_their_range_once_by_the_lowest_and_highest(rng):
    batches = [[rng.normal(size=(8, 4)).astype("float32") * scale for scale in (0.1, 1.0, 0.5)] for _ in range(3)]
    variables = tuple(tf.Variable(v) for v in (-6.0, 6.0, 0.0))
    for steps in batches:
        rounder = ActivationRounder({"x": variables}.get, training=True)
        with rounder.together():
            found = [rounder(tf.constant(x), "x").numpy() for x in steps]
        if steps is batches[0]:
            np.testing.assert_array_equal(found, steps)  # no range is known yet
    low, high = np.mean([np.min(steps) for steps in batches]), np.mean([np.max(steps) for steps in batches])
    np.testing.assert_allclose([v.numpy() for v in variables], [low, high, 3], rtol=1e-5)
    assert np.abs(np.subtract(found, batches[-1])).mean() > 1e-4


@pytest.mark.parametrize(("name", "steps"), [("tanh", 128), ("sigmoid", 256), ("softmax", 256)])
def test_fixed_ranges_are_those_of_the_files_operations(rng, name, steps):
    x = rng.uniform(-1 if name == "tanh" else 0, 1, 1000).astype("float32")
    found = ActivationRounder({}.get, training=False).fixed(tf.constant(x), name)
    np.testing.assert_allclose(found, np.minimum(np.round(x * steps), steps - 1) / steps, atol=1e-6)


# What is rounded


def wrappers(model, observed=False):
    """Path -> wrapper of the layers that are trained quantized, or of those that are excluded."""
    found = {path: layer for path, layer in model.named_layers().items() if is_quantized_layer(layer)}
    return {path: layer for path, layer in found.items() if layer.quantization.observed is observed}


def test_a_plan_says_what_is_rounded_folded_and_fused():
    rows = {row.name: row for row in QuantizeAware(exclude="hidden").plan(opened(convolutions)).rows}
    assert "folded" in rows["norm"].reason
    assert rows["alone"].reason == "output trained quantized"
    assert "folded into the layer behind it" in rows["rescale"].reason
    assert "left out" in rows["hidden"].reason
    assert rows["hidden"].action == "skipped"


def test_a_normalization_is_folded_only_into_a_layer_that_is_quantized():
    step = QuantizeAware(exclude="conv3")
    assert "folded" not in step.plan(opened(sequential)).row("norm").reason
    applied = train(step.apply(opened(sequential)), 3)
    assert applied.get_layer("norm").quantization.form == "normalization alone"
    step.check(applied)


def test_only_the_last_of_what_is_fused_has_a_range():
    found = wrappers(QuantizeAware().apply(opened(convolutions)))
    assert {path: list(layer.ranges) for path, layer in found.items()} == {
        "rescale": [],
        "conv3": [],
        "relu": ["output"],
        "depthwise": ["output"],
        "conv1": [],
        "relu1": ["output"],
        "separable": ["depthwise", "output"],
        "gelu": ["output"],
        "add": ["output"],
        "alone": ["output"],
        "pool": ["output"],
        "hidden": ["activation", "activation_above_zero", "output"],
        "logits": ["output"],
    }
    assert [w.path for w in found["separable"].quantization.weights] == ["depthwise_kernel", "pointwise_kernel"]
    assert found["conv1"].quantization.weights[0].axes == (3,)
    assert found["depthwise"].quantization.weights[0].axes == (2, 3)
    assert found["hidden"].quantization.weights[0].axes == ()


def test_what_is_left_out_is_measured_but_rounded_in_the_file_alone(rng):
    model, x = (
        keras.Sequential([keras.Input((5,)), layers.Dense(4, "elu", name="out"), layers.Dense(3, name="in")]),
        rng.normal(size=(64, 5)),
    )
    applied = QuantizeAware(exclude="out").apply(model)
    applied.compile("sgd", "mse")
    applied.train_on_batch(x, np.zeros((64, 3)))
    wrapper = applied.get_layer("out")
    assert "output" in wrapper.ranges
    assert wrappers(applied, observed=True) == {"out": wrapper}
    QuantizeAware().check(applied)
    entered = tf.constant(x, "float32")
    np.testing.assert_allclose(wrapper(entered), wrapper.layer(entered), atol=1e-6)
    with as_in_the_file():
        apart = np.abs(wrapper(entered) - wrapper.layer(entered))
        assert len(np.unique(wrapper(entered))) <= 256
    assert 1e-4 < apart.mean() < 0.05
    np.testing.assert_allclose(wrapper(entered), wrapper.layer(entered), atol=1e-6)


def test_the_layer_computes_with_rounded_weights_and_keeps_its_own():
    model = keras.Sequential([keras.Input((5,)), layers.Dense(4, use_bias=False, name="dense")])
    applied = QuantizeAware(activation_bits=16).apply(model)
    x, kernel = np.random.default_rng(0).normal(size=(8, 5)).astype("float32"), np.array(model.get_layer("dense").kernel)
    np.testing.assert_allclose(applied(x), x @ rounded(kernel, 8, (1,)), atol=1e-5)
    np.testing.assert_array_equal(variable_at(applied.get_layer("dense").layer, "kernel"), kernel)
    assert [tuple(w.shape) for w in applied.trainable_weights] == [(5, 4)]


def test_a_frozen_layer_stays_frozen():
    model = sequential()
    model.get_layer("conv3").trainable = False
    applied = QuantizeAware().apply(model)
    before = np.array(model.get_layer("conv3").kernel)
    train(applied, 3)
    np.testing.assert_array_equal(introspection.weight_named(applied.get_layer("conv3"), "kernel"), before)
    assert len(applied.trainable_weights) == len(model.trainable_weights)


def test_the_range_of_an_activation_is_that_of_the_first_batch():
    x, _ = images()
    model = sequential()
    # Small logits, whatever the weights: another order of tests makes others.
    logits = model.get_layer("logits")
    logits.kernel.assign(logits.kernel / (4 * np.abs(logits.kernel).sum(0).max()))
    applied = QuantizeAware().apply(model)
    applied.compile("sgd", "mse")
    applied.train_on_batch(x, np.zeros((len(x), 3)))
    _, low, high = next(r for r in introspection.ranges_of(applied.get_layer("logits")) if r[0] == "output")
    assert -2 < float(low) <= 0 <= float(high) < 2
    assert float(high) - float(low) > 0.01


def test_layers_inside_nested_models_are_trained_by_pattern():
    step = QuantizeAware(layers="encoder/*")
    assert step.plan(opened(nested)).names("done") == ["encoder/conv3", "encoder/relu"]
    applied = train(step.apply(opened(nested)), 3)
    assert set(wrappers(applied)) == {"encoder/conv3", "encoder/relu"}
    step.check(applied)


def test_a_shared_layer_is_one_with_the_ranges_of_each_call():
    inputs = {"left": keras.Input((6,), name="left"), "right": keras.Input((6,), name="right")}
    shared = layers.Dense(4, name="shared")
    made = keras.Model(inputs, layers.Subtract(name="apart")([shared(inputs["left"]), shared(inputs["right"])]))
    applied = QuantizeAware().apply(made)
    assert set(wrappers(applied)) == {"shared", "apart"}
    assert applied.count_params() == made.count_params()
    assert list(applied.get_layer("shared").ranges) == ["output", "output@1"]
    x = {name: np.random.default_rng(i).uniform(-1, 1, (256, 6)).astype("float32") for i, name in enumerate(inputs)}
    applied.compile("sgd", "mse")
    applied.train_on_batch(x, np.zeros((256, 4)))
    names = [layer.name for layer in applied.legacy.layers if introspection.is_input_quantizer(layer)]
    assert names == ["quantize_left", "quantize_right"]
    assert np.abs(np.asarray(applied(x)) - np.asarray(made(x))).mean() < 0.05


def test_indices_are_not_rounded():
    tokens = keras.Input((8,), dtype="int32", name="tokens")
    x = layers.GlobalAveragePooling1D()(layers.Embedding(20, 6, mask_zero=True, name="table")(tokens))
    applied = QuantizeAware().apply(keras.Model(tokens, layers.Dense(2)(x)))
    assert not any(introspection.is_input_quantizer(layer) for layer in applied.legacy.layers)
    assert list(applied.get_layer("table").ranges) == []


def attending():
    inputs = keras.Input((6, 8))
    x = layers.MultiHeadAttention(2, 4, name="attention")(inputs, inputs)
    return keras.Model(inputs, layers.Dense(3, name="logits")(layers.LayerNormalization(name="norm")(x)))


@pytest.fixture(scope="module")
def attended():
    """`attending()`, the same trained quantized for a step, and its batch."""
    model, x = attending(), np.random.default_rng(7).normal(size=(16, 6, 8)).astype("float32")
    applied = QuantizeAware().apply(model)
    applied.compile("sgd", "mse")
    applied.train_on_batch(x, np.zeros((16, 6, 3)))
    return model, applied, x


def test_attention_gives_its_scores_and_every_integer_tensor_inside_has_a_range(attended):
    model, applied, x = attended
    wrapper = applied.get_layer("attention")
    assert list(wrapper.ranges) == ["query", "key", "value", "scaled_query", "scores", "weighted_values", "output"]
    assert [w.path for w in wrapper.quantization.weights] == [f"_{p}_dense.kernel" for p in ("query", "key", "value", "output")]
    tap = Tap("attention", "attention_scores")
    _, taken = Taps(applied, [tap])(x)
    _, expected = Taps(model, [tap])(x)
    np.testing.assert_allclose(taken[tap], expected[tap], atol=0.05)
    assert list(wrapper.ranges)[-1] == "output"


def test_a_saved_model_is_the_same(attended, tmp_path):
    _, applied, x = attended
    applied.save(tmp_path / "a.keras")
    loaded = keras.models.load_model(tmp_path / "a.keras")
    np.testing.assert_array_equal(applied.predict(x, verbose=0), loaded.predict(x, verbose=0))
    QuantizeAware().check(loaded)


# Refusals


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"preserve_sparsity": "yes"}, "'yes'"),
        ({"preserve_clusters": 3}, "preserve_clusters"),
        ({"preserve_clusters": 1}, "'auto', True, False"),
        ({"unroll": 64}, "'auto', True, False"),
        ({"weight_bits": 16}, "float16"),
        ({"weight_bits": 2}, "8 or 4"),
        ({"weight_bits": {"conv*": True}}, "8 or 4"),
        ({"weight_bits": {}}, "names, paths or patterns"),
        ({"weight_bits": {3: 8}}, "names, paths or patterns"),
        ({"activation_bits": 4}, "int16x8"),
        ({"activation_bits": 16, "weight_bits": 4}, "8-bit weights"),
    ],
    ids=str,
)
def test_settings_that_tflite_does_not_have_are_refused(settings, words):
    with pytest.raises(ConfigurationError, match=words):
        QuantizeAware(**settings)


def transposed():
    return keras.Sequential([keras.Input((4, 4, 2)), layers.Conv2DTranspose(4, 3, name="up"), layers.Conv2D(3, 1, name="conv")])


def solid():
    return keras.Sequential([keras.Input((4, 4, 4, 1)), layers.Conv3D(2, 3, name="solid"), layers.Flatten(), layers.Dense(2, name="dense")])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: QuantizeAware(preserve_clusters=True).apply(opened(sequential)), "no kernel that is quantized is clustered"),
        (lambda: QuantizeAware(preserve_sparsity=True).apply(opened(sequential)), "no kernel that is quantized has a zero"),
        (lambda: QuantizeAware(weight_bits={"up": 4, "*": 8}).apply(opened(transposed)), "'up' cannot have weights of 4 bits"),
        (lambda: QuantizeAware(weight_bits={"cnv": 4}).apply(opened(transposed)), "Nearest: 'conv'"),
        (lambda: QuantizeAware(weight_bits={"*": 8, "up": 4}).apply(opened(transposed)), "an earlier selector matches: up"),
        (lambda: QuantizeAware(layers=["solid", "dense"]).apply(opened(solid)), "float only"),
    ],
    ids=["clusters", "zeros", "bits", "misspelt", "hidden", "float only"],
)
def test_impossible_settings_are_refused(call, words):
    with pytest.raises(ModelError, match=words):
        call()


@functools.cache
def looping(layer, steps):
    """Function that makes a model with a recurrent layer, the same function every time."""
    return lambda: keras.Sequential([keras.Input((steps, 2)), layer(2, name="recurrent"), layers.Dense(2)])


# The most steps that are written out unasked: a few, which are converted in a moment, and (slow) as many as they really are.
FEW, REAL = 8, 128
# Layer, steps beyond the most -> what the plan says.
LONG = [
    (layers.GRU, 0, "auto", "done", "{} steps written out in the file"),
    (layers.GRU, 1, "auto", "impossible", "unroll=True writes it out"),
    (layers.GRU, 1, True, "done", "{} steps written out"),
    (layers.LSTM, 1, "auto", "skipped", "calibrated"),
    (functools.partial(layers.LSTM, unroll=True), 1, False, "done", "{} steps written out"),
]


@pytest.mark.parametrize(
    ("layer", "more", "unroll", "action", "words", "most"),
    [*((*row, FEW) for row in LONG), *(pytest.param(*row, REAL, marks=pytest.mark.slow) for row in LONG[:2])],
)
def test_long_recurrent_layers_are_written_out_or_not(layer, more, unroll, action, words, most, monkeypatch):
    assert scheme.MOST_STEPS == REAL
    monkeypatch.setattr(scheme, "MOST_STEPS", most)
    row = QuantizeAware(unroll=unroll).plan(opened(looping(layer, most + more))).row("recurrent")
    assert row.action == action
    assert words.format(most + more) in row.reason


@pytest.mark.parametrize(
    ("layer", "steps", "unroll", "action", "words"),
    [
        (layers.GRU, None, True, "impossible", "fixed length"),
        (layers.GRU, 8, False, "impossible", "unroll=True"),
        (layers.LSTM, 8, "auto", "done", "8 steps written out in the file: about 9 KiB and 1 s of conversion"),
        (layers.LSTM, 8, False, "skipped", "unroll=True writes it out"),
        (functools.partial(layers.LSTM, stateful=False, recurrent_dropout=0.1), 8, False, "impossible", "as a loop"),
    ],
)
def test_recurrent_layers_are_written_out_or_not(layer, steps, unroll, action, words):
    row = QuantizeAware(unroll=unroll).plan(opened(looping(layer, steps))).row("recurrent")
    assert row.action == action
    assert words in row.reason


def test_bits_are_chosen_layer_by_layer():
    plan = QuantizeAware(weight_bits={"conv": 8, "*": 4}).plan(opened(transposed))
    assert plan.row("conv").reason == "weights and output trained quantized"
    assert plan.row("up").reason == "weights and output trained quantized, 8 bits, as TFLite has no 4-bit Conv2DTranspose"
    assert QuantizeAware(weight_bits=4).plan(opened(transposed)).row("conv").reason.endswith("4 bits")
    assert QuantizeAware().plan(opened(solid)).row("solid").action == "impossible"
