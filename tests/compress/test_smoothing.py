"""SmoothQuant: channels are scaled by what an independent formula gives, nothing changes in float, and a model with outlier channels loses less by rounding."""

import keras
import numpy as np
import pytest

from tfdistill.bridge.adopt.adopt import adopt
from tfdistill.bridge.adopt.trained_ranges import quantized_layers
from tfdistill.compress import Quantize, rebuild
from tfdistill.compress.quantize.build import build
from tfdistill.compress.quantize.consumers import places
from tfdistill.compress.quantize.scheme import layer_quantizations
from tfdistill.compress.quantize.smoothing import scales, smooth_channels, smoothable
from tfdistill.convert.samples import collect
from tfdistill.convert.signature import describe
from tfdistill.errors import ConfigurationError, ModelError
from tfdistill.tflite import Tolerances, export_tflite

L = keras.layers
STEPS, WIDTH = 6, 16
X = np.random.default_rng(0).normal(size=(48, STEPS, WIDTH)).astype("float32")
OUTLIERS = [2, 9]


def planted(model, *names):
    """Makes two channels of these normalizations sixty times larger, as they are in large transformers, and the rows that read them smaller."""
    for name in names:
        layer = model.get_layer(name)
        gamma = layer.gamma if hasattr(layer, "gamma") else layer.scale
        values = np.random.default_rng(3).uniform(0.5, 1.5, WIDTH)
        values[OUTLIERS] *= 60
        gamma.assign(values)
    for layer in model.layers:
        for weight in layer.weights if isinstance(layer, (L.Dense, L.MultiHeadAttention)) else ():
            if weight.name == "kernel" and weight.shape[0] == WIDTH:
                value = np.array(weight)
                value[OUTLIERS] /= 20
                weight.assign(value)
    return model


def encoder(normalization=L.LayerNormalization):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((STEPS, WIDTH))
    n = normalization(name="first")(inputs)
    x = L.Add()([inputs, L.MultiHeadAttention(2, 4, name="attention")(n, n)])
    n = L.Dropout(0.1)(normalization(name="second")(x))
    x = L.Dense(12, "relu", name="wide")(n)
    x = L.Dense(8, name="narrow")(x)
    return planted(keras.Model(inputs, L.GlobalAveragePooling1D()(x), name="encoder"), "first", "second")


def found_in(model, **settings):
    opened = rebuild.open_model(model)
    decided = Quantize(smooth=0.5, **settings)._decide(opened)[0]
    return smoothable(places(opened.legacy), decided)


def test_which_layers_are_smoothed():
    assert found_in(encoder()) == {"first": ("attention",), "second": ("wide",), "wide": ("narrow",)}


def several_readers(last=None):
    inputs = keras.Input((STEPS, WIDTH))
    n = L.LayerNormalization(name="norm")(inputs)
    ends = [L.Dense(4, name="a")(n), L.Dense(4, name="b")(n)]
    return keras.Model(inputs, [*ends, *([last(n)] if last else [])])


def one(*stack):
    return keras.Sequential([keras.Input((STEPS, WIDTH)), *stack])


def shared():
    inputs = keras.Input((STEPS, WIDTH))
    dense, norm = L.Dense(WIDTH, name="dense"), L.LayerNormalization(name="norm")
    return keras.Model(inputs, dense(norm(dense(inputs))))


def crossed():
    inputs, other = keras.Input((STEPS, WIDTH)), keras.Input((STEPS, WIDTH))
    return keras.Model([inputs, other], L.MultiHeadAttention(2, 4)(L.LayerNormalization(name="norm")(inputs), other))


# Model -> the layers that are smoothed, and into which.
FOUND = {
    "two readers": (several_readers, {"norm": ("a", "b")}),
    "a reader that has no rows": (lambda: several_readers(L.Softmax()), {}),
    "the model's output": (lambda: several_readers(L.Identity()), {}),
    "without gamma": (lambda: one(L.LayerNormalization(scale=False), L.Dense(4, name="a")), {}),
    "over steps": (lambda: one(L.LayerNormalization(axis=1), L.Dense(4, name="a")), {}),
    "without beta": (lambda: one(L.LayerNormalization(center=False, name="norm"), L.Dense(4, name="a")), {"norm": ("a",)}),
    "RMS": (lambda: one(L.RMSNormalization(name="norm"), L.Dense(4, name="a")), {"norm": ("a",)}),
    "dense of tanh": (lambda: one(L.Dense(8, "tanh"), L.Dense(4)), {}),
    "dense of relu": (lambda: one(L.Dense(8, "relu", name="a"), L.Dense(4, name="b")), {"a": ("b",)}),
    "called twice": (shared, {}),
    "attention to something else": (crossed, {}),
}


@pytest.mark.parametrize("name", FOUND)
def test_layers_are_smoothed_where_kernels_alone_read_them(name):
    model, expected = FOUND[name]
    assert found_in(model()) == expected


def test_layers_that_are_left_out_keep_their_weights():
    assert found_in(encoder(), exclude="wide") == {"first": ("attention",)}


def in_float(model, strength):
    """Returns the quantized model without any rounding, smoothed, with the numbers of its channels."""
    opened = rebuild.open_model(model)
    decided = Quantize(smooth=strength)._decide(opened)[0]
    made = adopt(build(opened, layer_quantizations(places(opened.legacy), set(), {}), quantize_inputs=False), name="made")
    signature = describe(model)
    samples = collect(X, signature, "calibration")
    return made, smooth_channels(made, opened.legacy, signature, samples, smoothable(places(opened.legacy), decided), strength)


@pytest.mark.parametrize("normalization", [L.LayerNormalization, L.RMSNormalization])
@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_nothing_changes_in_float(normalization, strength):
    model = encoder(normalization)
    made, divided = in_float(model, strength)
    assert all(np.ptp(values) > 0 for values in divided.values())
    expected = np.asarray(model(X))
    np.testing.assert_allclose(np.asarray(made(X)), expected, atol=1e-5 * np.abs(expected).max())


def test_the_scales_are_those_of_the_paper():
    model = encoder()
    _, divided = in_float(model, 0.5)
    outputs = np.asarray(keras.Model(model.input, model.get_layer("second").output)(X))
    kernel = np.asarray(model.get_layer("wide").kernel)
    expected = np.sqrt(np.abs(outputs).max((0, 1))) / np.sqrt(np.abs(kernel).max(1))
    np.testing.assert_allclose(divided["second"], expected, rtol=1e-4)
    attention = model.get_layer("attention")
    normal = np.asarray(keras.Model(model.input, model.get_layer("first").output)(X))
    rows = np.max(
        [np.abs(np.asarray(dense.kernel)).max((1, 2)) for dense in (attention.query_dense, attention.key_dense, attention.value_dense)], 0
    )
    np.testing.assert_allclose(divided["first"], np.sqrt(np.abs(normal).max((0, 1)) / rows), rtol=1e-4)


@pytest.mark.parametrize(
    ("activations", "weights", "strength", "expected"),
    [([16, 1], [1, 4], 0.5, [4, 0.5]), ([16, 1], [1, 4], 1.0, [16, 1]), ([16, 1], [1, 4], 0.0, [1, 0.25]), ([0, 3], [2, 0], 0.5, [1, 1])],
)
def test_scales(activations, weights, strength, expected):
    np.testing.assert_allclose(scales(activations, weights, strength), expected, rtol=1e-6)


@pytest.fixture(scope="module")
def errors():
    """Mean error of the quantized encoder by its settings, and the models."""
    model = encoder()
    expected, found = np.asarray(model(X)), {}
    for name, settings in {
        "plain": {"bias_correction": False},
        "smooth": {"smooth": 0.5, "bias_correction": False},
        "both": {"smooth": 0.5},
    }.items():
        made = Quantize(ranges="minmax", **settings).apply(model, X)
        found[name] = (np.abs(np.asarray(made(X)) - expected).mean() / np.ptp(expected), made)
    return found


@pytest.mark.slow
def test_outlier_channels_cost_less(errors):
    assert errors["smooth"][0] < 0.5 * errors["plain"][0]
    assert errors["both"][0] < 0.5 * errors["plain"][0]


@pytest.mark.slow
def test_the_file_of_a_smoothed_model(errors, tmp_path):
    made = errors["smooth"][1]
    record = export_tflite(made, tmp_path / "smooth.tflite", "int8", verify_on=X, tolerances=Tolerances(max_relative_mean_error=0.01))
    assert not record.census.stray_floats()
    Quantize().check(made)
    assert len(quantized_layers(made.legacy)) == len(quantized_layers(errors["plain"][1].legacy))


def test_the_plan_says_what_is_smoothed():
    plan = Quantize(smooth=0.5).plan(encoder(), dry_run=False)
    assert "smoothed into 'attention'" in plan.row("first").reason
    assert "smoothed into 'narrow'" in plan.row("wide").reason
    assert "smoothed" not in plan.row("narrow").reason
    assert "smoothed" not in str(Quantize().plan(encoder(), dry_run=False))


@pytest.mark.parametrize("value", [-0.1, 1.1, True, "0.5", float("nan")])
def test_bad_strengths(value):
    with pytest.raises(ConfigurationError, match=r"smooth(.|\n)*0"):
        Quantize(smooth=value)


def test_a_model_in_which_nothing_can_be_smoothed():
    model = one(L.Dense(4, "tanh", name="a"), L.Dense(2, name="b"))
    with pytest.raises(ModelError, match=r"smooth=0.5(.|\n)*leave smooth= out"):
        Quantize(smooth=0.5).apply(model, X)
    Quantize().apply(model, X)  # what the error advises
