"""The plan says which operations each layer becomes and which of them the target does not run fast; layers are written in operations that it runs fast."""

import collections

import keras
import numpy as np
import pytest

from tfdistill.compress import Plan, Quantize, QuantizeAware
from tfdistill.convert.layer_operations import layers_in
from tfdistill.errors import ConfigurationError
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
    "micro": {"wide": ("GELU",)},
    "edgetpu": {"wide": ("GELU",)},
    "gpu": {"wide": ("GELU",), "mean": ("MEAN",)},
}


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
