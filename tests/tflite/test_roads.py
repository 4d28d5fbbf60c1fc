"""int8 by calibration alone: models that the converter makes no integers of, which road was taken, and what a file is like on each."""

import pathlib
import sys

import keras
import numpy as np
import pytest

from tfdistill.compress import Quantize
from tfdistill.convert.census import FLOAT_TYPES
from tfdistill.convert.signature import describe
from tfdistill.errors import ConfigurationError, DataError, ExportError
from tfdistill.runtime.schema import schema
from tfdistill.tflite import Tolerances, export_tflite

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "zoo"))
import zoo_models

L, ops = keras.layers, keras.ops
SAMPLES = 48
# Mean error of a file, as a share of the output's scale.
NEAR = 0.03


def data_of(model, seed=0):
    rng, signature = np.random.default_rng(seed), describe(model)

    def one(i):
        shape = (SAMPLES, *i.shape)
        return rng.integers(0, 7, shape) if i.dtype.startswith("int") else rng.normal(size=shape).astype("float32")

    return signature.pack({i.name: one(i) for i in signature.inputs})


def sequence(*layers):
    return lambda: keras.Sequential([keras.Input((6, 8)), *(layer() for layer in layers), L.Dense(3)])


def masked_attention():
    tokens = keras.Input((6,), dtype="int32", name="tokens")
    h = L.Embedding(7, 8, mask_zero=True)(tokens)
    h = L.MultiHeadAttention(2, 4)(h, h, use_causal_mask=True)
    return keras.Model(tokens, L.Dense(3)(L.GlobalAveragePooling1D()(h)))


def several():
    image, numbers, kind = (
        keras.Input((6, 6, 1), name="image"),
        keras.Input((5,), name="numbers"),
        keras.Input((2,), dtype="int32", name="kind"),
    )
    h = L.Concatenate()([L.Flatten()(L.Conv2D(3, 3)(image)), L.Dense(4)(numbers), L.Flatten()(L.Embedding(7, 2)(kind))])
    outputs = {"class": L.Dense(3, name="class")(h), "size": L.Dense(1, name="size")(h)}
    return keras.Model({"image": image, "numbers": numbers, "kind": kind}, outputs)


def frozen():
    model = zoo_models.conv1d_net()
    model.trainable = False
    return model


def pooled():
    return keras.Sequential(
        [keras.Input((9, 8, 2)), L.Conv2D(4, 3, activation="relu"), L.AveragePooling2D((6, 6)), L.Flatten(), L.Dense(3)]
    )


def equal_biases():
    return keras.Sequential([keras.Input((6,)), L.Dense(4, bias_initializer=keras.initializers.Constant(9.0))])


ROWS = {
    "layer normalization": sequence(L.LayerNormalization),
    "group normalization": sequence(lambda: L.GroupNormalization(2)),
    "elu": sequence(lambda: L.Dense(8, activation="elu"), L.ELU),
    "LSTM": sequence(lambda: L.LSTM(5)),
    "GRU, both ways": sequence(lambda: L.Bidirectional(L.GRU(4, return_sequences=True)), L.Flatten),
    "SimpleRNN": sequence(lambda: L.SimpleRNN(5)),
    "masked attention": masked_attention,
    "several inputs": several,
    "frozen": frozen,
    "nested": zoo_models.nested,
    "subclassed": zoo_models.subclassed,
    "shared": zoo_models.siamese,
    "ViT": zoo_models.vit,
    "one pooling": pooled,
    "equal biases": equal_biases,
}
SLOW = {
    "transformer": zoo_models.transformer_encoder,
    "masked GRU": zoo_models.bidirectional_gru,
    "U-Net": zoo_models.unet,
    "operations": zoo_models.ops_graph,
}
TABLE = [*ROWS, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]


def build(name):
    keras.utils.set_random_seed(0)
    return {**ROWS, **SLOW}[name]()


@pytest.mark.parametrize("name", TABLE)
def test_int8_by_calibration_alone(name, tmp_path):
    model = build(name)
    data = data_of(model)
    record = export_tflite(model, tmp_path / "m.tflite", "int8", calibration=data, tolerances=Tolerances())
    assert (record.road, record.road_reason) == ("bridge", "")
    assert not set(record.dtypes) & FLOAT_TYPES
    for output in record.verification.outputs.values():
        assert output.mean_abs_error / output.scale < NEAR


@pytest.mark.parametrize("name", ["frozen", "nested", "subclassed", "one pooling", "equal biases", "several inputs"])
def test_the_bridge_is_as_near_and_as_small_as_the_converter(name, tmp_path):
    model = build(name)
    data = data_of(model)
    bridge, converter = (
        export_tflite(model, tmp_path / f"{road}.tflite", "int8", calibration=data, tolerances=Tolerances(), road=road)
        for road in ("bridge", "converter")
    )
    assert (bridge.road, converter.road) == ("bridge", "converter")
    for one, other in zip(bridge.verification.outputs.values(), converter.verification.outputs.values(), strict=True):
        assert one.mean_abs_error < 1.15 * other.mean_abs_error + 0.001 * one.scale
    assert bridge.size_bytes < 1.02 * converter.size_bytes + 800  # an operation more, and what it is described by


def conv3d():
    return keras.Sequential([keras.Input((4, 4, 4, 1)), L.Conv3D(2, 2), L.Flatten(), L.Dense(2)])


class Doubled(L.Layer):
    """A layer that only the converter knows: the bridge has no counterpart, and is not told of one."""

    def call(self, x):
        import tensorflow as tf

        return tf.add(x, x)

    def get_config(self):
        raise NotImplementedError  # or the bridge would run it as it is


def unbridged():
    x = keras.Input((6,), name="x")
    return keras.Model(x, L.Dense(3)(Doubled(name="doubled")(x)), name="unbridged")


def test_what_the_bridge_refuses_takes_the_converter_and_says_so(tmp_path):
    model = unbridged()
    data = data_of(model)
    with pytest.warns(
        UserWarning, match=r"'unbridged' were made by TensorFlow's converter \(road='converter'\), as the bridge refused(.|\n)*doubled"
    ):
        record = export_tflite(model, tmp_path / "m.tflite", "int8", calibration=data)
    assert record.road == "converter"
    assert "doubled" in record.road_reason
    assert export_tflite(model, tmp_path / "m.tflite", "int8", calibration=data, road="converter").road_reason == ""
    with pytest.raises(Exception, match="doubled"):
        export_tflite(model, tmp_path / "m.tflite", "int8", calibration=data, road="bridge")


def test_what_neither_can_is_refused_with_both_reasons(tmp_path):
    model = conv3d()
    with pytest.raises(ExportError) as caught:
        export_tflite(model, tmp_path / "m.tflite", "int8", calibration=data_of(model))
    assert caught.value.__cause__ is not None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("variant", "road"), [("float32", None), ("dynamic_range", None), ("int16x8", "converter")])
def test_other_variants(variant, road, tmp_path):
    model = build("equal biases")
    assert export_tflite(model, tmp_path / "m.tflite", variant, calibration=data_of(model)).road == road


def test_a_quantized_model_is_exported_as_it_is(tmp_path):
    model = build("one pooling")
    data = data_of(model)
    quantized = Quantize(ranges="mse").apply(model, data)
    record = export_tflite(quantized, tmp_path / "m.tflite", "int8", verify_on=data)
    assert (record.road, record.calibration_samples) == (None, 0)
    (output,) = record.verification.outputs.values()
    assert output.mean_abs_error < 0.01 * output.scale


@pytest.mark.parametrize("io", ["uint8", "float32"])
def test_inputs_and_outputs_keep_their_names_and_types(io, tmp_path):
    from tfdistill.runtime.interpreter import open_file

    model = build("several inputs")
    path = export_tflite(model, tmp_path / "m.tflite", "int8", calibration=data_of(model), io=io, tolerances=Tolerances()).path
    opened = open_file(path)
    assert set(opened.inputs) == {"image", "numbers", "kind"}
    assert set(opened.outputs) == {"class", "size"}


def test_equal_samples_are_refused_on_the_bridge(tmp_path):
    model = build("one pooling")
    with pytest.raises(DataError, match="All 48 samples"):
        export_tflite(model, tmp_path / "m.tflite", "int8", calibration=np.ones((SAMPLES, 9, 8, 2), "float32"))


@pytest.mark.parametrize(
    ("arguments", "match"),
    [({"road": "brigde"}, "road='brigde' is unknown(.|\n)*'bridge'"), ({"road": "bridge", "variant": "int16x8"}, "int16x8")],
)
def test_roads_that_do_not_exist(arguments, match, tmp_path):
    model = build("equal biases")
    with pytest.raises(ConfigurationError, match=match):
        export_tflite(model, tmp_path / "m.tflite", **{"variant": "int8", "calibration": data_of(model), **arguments})


@pytest.mark.parametrize("road", ["bridge", "converter"])
def test_tensors_have_short_names_of_their_own_and_aligned_content(road, tmp_path):
    model = build("frozen")
    content = pathlib.Path(export_tflite(model, tmp_path / "m.tflite", "int8", calibration=data_of(model), road=road).path).read_bytes()
    file = schema().Model.GetRootAs(content, 0)
    tensors = [file.Subgraphs(0).Tensors(i) for i in range(file.Subgraphs(0).TensorsLength())]
    names = [tensor.Name().decode() for tensor in tensors]
    assert len(set(names)) == len(names)
    assert max(map(len, names)) < 60
    assert {"serving_default_signal:0", "StatefulPartitionedCall:0"} <= set(names)
    assert any(name.startswith("conv1d") for name in names)
    for i in range(file.BuffersLength()):
        buffer = file.Buffers(i)
        if buffer.DataLength():
            assert (buffer._tab.Vector(buffer._tab.Offset(4))) % 16 == 0
