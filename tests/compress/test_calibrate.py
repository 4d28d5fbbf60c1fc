"""Quantize: ranges measured on calibration data; what the plan says, what the model computes, and every way it refuses."""

import warnings

import keras
import numpy as np
import pytest

from tfdistill.bridge import to_tf_keras
from tfdistill.bridge.adopt import introspection
from tfdistill.bridge.adopt.layers import named_layers
from tfdistill.bridge.adopt.trained_ranges import quantized_layers
from tfdistill.bridge.integer.recognize import Watched
from tfdistill.compress import Quantize, QuantizeAware
from tfdistill.compress.quantize.clipping import best_range
from tfdistill.errors import ConfigurationError, DataError, InvariantError, ModelError
from tfdistill.tflite.export import export_tflite

L = keras.layers
RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 8, 8, 2)).astype("float32")


def conv_net(activation="relu"):
    keras.utils.set_random_seed(0)
    x = keras.Input((8, 8, 2), name="image")
    h = L.Activation(activation, name="act")(L.BatchNormalization(name="norm")(L.Conv2D(4, 3, use_bias=False, name="conv")(x)))
    return keras.Model(x, L.Dense(3, name="logits")(L.GlobalAveragePooling2D(name="pool")(h)), name="net")


@pytest.fixture(scope="module")
def net():
    return conv_net()


def ranges_of(model):
    return {
        f"{layer.layer.name} {what}": (float(low), float(high))
        for layer in quantized_layers(model.legacy)
        for what, low, high in introspection.ranges_of(layer)
    }


def test_minmax_ranges_are_those_of_the_data(net):
    """Ranges are those of the float net's tensors; all hold 0."""
    found = ranges_of(Quantize(ranges="minmax").apply(net, X))
    assert set(found) == {"act output", "pool output", "logits output"}
    for name, (low, high) in found.items():
        values = np.asarray(keras.Model(net.input, net.get_layer(name.split()[0]).output)(X))
        np.testing.assert_allclose([low, high], [min(values.min(), 0), max(values.max(), 0)], rtol=1e-4, atol=1e-6)


def test_order_and_size_of_batches_do_not_matter(net):
    whole = ranges_of(Quantize(ranges="minmax").apply(net, X))
    turned = ranges_of(Quantize(ranges="minmax").apply(net, (batch for batch in np.split(X[::-1], 4))))
    for name in whole:
        np.testing.assert_allclose(whole[name], turned[name], rtol=0.02, atol=1e-6)


def test_mse_clips_where_the_squared_error_is_least(net):
    x = X**3
    wide, clipped, by_layer = (
        ranges_of(Quantize(ranges=ranges).apply(net, x)) for ranges in ("minmax", "mse", {"act": "mse", "*": "minmax"})
    )
    assert wide["act output"][1] > clipped["act output"][1]
    assert by_layer == {**wide, "act output": clipped["act output"]}


def squared_error(values, low, high):
    """What rounding to 256 steps over a range does to values, computed value by value."""
    step = (high - low) / 255
    zero = np.round(low / step)
    rounded = (np.clip(np.round(values / step), zero, zero + 255)) * step
    return float(np.mean((rounded - values) ** 2))


@pytest.mark.parametrize("shape", ["normal", "laplace", "relu", "swish", "outlier", "uniform", "negative", "few"])
def test_best_range_is_no_worse_than_any_other(shape):
    rng = np.random.default_rng(1)
    normal = rng.normal(size=20_000)
    values = {
        "normal": normal,
        "laplace": rng.laplace(size=20_000),
        "relu": np.maximum(normal, 0),
        "swish": 3 * normal / (1 + np.exp(-3 * normal)),
        "outlier": np.r_[normal, 40.0],
        "uniform": rng.uniform(-1, 1, 20_000),
        "negative": -np.abs(normal),
        "few": np.repeat([-1.0, 0.5, 2.0], 100),
    }[shape]
    low, high = min(values.min(), 0.0), max(values.max(), 0.0)
    counts = np.histogram(values[values != 0], 2048, (low, high))[0]
    found = best_range(counts, low, high)
    others = [
        squared_error(values, a * low, b * high) for a in np.linspace(0.1, 1, 19) for b in np.linspace(0.1, 1, 19) if a * low < b * high
    ]
    assert low <= found.low <= 0 <= found.high <= high
    assert squared_error(values, *found) <= 1.1 * min(others) + 1e-12


@pytest.mark.parametrize("counts", [np.zeros(2048), np.r_[1.0, np.zeros(2047)]])
def test_best_range_of_nothing_is_the_whole(counts):
    assert best_range(counts, 0.0, 0.0) == (0.0, 0.0)
    assert best_range(np.zeros(2048), -1.0, 2.0) == (-1.0, 2.0)


def test_plan_says_the_decisions_of_quantize_aware_and_the_ranges(net):
    plan, aware = Quantize(exclude="logits").plan(net), QuantizeAware(exclude="logits").plan(net)
    assert [(row.name, row.action) for row in plan.rows] == [(row.name, row.action) for row in aware.rows]
    assert {row.name: row.reason for row in plan.rows} == {
        "conv": "weights quantized, bias corrected by the mean of 'norm'",
        "norm": "folded into the layer before it, which is quantized",
        "act": "output quantized, range by minmax",
        "pool": "output quantized, range by minmax",
        "logits": "left out by layers= or exclude=: rounded in the file alone, over the ranges that calibration measures, range by minmax",
    }
    assert "trained" not in str(plan)


@pytest.mark.parametrize(
    ("activation", "ranges", "act", "logits"),
    [
        ("silu", "auto", "mse", "mse"),
        ("gelu", "auto", "mse", "mse"),
        ("relu", "auto", "minmax", "minmax"),
        ("silu", {"act": "minmax"}, "minmax", "mse"),
        ("relu", {"logits": "mse"}, "minmax", "mse"),
    ],
)
def test_auto_is_mse_with_activations_of_long_tails(activation, ranges, act, logits):
    plan = Quantize(ranges=ranges).plan(conv_net(activation))
    assert plan.row("act").reason.endswith(f"range by {act}")
    assert plan.row("logits").reason.endswith(f"range by {logits}, bias corrected")


def test_the_given_model_is_not_changed_and_weights_are_the_same(net):
    before = [np.array(weight) for weight in net.get_weights()]
    made = Quantize().apply(net, X)
    for kept, now in zip(before, net.get_weights(), strict=True):
        np.testing.assert_array_equal(kept, now)
    np.testing.assert_array_equal(made.get_layer("conv").layer.kernel, net.get_layer("conv").kernel)
    Quantize().check(made)
    assert Quantize().strip(made) is made
    expected, got = np.asarray(net(X)), np.asarray(made(X))
    assert 0 < np.abs(got - expected).mean() < 0.02 * np.ptp(expected)


def test_it_trains_on_as_quantization_aware(net):
    made = Quantize().apply(net, X)
    before = ranges_of(made)
    made.compile("sgd", "mse")
    made.fit(X, np.ones((64, 3)), epochs=1, verbose=0)
    after = ranges_of(made)
    assert after != before
    assert all(abs(after[name][1] - before[name][1]) < 0.5 * (before[name][1] + 1) for name in before)


def test_it_is_saved_and_loaded(net, tmp_path):
    made = Quantize(ranges="mse").apply(net, X)
    made.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert ranges_of(loaded) == ranges_of(made)
    np.testing.assert_array_equal(loaded(X), made(X))


def test_what_is_nothing_but_zeros_gets_a_file(tmp_path):
    """As the weights that transformers add to their tokens are, before they are trained."""
    x = keras.Input((6,), name="x")
    h = L.Add(name="sum")([L.Dense(4, name="dense")(x), L.Dense(4, kernel_initializer="zeros", name="zeros")(x)])
    model, data = keras.Model(x, L.Dense(2, name="logits")(h)), RNG.normal(size=(64, 6)).astype("float32")
    assert ranges_of(Quantize(ranges="mse").apply(model, data))["zeros output"] == (0.0, 0.0)
    record = export_tflite(model, tmp_path / "a.tflite", "int8", calibration=data)
    assert record.road == "bridge"
    assert record.verification.outputs["logits"].mean_abs_error < 0.02 * record.verification.outputs["logits"].scale


def test_frozen_layers_are_quantized_as_any():
    model = conv_net()
    free = ranges_of(Quantize().apply(model, X))
    model.trainable = False
    assert ranges_of(Quantize().apply(model, X)) == free


def normalized(mean, variance):
    x = keras.Input((4,), name="x")
    return keras.Model(x, L.Dense(2)(L.Normalization(mean=mean, variance=variance, name="standard")(x)))


def trained_norm():
    x = keras.Input((8, 8, 2), name="image")
    model = keras.Model(x, L.Dense(2)(L.Flatten()(L.BatchNormalization(name="norm", momentum=0.0)(L.Conv2D(4, 3, name="conv")(x)))))
    model(X, training=True)
    return model


def nested_norm():
    return keras.Sequential([keras.Input((8, 8, 2)), trained_norm(), L.Dense(1)])


@pytest.mark.parametrize("build", [trained_norm, nested_norm])
@pytest.mark.parametrize("factor", [255.0, 1 / 255.0])
def test_data_of_another_scale_is_said(build, factor):
    with pytest.warns(
        UserWarning, match=r"another scale(.|\n)*norm' \(BatchNormalization\) gets values from .* and was trained on values from"
    ):
        Quantize().apply(build(), X * factor)


def test_data_of_another_scale_than_a_normalization_is_said():
    x = RNG.normal(size=(32, 4)).astype("float32")
    with pytest.warns(UserWarning, match=r"'standard' \(Normalization\) gets values from .* trained on values from about 97 to 103"):
        Quantize().apply(normalized([100.0] * 4, [1.0] * 4), x)


@pytest.mark.parametrize("build", [trained_norm, nested_norm, conv_net])
@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
def test_data_of_the_scale_of_training_is_not_remarked(build, factor):
    Quantize().apply(build(), X * factor)


def biased(activation="relu"):
    """Every kind of layer that can be corrected: with a bias, by a folded normalization, and one that has neither."""
    keras.utils.set_random_seed(1)
    x = keras.Input((8, 8, 2), name="image")
    h = L.Conv2D(6, 3, activation=activation, bias_initializer="random_normal", name="first")(x)
    h = L.DepthwiseConv2D(3, use_bias=False, name="depthwise")(h)
    h = L.ReLU(name="relu")(L.BatchNormalization(name="norm", momentum=0.0)(h))
    h = L.SeparableConv2D(5, 2, name="separable")(h)
    h = L.Dense(8, use_bias=False, name="bare")(L.Flatten()(h))
    h = L.EinsumDense("ab,bc->ac", 5, bias_axes="c", name="einsum")(h)
    model = keras.Model(x, L.Dense(3, name="logits")(h), name="biased")
    model(X, training=True)
    return model


def sums_of(legacy, name, x=X):
    """What goes into the activation of a layer, as rows of channels."""
    seen, layer = [], introspection.unwrap(named_layers(legacy)[name])
    function = layer.activation
    vars(layer)["activation"] = Watched(function, lambda x: (seen.append(np.asarray(x)), x)[1])
    legacy(x, training=False)
    vars(layer)["activation"] = function
    return seen[0].reshape(-1, seen[0].shape[-1])


def mean_errors(model, quantized):
    """The largest mean error of a channel of each layer's sum, as a share of its spread."""
    found = {}
    for name in ("first", "depthwise", "separable", "einsum", "logits"):
        exact, rounded = (sums_of(legacy, name) for legacy in (to_tf_keras(model), quantized.legacy))
        if name == "depthwise":
            shift = quantized.get_layer("norm").moving_mean - model.get_layer("norm").moving_mean
            rounded = rounded - np.asarray(shift)
        found[name] = float(np.max(np.abs(rounded.mean(0) - exact.mean(0)) / exact.std(0)))
    return found


@pytest.mark.parametrize("weight_bits", [8, 4])
def test_bias_correction_makes_the_mean_of_the_error_zero(weight_bits):
    model = biased()
    before, after = (mean_errors(model, Quantize(weight_bits=weight_bits, bias_correction=on).apply(model, X)) for on in (False, True))
    assert min(before.values()) > 1e-4
    for name in after:
        assert after[name] < 1e-5, (name, before, after)


CORRECTED = ("relu", "relu6", "sigmoid", "tanh", "silu", "gelu", "hard_silu", "hard_sigmoid", "mish", "softmax")


@pytest.mark.parametrize(("activation", "channels"), [(name, n) for name in CORRECTED for n in (1, 5, 48) if (name, n) != ("softmax", 1)])
def test_bias_correction_reaches_layers_of_every_activation(activation, channels):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((7,)), L.Dense(channels, activation=activation, name="first"), L.Dense(3, name="second")])
    x = np.random.default_rng(1).normal(size=(64, 7)).astype("float32")
    quantized = Quantize(weight_bits=4).apply(model, x)
    exact, rounded = (sums_of(legacy, "first", x) for legacy in (to_tf_keras(model), quantized.legacy))
    assert np.abs(rounded.mean(0) - exact.mean(0)).max() < 1e-5
    assert np.abs(np.asarray(quantized.get_layer("first").layer.bias)).max() < 0.2


def test_bias_correction_leaves_what_runs_several_times():
    keras.utils.set_random_seed(0)
    one, two = keras.Input((7,)), keras.Input((7,))
    body = keras.Sequential([keras.Input((7,)), L.Dense(5, activation="relu", name="inner")], name="body")
    model = keras.Model([one, two], L.Dense(3, name="head")(L.Concatenate()([body(one), body(two)])))
    rng = np.random.default_rng(1)
    x = [rng.normal(-2.0, 1.0, (64, 7)).astype("float32"), rng.normal(2.0, 1.0, (64, 7)).astype("float32")]
    quantize = Quantize()
    plan = quantize.plan(model)
    assert [row.name for row in plan.rows if "bias corrected" in row.reason] == ["head"]
    np.testing.assert_array_equal(named_layers(quantize.apply(model, x).legacy)["body/inner"].layer.bias, np.zeros(5))


def test_bias_correction_lowers_the_error_of_coarse_weights():
    model = biased("silu")
    expected = np.asarray(model(X))
    wrong, right = (Quantize(weight_bits=4, bias_correction=on).apply(model, X)(X) for on in (False, True))
    assert np.abs(right - expected).mean() < np.abs(wrong - expected).mean()


def test_biases_that_a_few_far_samples_decide_are_not_corrected():
    keras.utils.set_random_seed(0)
    inputs = x = keras.Input((16,))
    for number in range(4):
        x = L.Dense(32, "silu", kernel_initializer="he_normal", name=f"dense_{number}")(x)
    model = keras.Model(inputs, L.Dense(3, "softmax", name="classes")(x))
    samples = np.random.default_rng(0).normal(size=(64, 16)).astype("float32")
    samples[:2] = 100 * np.abs(samples[:2])
    with pytest.warns(UserWarning, match=r"would have raised the mean error .* from 1\d\.\d% to 1\d\.\d%") as said:
        left = Quantize(ranges="mse").apply(model, samples)
    assert any("Quantize(bias_correction=False)" in str(warning.message) for warning in said)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        without = Quantize(ranges="mse", bias_correction=False).apply(model, samples)
    np.testing.assert_array_equal(left(samples), without(samples))


def test_the_plan_says_which_biases_are_corrected():
    plan = Quantize().plan(biased())
    assert plan.row("first").reason.endswith(", bias corrected")
    assert plan.row("depthwise").reason.endswith(", bias corrected by the mean of 'norm'")
    assert "bias" not in plan.row("bare").reason + plan.row("relu").reason
    assert "bias" not in str(Quantize(bias_correction=False).plan(biased()).table())


NAN = np.where(np.arange(64)[:, None, None, None] == 3, np.nan, X)
BAD_DATA = [
    (None, "got no calibration data(.|\n)*apply\\(model, calibration=samples\\)"),
    (X[:15], "holds 15 samples(.|\n)*at least 16"),
    (NAN, "'image' of the calibration data is NaN or infinite in 1 of 64"),
    (np.full_like(X, 0.5), "All 64 samples of the calibration data are equal: 'image' from 0.5 to 0.5"),
    (np.repeat(X[:1], 20, 0), "All 20 samples"),
    (X[..., :1], "has the shape"),
    ({"picture": X}, "no input 'image'"),
]


@pytest.mark.parametrize(("data", "match"), BAD_DATA)
def test_bad_data(net, data, match):
    with pytest.raises(DataError, match=match):
        Quantize().apply(net, data)


BAD_SETTINGS = [
    ({"ranges": "mae"}, "ranges='mae' is unknown(.|\n)*'mse'"),
    ({"ranges": {"conv": "min"}}, "ranges='min' is unknown"),
    ({"ranges": {}}, "ranges={}"),
    ({"ranges": None}, "ranges=None is unknown"),
    ({"weight_bits": 5}, "weight_bits=5"),
    ({"unroll": "yes"}, "unroll='yes'"),
    ({"bias_correction": 1}, "bias_correction=1 is a"),
    ({"per_channel_dense": "no"}, "per_channel_dense='no' is a"),
    ({"layers": 3}, "layers=3 selects no layers"),
]


@pytest.mark.parametrize(("settings", "match"), BAD_SETTINGS)
def test_bad_settings(settings, match):
    with pytest.raises(ConfigurationError, match=match):
        Quantize(**settings)


BAD_NAMES = [
    ({"layers": "cnov"}, "'cnov'(.|\n)*'conv'"),
    ({"exclude": "logit"}, "'logit'(.|\n)*'logits'"),
    ({"ranges": {"pol": "mse"}}, "'pol'(.|\n)*'pool'"),
    ({"weight_bits": {"norm*x": 4}}, "norm\\*x"),
]


@pytest.mark.parametrize(("settings", "match"), BAD_NAMES)
def test_a_name_of_no_layer(net, settings, match):
    step = Quantize(**settings)
    for call in (step.plan, lambda model: step.apply(model, X)):
        with pytest.raises(ModelError, match=match):
            call(net)


def test_models_without_quantizers_are_no_result(net):
    with pytest.raises(InvariantError, match="holds no quantizers"):
        Quantize().check(net)
    with pytest.raises(ModelError, match="is not quantized"):
        Quantize().strip(net)
