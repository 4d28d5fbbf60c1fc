"""Layers with activations of 16 bits in an int8 file: the file computes what the Keras model does, in both sets of kernels, more exactly than with 8."""

import keras
import numpy as np
import pytest
import wide_models

from tfdistill.compress import Quantize, QuantizeAware
from tfdistill.compress.bits.switches import share_of_spread
from tfdistill.convert.wide.edit import with_wide_activations
from tfdistill.convert.wide.operations import is_widened, wide_scale
from tfdistill.errors import ConfigurationError, ExportError, ModelError
from tfdistill.runtime.interpreter import open_file
from tfdistill.tflite import Tolerances, export_tflite, inspect

L = keras.layers
# The models whose files are made in the fast tests; the others differ in operations that are rarely there.
FAST = ("add", "hard_silu")
EVERYTHING = {"*": 16}


def export(model, path, io="float32", **settings):
    return export_tflite(model, path, "int8", io=io, tolerances=Tolerances(), **settings)


def run(path, x, xnnpack=True):
    (outputs,) = open_file(path, xnnpack=xnnpack, trusted=True).run(x).values()
    return outputs


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in FAST else pytest.mark.slow) for n in wide_models.MODELS])
def test_the_file_computes_what_the_model_does(name, tmp_path):
    model, x = wide_models.model(name), wide_models.data(name)
    narrow = Quantize(bias_correction=False).apply(model, x)
    wide = Quantize(bias_correction=False, activation_bits=EVERYTHING).apply(model, x)
    record = export(wide, tmp_path / "wide.tflite")
    outputs = run(record.path, x)
    assert record.dtypes["int16"] >= 2
    assert record.wide_layers
    # Of the int8 file the kernels and the model differ by a step here and there; of this one by a 256th of that.
    assert share_of_spread(np.asarray(wide(x)), outputs) < (0.01 if name == "resized" else 0.002)  # RESIZE_BILINEAR has weights of 10 bits
    assert share_of_spread(outputs, run(record.path, x, xnnpack=False)) < 0.002
    exact, of_narrow = np.asarray(model(x)), np.asarray(narrow(x))
    assert share_of_spread(exact, outputs) < share_of_spread(exact, of_narrow)


def test_one_layer_alone_is_wide_and_types_meet_in_quantize(tmp_path):
    model, x = wide_models.model("add"), wide_models.data("add")
    record = export(Quantize(activation_bits={"left": 16}).apply(model, x), tmp_path / "one.tflite", io="int8")
    operations = [(found.name, found.kind) for found in inspect(record.path).operations]
    assert record.wide_layers == ("left",)
    assert {found.dtype for found in record.inputs + record.outputs} == {"int8"}
    # The input becomes int16 for `left`, what `right` gives for the addition, whose result is int8 again.
    assert [name for name, _ in operations].count("QUANTIZE") == 3
    assert share_of_spread(np.asarray(Quantize(activation_bits={"left": 16}).apply(model, x)(x)), run(record.path, x)) < 0.02


@pytest.mark.parametrize("io", ["int8", pytest.param("uint8", marks=pytest.mark.slow)])
def test_outputs_keep_the_type_that_is_asked_for(io, tmp_path):
    model, x = wide_models.model("folded"), wide_models.data("folded")
    record = export(Quantize(activation_bits=EVERYTHING).apply(model, x), tmp_path / "wide.tflite", io=io)
    assert [record.inputs[0].dtype, record.outputs[0].dtype] == [io, io]
    assert share_of_spread(np.asarray(model(x)), run(record.path, x)) < 0.02


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "layers"),
    # LiteRT has no depthwise convolution of int16 with 4-bit weights: where one reads a wide layer, it reads that in int8.
    [("folded", EVERYTHING), ("dense relu", EVERYTHING), ("depthwise", {"conv": 16})],
)
def test_weights_of_4_bits_beside_activations_of_16(name, layers, tmp_path):
    model, x = wide_models.model(name), wide_models.data(name)
    wide = Quantize(activation_bits=layers, weight_bits=4).apply(model, x)
    record = export(wide, tmp_path / "wide.tflite")
    assert share_of_spread(np.asarray(wide(x)), run(record.path, x)) < (0.06 if name == "depthwise" else 0.004)


def test_a_wide_model_is_saved_and_loaded(tmp_path):
    model, x = wide_models.model("folded"), wide_models.data("folded")
    wide = Quantize(activation_bits={"act": 16}).apply(model, x)
    wide.save(tmp_path / "wide.keras")
    loaded = keras.models.load_model(tmp_path / "wide.keras")
    assert [layer.layer.name for layer in loaded.legacy.layers if getattr(getattr(layer, "quantization", None), "wide", False)] == ["act"]
    np.testing.assert_array_equal(loaded(x), wide(x))


@pytest.mark.slow
def test_a_wide_layer_is_trained_quantized(tmp_path):
    model, x = wide_models.model("folded"), wide_models.data("folded")
    step = QuantizeAware(activation_bits={"conv": 16})
    aware = step.apply(model)
    aware.compile("sgd", "mse")
    aware.fit(x, np.asarray(model(x)), verbose=0, callbacks=step.callbacks())
    record = export(aware, tmp_path / "aware.tflite")
    assert record.wide_layers == ("act",)  # what rounds the convolution, its normalization and its ReLU
    assert share_of_spread(np.asarray(aware(x)), run(record.path, x)) < 0.02


def test_the_plan_says_which_layers_are_wide():
    step = Quantize(activation_bits={"conv": 16})
    plan = step.plan(wide_models.model("folded"), dry_run=False)
    assert [row.name for row in plan.rows if "activations of 16 bits" in row.reason] == ["act"]


@pytest.mark.parametrize("bits", [7, {"*": 4}, {"*": True}, {}])
def test_other_bits_are_refused(bits):
    with pytest.raises(ConfigurationError, match="activation_bits"):
        Quantize(activation_bits=bits)


def test_16_bits_everywhere_is_another_variant():
    with pytest.raises(ConfigurationError, match="int16x8"):
        Quantize(activation_bits=16)


def test_a_layer_without_activations_cannot_be_wide():
    with pytest.raises(ModelError, match="'flat' cannot have activations of 16 bits"):
        Quantize(activation_bits={"flat": 16}).apply(wide_models.model("permuted"), wide_models.data("permuted"))


def test_an_operation_without_a_16_bit_kernel_is_named(tmp_path):
    inputs = keras.Input((8, 8, 4), name="image")
    x = L.Activation("hard_silu", name="act")(L.Conv2D(4, 3, name="conv")(inputs))
    model = keras.Model(inputs, L.Dense(3, name="head")(L.GlobalAveragePooling2D()(x)))
    x = np.random.default_rng(0).normal(size=(32, 8, 8, 4)).astype("float32")
    wide = Quantize(target="builtin", activation_bits={"act": 16}).apply(model, x)
    with pytest.raises(ExportError, match="HARD_SWISH"):
        export(wide, tmp_path / "wide.tflite")
    assert not (tmp_path / "wide.tflite").exists()


def test_a_file_without_wide_layers_stays_as_it_is():
    assert with_wide_activations(b"TFL3 something else") == b"TFL3 something else"


@pytest.mark.parametrize(
    ("scale", "zero_point", "expected"),
    [
        (0.1, -128, 25.5 / 32767),  # 0 to 25.5
        (0.1, 0, 12.8 / 32767),  # -12.8 to 12.7
        (0.1, 127, 25.5 / 32767),  # -25.5 to 0
        (1 / 256, -128, 1 / 32768),  # a sigmoid or softmax
        (1 / 128, 0, 1 / 32768),  # tanh
    ],
)
def test_the_larger_end_of_a_range_is_the_last_step(scale, zero_point, expected):
    assert wide_scale(np.float32(scale), zero_point) == pytest.approx(expected, rel=1e-6)


def test_kernels_are_those_of_the_table():
    assert [name for name in ("CONV_2D", "MUL", "HARD_SWISH", "PRELU") if is_widened(name)] == ["CONV_2D", "MUL"]
