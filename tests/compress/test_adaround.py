"""Learned rounding as a setting of Quantize: what it improves, what the file holds, which layers it takes, and every way it refuses."""

import functools

import keras
import numpy as np
import pytest

from tfdistill.bridge.adopt import introspection
from tfdistill.bridge.adopt.layers import named_layers
from tfdistill.bridge.adopt.trained_ranges import quantized_layers
from tfdistill.bridge.wrappers.base import variable_at
from tfdistill.compress import AdaRound, Cluster, Quantize, RoundingRecord, rebuild, rounding_of
from tfdistill.compress.quantize import consumers
from tfdistill.compress.rounding import calls, learn, units
from tfdistill.compress.rounding.units import units_of
from tfdistill.errors import ConfigurationError, ModelError
from tfdistill.tflite import export_tflite
from tfdistill.tflite.inspection.weights import integer_weights

L = keras.layers
RNG = np.random.default_rng(0)
X = RNG.normal(size=(96, 8, 8, 2)).astype("float32")
ROWS = RNG.normal(size=(96, 6, 8)).astype("float32")
QUICK = AdaRound(steps=80)
FOUR = Quantize(weight_bits=4, rounding=QUICK)


def randomized(model, seed=0):
    """Gives normalizations the statistics of a trained net, one factor below 0 among them, and biases."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, L.BatchNormalization):
            channels = layer.gamma.shape[0]
            gamma = rng.uniform(0.5, 1.5, channels)
            gamma[0] = -0.7
            layer.set_weights([gamma, rng.normal(size=channels), rng.normal(size=channels), rng.uniform(0.5, 2.0, channels)])
        elif getattr(layer, "bias", None) is not None:
            layer.bias.assign(0.3 * rng.normal(size=layer.bias.shape))
    return model


def net():
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((8, 8, 2), name="image")
    x = L.ReLU(name="relu")(L.BatchNormalization(name="norm")(L.Conv2D(6, 3, use_bias=False, name="conv")(x)))
    x = L.BatchNormalization(name="norm2")(L.DepthwiseConv2D(3, use_bias=False, name="depthwise")(x))
    x = L.SeparableConv2D(5, 3, activation="relu", name="separable")(x)
    return randomized(keras.Model(inputs, L.Dense(3, name="logits")(L.Flatten(name="flat")(x)), name="net"))


@functools.cache
def learned():
    """The net, and what was made of it."""
    model = net()
    return model, FOUR.apply(model, X)


def error(model, made, x=X):
    """Mean squared error of the outputs, as a share of the variance of each."""
    exact = np.asarray(model(x), "float64")
    return float(np.mean((np.asarray(made(x)) - exact) ** 2) / np.var(exact, 0).mean())


def steps_of(made, name, weight="kernel", axes=()):
    """The whole numbers of a rounded weight, of which the largest of each channel is the last step."""
    value = np.asarray(variable_at(introspection.unwrap(named_layers(made.legacy)[name]), weight), "float64")
    scale = np.abs(value).max(tuple(axis for axis in range(value.ndim) if axis not in axes), keepdims=True) / 7
    assert np.abs(value / scale - np.round(value / scale)).max() < 1e-4
    return np.round(value / scale).astype("int32")


def require_in_file(path, expected):
    """Checks that a file has these 4-bit tensors, whatever their order, and no others.

    Args:
        path: The file.
        expected: List of integer arrays in the file's layout.
    """
    found = [weights.values for weights in integer_weights(path) if weights.bits == 4]
    assert len(found) == len(expected)
    for steps in expected:
        alike = [values for values in found if values.shape == steps.shape and np.array_equal(values, steps)]
        assert alike, f"no tensor of the file has the {steps.shape} steps"


def in_layout(made):
    """The steps of the layers of `net` as a file has them: a folded factor below 0 turns the signs of its channel."""
    model = learned()[0]
    signs = {name: np.sign(np.asarray(model.get_layer(name).gamma)).astype("int32") for name in ("norm", "norm2")}
    depthwise = steps_of(made, "depthwise", "depthwise_kernel", (2, 3))[..., 0] * signs["norm2"]
    return [
        np.moveaxis(steps_of(made, "conv", axes=(3,)) * signs["norm"], 3, 0),
        depthwise[None],
        steps_of(made, "separable", "depthwise_kernel", (2, 3))[..., 0][None],
        np.moveaxis(steps_of(made, "separable", "pointwise_kernel", (3,)), 3, 0),
        steps_of(made, "logits").T,
    ]


def test_learned_rounding_makes_less_error_than_the_nearest():
    model, made = learned()
    nearest = Quantize(weight_bits=4).apply(model, X)
    fresh = np.random.default_rng(9).normal(size=X.shape).astype("float32")
    assert error(model, made) < 0.85 * error(model, nearest)
    assert error(model, made, fresh) < 0.8 * error(model, nearest, fresh)


def test_no_layer_is_worse_than_with_the_nearest_steps():
    _, made = learned()
    record = rounding_of(made)
    assert [row.name for row in record.layers] == ["conv", "depthwise", "separable", "logits"]
    assert record.samples == len(X)
    for row in record.layers:
        assert row.error <= row.nearest_error
        assert row.bits == 4
        assert not row.learned or 0 < row.moved < 0.6
    assert sum(row.learned for row in record.layers) >= 2
    assert [row.weights for row in record.layers] == [108, 54, 84, 60]


def test_the_file_has_the_learned_steps(tmp_path):
    _, made = learned()
    path = export_tflite(made, tmp_path / "m.tflite", "int8", verify_on=X).path
    expected = in_layout(made)
    require_in_file(path, expected)
    for number, steps in enumerate(expected):  # the comparison fails on purpose
        wrong = steps.copy()
        wrong.flat[0] += 1
        with pytest.raises(AssertionError, match="no tensor of the file"):
            require_in_file(path, [*expected[:number], wrong, *expected[number + 1 :]])


@pytest.mark.slow
def test_one_seed_gives_one_model_and_the_user_s_stays_as_it_was():
    model, made = learned()
    before = [np.array(weight) for weight in model.weights]
    again = FOUR.apply(model, X)
    for one, other in zip(made.weights, again.weights, strict=True):
        np.testing.assert_array_equal(one, other)
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(weight, value)


@pytest.mark.slow
def test_what_does_not_fit_into_memory_is_computed_again(monkeypatch):
    model, made = learned()
    monkeypatch.setattr(calls, "_WAITING_BYTES", 0)
    again = FOUR.apply(model, X)
    for one, other in zip(made.weights, again.weights, strict=True):
        np.testing.assert_array_equal(one, other)
    monkeypatch.setattr(calls, "_LARGEST_BYTES", 4 * 40 * 6 * 6 * 6)
    assert rounding_of(Quantize(weight_bits=4, rounding=AdaRound(steps=1)).apply(model, X)).samples == 40


# Layers


def small(*layers, shape=(8,)):
    keras.utils.set_random_seed(1)
    x = inputs = keras.Input(shape)
    for layer in layers:
        x = layer(x)
    return randomized(keras.Model(inputs, x, name="small"))


def attention():
    x = inputs = keras.Input((6, 8))
    x = L.MultiHeadAttention(2, 4, name="attention")(x, x)
    return keras.Model(inputs, L.EinsumDense("abc,cd->abd", (None, 3), bias_axes="d", name="einsum")(x))


def shared():
    """A dense layer that reads itself."""
    inputs, dense = keras.Input((8,)), L.Dense(8, "relu", name="shared")
    return keras.Model(inputs, L.Dense(3, name="head")(dense(dense(inputs))))


def nested_twice():
    body = keras.Sequential([keras.Input((8,)), L.Dense(6, use_bias=False, name="inner"), L.BatchNormalization(), L.ReLU()], name="body")
    inputs = keras.Input((6, 8))
    return keras.Model(inputs, L.Dense(3, name="head")(L.Concatenate()([body(inputs[:, 0]), body(inputs[:, 1])])))


def masked():
    inputs = keras.Input((6,), dtype="int32")
    x = L.Embedding(10, 8, mask_zero=True, name="words")(inputs)
    x = L.MultiHeadAttention(2, 4, name="attention")(x, x)
    return keras.Model(inputs, L.Dense(3, name="head")(L.GlobalAveragePooling1D()(x)))


WORDS = np.where(np.arange(6) < np.random.default_rng(2).integers(2, 7, (96, 1)), np.random.default_rng(3).integers(1, 10, (96, 6)), 0)
MODELS = {
    "attention": (attention, ROWS, ["attention", "einsum"]),
    "a shared layer": (shared, ROWS[:, 0], ["shared", "head"]),
    "a nested model that is called twice": (nested_twice, ROWS, ["body/inner", "head"]),
    "a mask": (masked, WORDS.astype("int32"), ["attention", "head"]),
    "softmax": (lambda: small(L.Dense(5, "silu", name="one"), L.Dense(4, "softmax", name="two")), ROWS[:, 0], ["one", "two"]),
    "images of one size": (
        lambda: keras.Sequential([keras.Input(batch_shape=(4, 8, 8, 2)), L.Conv2D(4, 3, strides=2, padding="same", name="conv")]),
        X,
        ["conv"],
    ),
}


SLOW = ("a mask", "attention", "softmax")


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in MODELS])
def test_every_kind_of_layer_learns(name):
    build, x, layers = MODELS[name]
    keras.utils.set_random_seed(0)
    model = build()
    step = Quantize(weight_bits=4, rounding=AdaRound(steps=60), bias_correction=False)
    told = {row.name for row in step.plan(model, dry_run=False).rows if "rounding learned" in row.reason}
    assert told == set(layers)
    record = rounding_of(step.apply(model, x))
    assert {row.name for row in record.layers} == set(layers)
    assert any(row.learned for row in record.layers)
    assert all(row.error <= row.nearest_error for row in record.layers)


def residual(turned=False, projected=False):
    """Two layers, a sum with what they read, and a head; the sum may have its operands in the other order, or a layer on the way past."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8,))
    skip = L.Dense(12, name="stem")(inputs)
    branch = L.Dense(12, name="last")(L.Dense(16, "relu", name="wide")(skip))
    skip = L.Dense(12, name="past")(skip) if projected else skip
    x = L.ReLU(name="relu")(L.Add(name="sum")([skip, branch] if turned else [branch, skip]))
    return keras.Model(inputs, L.Dense(3, name="head")(x))


TAILS = {
    "in one order": ({}, {"stem": [], "wide": [], "last": [("sum", "stem", False), ("relu", None, False)], "head": []}),
    "turned": ({"turned": True}, {"stem": [], "wide": [], "last": [("sum", "stem", True), ("relu", None, False)], "head": []}),
    # Which of the two branches runs first is not known.
    "projected": ({"projected": True}, {name: [] for name in ("stem", "wide", "last", "past", "head")}),
}


@pytest.mark.parametrize("name", TAILS)
def test_the_end_of_a_residual_block_is_compared_after_the_sum(name):
    settings, expected = TAILS[name]
    opened = rebuild.open_model(residual(**settings))
    decided, _, _ = FOUR._decide(opened)
    found = units_of(consumers.places(opened.legacy), decided, set(opened.layers), 4)
    assert {path: [tuple(behind) for behind in unit.tail] for path, unit in found.items()} == expected


def test_a_branch_makes_up_for_what_the_skip_connection_brings(monkeypatch):
    model, x = residual(), ROWS[:, 0]
    step = Quantize(weight_bits=4, rounding=AdaRound(steps=150), bias_correction=False, exclude="head")
    with_sums = error(model, step.apply(model, x), x)
    monkeypatch.setattr(units, "_SUM", "no class")
    assert with_sums < 0.9 * error(model, step.apply(model, x), x)


def test_zeros_stay_and_clusters_are_left_at_the_nearest():
    model = small(L.Dense(16, "relu", name="sparse"), L.Dense(12, "relu", name="clustered"), L.Dense(3, name="logits"))
    kernel = np.array(model.get_layer("sparse").kernel)
    kernel[RNG.random(kernel.shape) < 0.5] = 0.0
    model.get_layer("sparse").kernel.assign(kernel)
    cluster = Cluster(6, layers="clustered")
    model = cluster.strip(cluster.apply(model))
    plan = FOUR.plan(model, dry_run=False)
    assert "rounding learned" in plan.row("sparse").reason
    assert "rounded to nearest, as clusters would not stay" in plan.row("clustered").reason
    made = FOUR.apply(model, ROWS[:, 0])
    assert [row.name for row in rounding_of(made).layers] == ["sparse", "logits"]
    assert np.all(steps_of(made, "sparse")[kernel == 0] == 0)
    FOUR.check(made)


def test_bits_and_names_choose_the_layers():
    model = net()
    bits = {"logits": 8, "*": 4}
    for rounding, expected in (
        (QUICK, {"conv", "depthwise", "separable"}),
        ({"*": QUICK}, {"conv", "depthwise", "separable", "logits"}),
        ({"conv": "nearest", "*": "adaround"}, {"depthwise", "separable", "logits"}),
        ({"logits": "adaround"}, {"logits"}),
        ("nearest", set()),
    ):
        plan = Quantize(weight_bits=bits, rounding=rounding).plan(model, dry_run=False)
        assert {row.name for row in plan.rows if "rounding learned" in row.reason} == expected, rounding
    plan = Quantize(weight_bits=bits, rounding="adaround", exclude="conv").plan(model, dry_run=False)
    assert {row.name for row in plan.rows if "rounding learned" in row.reason} == {"depthwise", "separable"}


def test_weights_of_eight_bits_learn_where_they_are_named():
    model = small(L.Dense(5, "relu", name="one"), L.Dense(4, name="two"))
    made = Quantize(rounding={"one": QUICK}).apply(model, ROWS[:, 0])
    assert [(row.name, row.bits) for row in rounding_of(made).layers] == [("one", 8)]


# What goes wrong


def test_where_learning_fails_the_nearest_steps_are_kept(monkeypatch):
    model = small(L.Dense(5, "relu", name="one"))
    rng = np.random.default_rng(0)
    monkeypatch.setattr(
        learn.Rounding,
        "_descend",
        lambda self, *_: {path: rng.integers(0, 2, grid.part.shape).astype("float32") for path, grid in self._grids.items()},
    )
    step = Quantize(weight_bits=4, rounding=AdaRound(scales="max"), bias_correction=False)
    made = step.apply(model, ROWS[:, 0])
    (row,) = rounding_of(made).layers
    assert (row.learned, row.moved, row.error) == (False, 0.0, row.nearest_error)
    kernel = np.asarray(model.get_layer("one").kernel)
    np.testing.assert_array_equal(steps_of(made, "one"), np.round(kernel / (np.abs(kernel).max() / 7)))


@pytest.mark.slow
def test_an_interruption_leaves_no_trace(monkeypatch):
    model, made = learned()
    before = [np.array(weight) for weight in model.weights]
    count = 0

    def interrupted(share):
        nonlocal count
        count += 1
        if count > 100:  # amid the second layer
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(learn, "beta_at", interrupted)
        with pytest.raises(KeyboardInterrupt):
            FOUR.apply(model, X)
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(weight, value)
    np.testing.assert_array_equal(FOUR.apply(model, X)(X), made(X))


def test_dead_layers_are_left_alone():
    model = small(L.Dense(5, "relu", name="dead"), L.Dense(3, name="head"))
    model.get_layer("dead").bias.assign(np.full(5, -1e3))
    made = FOUR.apply(model, ROWS[:, 0])
    assert [(row.learned, row.error) for row in rounding_of(made).layers if row.name == "dead"] == [(False, 0.0)]


@pytest.mark.slow
def test_training_goes_on_from_learned_rounding():
    model = small(L.Dense(5, "relu", name="one"), L.Dense(3, name="two"))
    made = FOUR.apply(model, ROWS[:, 0])
    before = np.array(named_layers(made.legacy)["one"].layer.kernel)
    made.compile("adam", "mse")
    made.fit(ROWS[:, 0], np.zeros((96, 3)), verbose=0)
    assert np.abs(np.asarray(named_layers(made.legacy)["one"].layer.kernel) - before).max() > 1e-4
    assert {weight.bits for layer in quantized_layers(made.legacy) for weight in layer.quantization.weights} == {4}


@pytest.mark.slow
def test_other_settings_go_with_it():
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((6, 8))
    x = L.Dense(8, name="wide")(L.LayerNormalization(name="norm")(x))
    model = keras.Model(inputs, L.Dense(3, name="head")(x))
    made = Quantize(weight_bits=4, rounding=QUICK, smooth=0.5, ranges="mse").apply(model, ROWS)
    plain = Quantize(weight_bits=4, smooth=0.5, ranges="mse").apply(model, ROWS)
    assert error(model, made, ROWS) < error(model, plain, ROWS)


def with_a_written_batch():
    inputs = keras.Input(batch_shape=(4, 8))
    return keras.Model(inputs, L.Dense(3, name="head")(keras.ops.reshape(L.Dense(6)(inputs), (4, 6))))


REFUSED = [
    ({"rounding": "up"}, "rounding='up'"),
    ({"rounding": {}}, "rounding={}"),
    ({"rounding": {"*": 4}}, "rounding={'\\*': 4}"),
    ({"rounding": AdaRound}, "give AdaRound\\(...\\), not the class"),
]


@pytest.mark.parametrize(("settings", "message"), REFUSED)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ConfigurationError, match=message):
        Quantize(weight_bits=4, **settings)


@pytest.mark.parametrize("settings", [{"steps": 0}, {"steps": 2.5}, {"scales": "l2"}, {"seed": -1}, {"seed": True}], ids=str)
def test_wrong_settings_of_adaround_are_refused(settings):
    with pytest.raises(ConfigurationError, match=next(iter(settings))):
        AdaRound(**settings)


REFUSING = {
    "eight bits": (lambda: Quantize(rounding="adaround"), net, X, "give weight_bits=4"),
    "no kernel": (lambda: Quantize(rounding={"relu": "adaround"}), net, X, "leave out rounding="),
    "no kernel in one of them": (lambda: Quantize(rounding={"relu": "adaround", "conv": QUICK}), net, X, "leave 'relu' out of rounding="),
    "a batch of fixed size": (lambda: FOUR, with_a_written_batch, ROWS[:, 0], "keras.Input\\(shape\\)"),
    "a name that is not there": (lambda: Quantize(rounding={"cnov": "adaround"}), net, X, "conv"),
}


@pytest.mark.parametrize("name", REFUSING)
def test_what_cannot_be_learned_is_refused(name):
    step, build, x, message = REFUSING[name]
    with pytest.raises(ModelError, match=message):
        step().apply(build(), x)


def test_the_record_is_of_this_process():
    model, made = learned()
    assert "conv" in str(rounding_of(made))
    for other, named in ((model, "'net'"), ("model.keras", "a str")):
        with pytest.raises(ModelError, match=f"no record of learned rounding for {named}"):
            rounding_of(other)


def test_the_record_is_saved_and_read(tmp_path):
    record = rounding_of(learned()[1])
    record.save(tmp_path / "rounding.json")
    assert RoundingRecord.load(tmp_path / "rounding.json") == record
