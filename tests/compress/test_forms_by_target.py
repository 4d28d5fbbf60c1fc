"""The plan says which operations each layer becomes and which of them the target does not run fast; layers are written in operations that it runs fast."""

import collections
import contextlib
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfdistill import load_model
from tfdistill.bridge.adopt.trained_ranges import quantized_layers
from tfdistill.bridge.integer.activations import GELU_OF_PRODUCTS, QUICK_GELU, REPLACEMENTS
from tfdistill.bridge.integer.recognize import name_of
from tfdistill.bridge.integer.rounding import ActivationRounder
from tfdistill.compress import Plan, Quantize, QuantizeAware
from tfdistill.convert.layer_operations import layers_in
from tfdistill.errors import ConfigurationError
from tfdistill.runtime.delegated import delegation
from tfdistill.runtime.interpreter import open_file
from tfdistill.runtime.operations import TARGETS, operation_table
from tfdistill.tflite import Tolerances, census, export_tflite

L = keras.layers
X = np.random.default_rng(0).normal(size=(32, 8, 8, 3)).astype("float32")


def mixed_net():
    """One layer of each kind that targets differ about."""
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3), name="image")
    x = L.Conv2D(4, 3, strides=2, padding="same", use_bias=False, name="conv")(image)
    x = L.ReLU(name="relu")(L.BatchNormalization(name="norm")(x))
    x = L.Activation("hard_silu", name="hard")(L.DepthwiseConv2D(3, padding="same", name="depthwise")(x))
    x = L.LayerNormalization(name="standard")(L.Reshape((16, 4), name="tokens")(x))
    x = L.Add(name="residual")([x, L.MultiHeadAttention(2, 2, name="attention")(x, x)])
    x = L.GlobalAveragePooling1D(name="mean")(L.Dense(6, "gelu", name="wide")(x))
    return keras.Model(image, L.Dense(3, "softmax", name="classes")(x), name="mixed")


@pytest.fixture(scope="module")
def net():
    return mixed_net()


def test_the_plan_says_the_operations_of_each_layer(net):
    plan = QuantizeAware().plan(net)
    assert plan.row("conv").operations == ("CONV_2D",)
    assert plan.row("norm").operations == plan.row("relu").operations == ()  # fused into the convolution
    assert "DEPTHWISE_CONV_2D" in plan.row("depthwise").operations
    assert plan.row("mean").operations == ("MEAN",)
    assert plan.row("wide").operations == ("FULLY_CONNECTED", "GELU")
    assert plan.row("classes").operations == ("FULLY_CONNECTED", "SOFTMAX")
    assert plan.row("attention").operations.count("BATCH_MATMUL") == 2
    assert all(set(row.slow) <= set(row.operations) for row in plan.rows)
    assert Plan.from_dict(plan.to_dict()) == plan


# Target -> layer -> the operations of it that the target leaves.
SLOW = {
    "xnnpack": {"wide": ("GELU",), "classes": ("SOFTMAX",)},
    "builtin": {},
    "micro": {},
    "edgetpu": {},
    "gpu": {"mean": ("MEAN",)},
}

FASTER = (
    "xnnpack leaves GELU, RSQRT, SOFTMAX of 3 layers to the interpreter's own kernels: integer_only=False computes them in float within its partitions, "
    "which is faster"
)


@pytest.mark.parametrize("target", TARGETS)
def test_the_plan_says_what_a_target_leaves(net, target):
    plan = QuantizeAware(target=target).plan(net)
    assert {name: plan.row(name).slow for name in ("conv", "mean", "wide", "classes", "residual")} == {
        "conv": (),
        "mean": (),
        "wide": (),
        "classes": (),
        "residual": (),
        **SLOW[target],
    }
    table, left = operation_table(target), [name for row in plan.rows for name in row.operations if name in row.slow]
    assert all(table.leaves(name, "int8") for name in left)
    assert plan.operations - plan.fast_operations == len(left)
    assert plan.summary()["fast_share"] == plan.fast_operations / plan.operations
    text = str(plan)
    assert f"{target} runs {plan.fast_operations} of {plan.operations} operations of the file fast" in text
    assert f"not by {target}" in text
    assert [finding for finding in plan.findings if finding in text] == ([FASTER] if target == "xnnpack" else [])
    # The remedy: in float, nothing but the softmax of the classes is left.
    freed = QuantizeAware(target=target, integer_only=False).plan(net)
    assert freed.findings == ()
    assert target != "xnnpack" or {row.name for row in freed.rows if row.slow} == {"classes"}


@pytest.mark.slow
def test_the_operations_of_the_plan_are_those_of_the_file(net, tmp_path):
    quantize = Quantize()
    plan = quantize.plan(net)
    export_tflite(quantize.apply(net, X), tmp_path / "mixed.tflite", "int8", tolerances=Tolerances())
    found = {op.name: op.count for op in census(tmp_path / "mixed.tflite").ops}
    told = collections.Counter(name.split()[0] for row in plan.rows for name in row.operations)
    assert told == found
    assert plan.operations == sum(found.values())


def test_a_plan_without_a_conversion_says_no_operations(net):
    plan = QuantizeAware().plan(net, dry_run=False)
    assert plan.operations == 0
    assert plan.fast_share is None
    assert "operations" not in plan.table()


# Form of a layer of the net by the settings of the step -> what the plan says, the operations that there are then, and those that are not.
HARD, GELU, ATTENTION, STANDARD = "hard", "wide", "attention", "standard"
FORMS = {
    "hard-swish": (HARD, {}, "", {"ADD broadcast", "MUL broadcast", "MUL"}, {"HARD_SWISH"}),
    "hard-swish of the interpreter": (HARD, {"target": "builtin"}, "hard-swish as HARD_SWISH", {"HARD_SWISH"}, {"MUL"}),
    "hard-swish of tflite-micro": (HARD, {"target": "micro"}, "hard-swish as HARD_SWISH", {"HARD_SWISH"}, {"MUL"}),
    "hard-swish of the Edge TPU": (HARD, {"target": "edgetpu"}, "", {"ADD broadcast", "MUL"}, {"HARD_SWISH"}),
    "GELU": (GELU, {}, "", {"GELU"}, {"LOGISTIC"}),
    "GELU of tflite-micro": (GELU, {"target": "micro"}, "GELU as a product with LOGISTIC", {"LOGISTIC", "MUL"}, {"GELU"}),
    "GELU approximated": (GELU, {"approximate": True}, "GELU approximated by x * sigmoid(1.702 x)", {"LOGISTIC", "MUL"}, {"GELU"}),
    "GELU of floats": (GELU, {"integer_only": False}, "gelu in float", {"DEQUANTIZE", "GELU", "QUANTIZE"}, {"LOGISTIC"}),
    "GELU of floats is exact": (GELU, {"integer_only": False, "approximate": True}, "gelu in float", {"GELU"}, {"LOGISTIC"}),
    "no islands elsewhere": (GELU, {"integer_only": False, "target": "builtin"}, "", {"GELU"}, {"DEQUANTIZE"}),
    "softmax of floats": (ATTENTION, {"integer_only": False}, "softmax in float", {"DEQUANTIZE", "SOFTMAX", "QUANTIZE"}, set()),
    "normalization of floats": (STANDARD, {"integer_only": False}, "normalized in float", {"RSQRT", "QUANTIZE"}, {"DEPTHWISE_CONV_2D"}),
    "normalization": (STANDARD, {}, "", {"RSQRT", "DEPTHWISE_CONV_2D"}, {"DEQUANTIZE"}),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_layer_is_written_in_the_form_that_suits(net, name):
    layer, settings, said, used, unused = FORMS[name]
    plan = QuantizeAware(**settings).plan(net)
    row = plan.row(layer)
    assert plan.names("impossible") == []
    assert used <= set(row.operations)
    assert not unused & set(row.operations)
    assert said in row.reason
    assert said or not any(words in row.reason for words in ("approximated", "in float", "product with", "as HARD_SWISH"))
    if settings == {"integer_only": False}:
        assert row.slow == ()


def test_a_layer_that_is_left_out_keeps_its_function(net):
    plan = QuantizeAware(exclude=GELU, approximate=True, integer_only=False).plan(net)
    assert "GELU" in plan.row(GELU).operations
    assert "DEQUANTIZE" not in plan.row(GELU).operations


def test_a_layer_of_floats_that_nobody_chose_is_refused():
    """What the choice allows are the layers that it names, not floats anywhere."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4, 6))
    wave = keras.ops.sin(L.LayerNormalization(name="standard")(inputs))
    model = keras.Model(inputs, L.Dense(3)(wave))
    plan = QuantizeAware(integer_only=False).plan(model)
    assert [row.class_name for row in plan.rows if row.action == "impossible"] == ["KerasOperation"]
    assert plan.row("standard").action == "done"


def settings_of(step, made):
    return {layer.layer.name: layer.quantization.replaced for layer in quantized_layers(made.legacy)}


def reference_gelu(x):
    return x * 0.5 * (1.0 + np.vectorize(math.erf)(x / math.sqrt(2.0)))


# Form of GELU -> largest distance from GELU, and from its own formula, in steps of its result.
GELUS = {
    QUICK_GELU: (0.5, lambda x: x / (1.0 + np.exp(-1.702 * x)), 0.021),
    GELU_OF_PRODUCTS: (0.5, reference_gelu, 0.001),
}


@pytest.mark.parametrize("form", GELUS)
@pytest.mark.parametrize("most", [2.0, 4.0, 8.0])
def test_the_forms_of_gelu(form, most):
    """Against formulas of NumPy: rounded inside, a form is within a step or so of what it stands for."""
    steps, formula, from_gelu = GELUS[form]
    x = np.linspace(-most, most, 2001).astype("float32")
    assert np.abs(formula(x) - reference_gelu(x)).max() <= from_gelu
    ranges = {}

    def variables(what):
        bounds = {"scaled": (-8.0, 8.0), "clipped": (-4.0, 4.0)}[what.rpartition("_")[2]]
        return ranges.setdefault(what, tuple(map(tf.constant, (*bounds, 1.0))))

    def computed(rounding):
        return REPLACEMENTS[form](tf.constant(x), ActivationRounder(variables, False, rounding), "act").numpy()

    step = (formula(x).max() - formula(x).min()) / 255
    np.testing.assert_allclose(computed(False), formula(x), atol=from_gelu + 4e-4 * most)  # sigmoids end at 8
    # What LOGISTIC gives ends at 255 / 256, as its int8 kernel does.
    assert np.abs(computed(True) - formula(x)).mean() <= steps * (step + most / 512)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "floats", "words"),
    [
        ({"integer_only": False}, ("attention", "standard", "wide"), None),
        ({"approximate": True}, (), "GELU"),
        ({"target": "builtin"}, (), None),
        ({"target": "micro"}, (), None),
    ],
)
def test_files_of_the_forms(net, settings, floats, words, tmp_path):
    """The real file computes what the model does, holds floats only where that was chosen, and the record says where."""
    quantize = Quantize(**settings)
    with pytest.warns(UserWarning, match=words) if words else contextlib.nullcontext():
        made = quantize.apply(net, X)
    record = export_tflite(made, tmp_path / "forms.tflite", "int8", X, verify_on=X, tolerances=Tolerances(max_relative_mean_error=0.02))
    # The converter calibrates nothing where parts are to stay in float.
    assert (record.road, record.calibration_samples) == ((None, 0) if floats else ("converter", len(X)))
    assert set(record.float_layers) == set(floats)
    assert bool(record.census.stray_floats()) is bool(floats)
    told = collections.Counter(name.split()[0] for row in quantize.plan(net).rows for name in row.operations)
    assert told <= collections.Counter({op.name: op.count for op in record.census.ops})
    found = np.asarray(made(X))
    assert np.abs(found - np.asarray(net(X))).mean() < 0.02
    if floats:
        opened = open_file(tmp_path / "forms.tflite")
        shared = delegation(opened.interpreter)
        assert {name for name, _ in shared.left} <= {"SOFTMAX"}  # that of the classes
        again = load_model(save(made, tmp_path))
        assert settings_of(quantize, again) == settings_of(quantize, made)
        np.testing.assert_array_equal(again(X), found)


FUNCTIONS = ("elu", "gelu", "hard_shrink", "log_sigmoid", "mish", "softplus", "softsign", "squareplus")


def test_functions_in_float_are_those_of_the_plan():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6,)), *(L.Dense(6, name, name=name) for name in (*FUNCTIONS, "selu", "tanh_shrink", "silu"))])
    plan = QuantizeAware(integer_only=False).plan(model)
    assert plan.names("impossible") == []
    assert {row.name for row in plan.rows if f"{row.name} in float" in row.reason} == set(FUNCTIONS)
    assert {row.name for row in plan.rows if "DEQUANTIZE" in row.operations} == set(FUNCTIONS)
    assert {row.name for row in plan.rows if row.slow} == {"hard_shrink", "selu"}


@pytest.mark.slow
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_of_floats_is_rounded_once(name, tmp_path):
    """The file's result is that of the float function on the rounded tensor, to a step."""
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).uniform(-3, 3, (64, 8)).astype("float32")
    model = keras.Sequential([keras.Input((8,)), L.Dense(8, use_bias=False, name="dense"), L.Activation(name, name="act")])
    model.get_layer("dense").kernel.assign(np.eye(8))
    made = Quantize(integer_only=False, ranges="minmax").apply(model, x)
    record = export_tflite(made, tmp_path / "function.tflite", "int8", io="float32", verify_on=x, tolerances=Tolerances())
    assert record.float_layers == ("act",)
    opened = open_file(tmp_path / "function.tflite")
    step = np.ptp(np.asarray(model(x))) / 255
    slope = 1.0 if name == "hard_shrink" else 1.2
    # Half a step of the result, and that of its input, in an identity, through the slope of the function; hard-shrink jumps at 0.5.
    error = np.abs(opened.run({next(iter(opened.inputs)): x})[next(iter(opened.outputs))] - np.asarray(model(x)))
    assert np.median(error) <= 0.5 * step + slope * 3 / 255
    assert delegation(opened.interpreter).partitions == (2 if name == "hard_shrink" else 1)


def save(model, folder):
    model.save(folder / "made.keras")
    return folder / "made.keras"


@pytest.mark.slow
def test_training_sees_the_approximate_function(net):
    exact, quick = (QuantizeAware(approximate=choice).apply(net) for choice in (False, True))
    for made in (exact, quick):
        made(X, training=True)
    wide = keras.ops.convert_to_numpy(net.get_layer("wide").kernel)
    assert settings_of(None, quick)["wide"] == (("gelu", QUICK_GELU),)
    assert settings_of(None, exact)["wide"] == ()
    assert np.any(np.asarray(exact(X)) != np.asarray(quick(X)))
    stripped = QuantizeAware(approximate=True).strip(quick)
    inner = next(layer.layer for layer in quantized_layers(stripped.legacy) if layer.layer.name == "wide")
    assert name_of(inner.activation) == "gelu"  # the layer inside keeps the user's function
    np.testing.assert_array_equal(inner.kernel, wide)


@pytest.mark.parametrize("step", [QuantizeAware, Quantize])
@pytest.mark.parametrize(
    ("setting", "value"), [("approximate", 1), ("approximate", "gelu"), ("integer_only", None), ("integer_only", "float")]
)
def test_bad_choices(step, setting, value):
    with pytest.raises(ConfigurationError, match=f"{setting}(.|\n)*True or False"):
        step(**{setting: value})


@pytest.mark.parametrize("settings", [{"approximate": True}, {"integer_only": False}])
def test_choices_that_activations_of_sixteen_bits_do_not_have(settings):
    with pytest.raises(ConfigurationError, match="activation_bits=16"):
        QuantizeAware(activation_bits=16, **settings)


@pytest.mark.parametrize("step", [QuantizeAware, Quantize])
@pytest.mark.parametrize(
    ("target", "match"), [("xnpack", r"'xnpack'(.|\n)*xnnpack"), ("tpu", r"'tpu'(.|\n)*edgetpu"), (None, "None"), (["gpu"], "gpu")]
)
def test_an_unknown_target_is_refused_with_the_nearest(step, target, match):
    with pytest.raises(ConfigurationError, match=match):
        step(target=target)


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("tfdistill_layer_2/relu/Relu;tfdistill_layer_0/conv/Conv2D", [2, 0]),
        ("tfdistill_layer_12_1/x/add", [12]),
        ("serving_default_x", []),
        ("tfdistill_layer_3/a/my.tfdistill_layer_4/b", [3]),
    ],
)
def test_layers_are_found_in_names(name, layers):
    assert layers_in(name) == layers


def test_the_plan_says_the_operations_of_convolutions_of_groups():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 4)),
            L.Conv2D(8, 3, groups=2, name="grouped"),
            L.Conv2D(8, 3, groups=4, activation="relu", name="fused"),
            L.Flatten(),
            L.Dense(2),
        ]
    )
    plan = QuantizeAware().plan(model)
    assert plan.row("grouped").operations == plan.row("fused").operations == ("CONV_2D",)
