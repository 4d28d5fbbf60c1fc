"""Files with weights of 4 bits: which weights have them, that these are the right integers, and what is refused."""

import functools
import importlib
import os
import pathlib
import subprocess
import sys

import environments
import keras
import numpy as np
import pytest
from remedies_of_source import Row, check

import tfdistill
from tfdistill.bridge.adopt.adopt import adopt
from tfdistill.bridge.imports import tf_keras
from tfdistill.compress import Cluster, LowRank, Prune, PruneChannels, Quantize, QuantizeAware
from tfdistill.compress.quantize.outer_layers import outer_layers
from tfdistill.compress.rebuild import open_model
from tfdistill.convert import quantizer
from tfdistill.convert.file_kernels import placed_kernels
from tfdistill.convert.quantizer import inner_kernels, with_versions
from tfdistill.convert.signature import describe
from tfdistill.errors import ConfigurationError, ExportError, MissingPackageError, ModelError
from tfdistill.runtime.interpreter import open_file
from tfdistill.runtime.schema import schema
from tfdistill.tflite import Tolerances, export_tflite, verify
from tfdistill.tflite.inspection.weights import integer_weights
from tfdistill.utils import optional

L = keras.layers
W4, MIXED = "int4_weights", "int8_int4_mixed"
SAMPLES = 48
# Mean error of a file of random weights, as a share of the output's scale: weights of 4 bits have steps of 1/7 of the largest.
NEAR = {W4: 0.06, MIXED: 0.06}


def data_of(model):
    rng, signature = np.random.default_rng(0), describe(model)

    def one(i):
        return (
            rng.integers(0, 7, (SAMPLES, *i.shape)) if i.dtype.startswith("int") else rng.normal(size=(SAMPLES, *i.shape)).astype("float32")
        )

    return signature.pack({i.name: one(i) for i in signature.inputs})


def export(model, folder, variant, **arguments):
    settings = {"calibration": data_of(model), "tolerances": Tolerances(), **arguments}
    return export_tflite(model, pathlib.Path(folder, "m.tflite"), variant, **settings)


def bits_of(record):
    return [kernel.bits for kernel in record.census.kernels]


def mlp():
    x = inputs = keras.Input((16,), name="x")
    for name in ("first", "middle"):
        x = L.Dense(24, activation="relu", name=name)(x)
    return keras.Model(inputs, L.Dense(5, name="last")(x), name="mlp")


def wide():
    """Of more weights than the quantizer writes inside of the tables of a file."""
    x = inputs = keras.Input((16,), name="x")
    for name in ("first", "middle"):
        x = L.Dense(1024, activation="relu", name=name)(x)
    return keras.Model(inputs, L.Dense(5, name="last")(x), name="wide")


def convolutions():
    x = inputs = keras.Input((8, 8, 2), name="image")
    x = L.ReLU()(L.BatchNormalization()(L.Conv2D(8, 3, use_bias=False)(x)))
    x = L.DepthwiseConv2D(3, activation="relu")(x)
    x = L.Conv2D(8, 1, activation="relu")(x)
    x = L.Conv2DTranspose(4, 2)(x)
    return keras.Model(inputs, L.Dense(3, name="scores")(L.GlobalAveragePooling2D()(x)))


def several():
    image, numbers = keras.Input((6, 6, 1), name="image"), keras.Input((5,), name="numbers")
    joined = L.Concatenate()([L.Flatten()(L.Conv2D(3, 3, name="conv")(image)), L.Dense(4, name="dense")(numbers)])
    hidden = L.Dense(16, activation="relu", name="hidden")(joined)
    outputs = {"kind": L.Dense(3, name="kind")(hidden), "size": L.Dense(1, name="size")(hidden)}
    return keras.Model({"image": image, "numbers": numbers}, outputs)


def transformer():
    tokens = keras.Input((6,), dtype="int32", name="tokens")
    h = L.Embedding(7, 8, name="table")(tokens)
    h = L.LayerNormalization()(h + L.MultiHeadAttention(2, 4, name="attention")(h, h))
    h = L.Dense(8, name="down")(L.Dense(16, activation="gelu", name="up")(h))
    return keras.Model(tokens, L.Dense(3, name="scores")(L.GlobalAveragePooling1D()(h)))


def recurrent():
    return keras.Sequential([keras.Input((6, 8)), L.GRU(8), L.Dense(16, activation="relu"), L.Dense(3)])


def nested():
    inputs = keras.Input((6, 6, 2))
    body = keras.Sequential([keras.Input((6, 6, 2)), L.Conv2D(4, 3, name="a"), L.Conv2D(4, 3, name="b")], name="body")
    return keras.Model(inputs, L.Dense(2, name="head")(L.Dense(8, name="hidden")(L.Flatten()(body(inputs)))))


def adopted():
    layers = tf_keras().layers
    return adopt(
        tf_keras().Sequential([layers.Input((16,)), layers.Dense(16, "relu"), layers.Dense(16, "relu"), layers.Dense(3)]), name="adopted"
    )


def pruned():
    step = Prune(0.5, end_step=1, frequency=1)
    model = step.apply(mlp())
    model.compile("sgd", "mse")
    model.fit(np.zeros((8, 16)), np.zeros((8, 5)), epochs=2, verbose=0, callbacks=step.callbacks())
    return step.strip(model)


def clustered():
    step = Cluster(8)
    return step.strip(step.apply(mlp()))


def with_fewer_channels():
    return PruneChannels(0.6).apply(mlp())


def factorized():
    return LowRank(rank=6).apply(mlp())


def subclassed():
    class Own(keras.Model):
        def __init__(self):
            super().__init__(name="own")
            self.parts = [L.Dense(12, activation="relu"), L.Dense(12, activation="relu"), L.Dense(3)]

        def call(self, x):
            for part in self.parts:
                x = part(x)
            return x

    model = Own()
    model(np.zeros((2, 6), "float32"))
    return model


# Model -> bits of its weights as int4_weights and as int8_int4_mixed, in the order of the file.
ROWS = {
    mlp: ([4, 4, 4], [8, 4, 8]),
    convolutions: ([4, 8, 4, 8, 4], [8, 4, 4, 8, 8]),
    several: ([4, 4, 4, 4, 4], [8, 8, 4, 8, 8]),
    transformer: ([32, 4, 4, 4, 4, 4, 4, 4], None),
    recurrent: ([4, 4, 4, 4], None),
    nested: ([4, 4, 4, 4], [8, 4, 4, 8]),
    adopted: ([4, 4, 4], [8, 4, 8]),
    pruned: ([4, 4, 4], [8, 4, 8]),
    clustered: ([4, 4, 4], [8, 4, 8]),
    with_fewer_channels: ([4, 4, 4], [8, 4, 8]),
    factorized: ([4, 4, 4, 4, 4], [8, 4, 4, 4, 8]),
    subclassed: ([4, 4, 4], [8, 4, 8]),
}


@functools.cache
def built(make):
    keras.utils.set_random_seed(0)
    return make()


@pytest.mark.parametrize("make", ROWS)
@pytest.mark.parametrize("variant", [W4, MIXED])
def test_the_weights_that_can_have_4_bits(make, variant, tmp_path):
    model = built(make)
    record = export(model, tmp_path, variant)
    assert record.road == ("quantizer" if variant == W4 else "bridge")
    expected = ROWS[make][variant == MIXED]
    if expected is not None:
        assert bits_of(record) == expected
    assert 4 in bits_of(record)
    assert sorted(set(record.weight_bits.values())) == sorted(set(bits_of(record)))
    for output in record.verification.outputs.values():
        assert output.mean_abs_error < NEAR[variant] * output.scale
    assert verify(record.path, model, data_of(model), tolerances=Tolerances()).variant == variant
    if variant == W4:
        assert {tensor.dtype for tensor in record.outputs} == {"float32"}
    else:
        assert record.census.stray_floats() == ()
    opened = open_file(record.path)
    assert list(opened.inputs) == [i.name for i in describe(model).inputs]
    assert type(record).load(record.save(tmp_path / "record.json")) == record


def test_the_rows_of_long_models_in_8_and_4_bits(tmp_path):
    kinds = {name.split("/")[0]: bits for name, bits in export(built(transformer), tmp_path, MIXED).weight_bits.items()}
    four = dict.fromkeys(("attention", "up", "down"), 4)
    assert {name: kinds[name] for name in ("table", *four)} == {"table": 8, **four}
    assert list(kinds.values())[-1] == 8  # the scores; the converter of TensorFlow 2.20 has another name for their kernel
    *steps, middle, last = export(built(recurrent), tmp_path, MIXED).census.kernels
    assert (middle.shape, middle.bits, last.shape, last.bits) == ((16, 8), 4, (3, 16), 8)
    assert {kernel.bits for kernel in steps} == {8}


def stored(path):
    """Returns name -> (float values, scales of the channels) of the weights of 4 bits."""
    model = schema().ModelT.InitFromObj(schema().Model.GetRootAs(pathlib.Path(path).read_bytes(), 0))
    scales = {t.name.decode(): np.array(t.quantization.scale) for graph in model.subgraphs for t in graph.tensors if t.type == 17}
    return {one.name: (one.values, scales[one.name]) for one in integer_weights(path) if one.bits == 4}


@pytest.mark.parametrize("make", [mlp, pruned, wide])
def test_the_integers_are_the_nearest_ones_and_the_file_computes_with_them(make, tmp_path):
    """By NumPy alone: weights rounded to 7 steps of their channel's largest one, and dense layers of these."""
    model = built(make)
    record, x = export(model, tmp_path, W4), data_of(model)
    tensors = stored(record.path)
    for layer, one in zip((layer for layer in model.layers if layer.weights), record.census.kernels, strict=True):
        values, scales = tensors[one.name]
        kernel, bias = layer.get_weights()
        steps = scales.reshape(-1, 1)
        assert np.array_equal(values, np.clip(np.round(kernel.T / steps), -7, 7))
        assert np.all(values[kernel.T == 0] == 0)
        assert np.allclose(scales, np.abs(kernel.T).max(1) / 7)
        x = x @ (values * steps).T + bias
        x = np.maximum(x, 0) if layer is not model.layers[-1] else x
    found = next(iter(open_file(record.path).run({"x": data_of(model)}).values()))
    assert np.abs(found - x).max() < 1e-5 * max(1, np.abs(x).max())


@pytest.mark.parametrize("io", ["int8", "float32", pytest.param("uint8", marks=pytest.mark.slow)])
@pytest.mark.parametrize("make", [mlp, convolutions])
def test_the_mixed_variant_by_the_quantizer(make, io, tmp_path):
    record = export(built(make), tmp_path, MIXED, road="quantizer", io=io)
    assert (record.road, record.road_reason, record.calibration_samples) == ("quantizer", "", SAMPLES)
    assert bits_of(record) == {mlp: [8, 4, 8], convolutions: [8, 8, 4, 8, 8]}[make]
    assert [tensor.dtype for tensor in (*record.inputs, *record.outputs)] == [io, io]
    assert record.census.stray_floats(float_io=io == "float32") == ()
    (output,) = record.verification.outputs.values()
    assert output.mean_abs_error < NEAR[MIXED] * output.scale


@pytest.mark.parametrize("io", ["uint8", "float32"])
def test_inputs_and_outputs_of_other_types_by_the_bridge(io, tmp_path):
    record = export(built(mlp), tmp_path, MIXED, io=io)
    assert [tensor.dtype for tensor in (*record.inputs, *record.outputs)] == [io, io]


class Doubled(L.Layer):
    """A layer that the bridge has no counterpart of."""

    def call(self, x):
        import tensorflow as tf

        return tf.add(x, x)

    def get_config(self):
        raise NotImplementedError


def unbridged():
    x = keras.Input((6,), name="x")
    h = L.Dense(8, name="hidden")(L.Dense(8, name="first")(Doubled(name="doubled")(x)))
    return keras.Model(x, L.Dense(3, name="last")(h), name="unbridged")


def test_what_the_bridge_refuses_takes_the_quantizer_and_says_so(tmp_path):
    with pytest.warns(UserWarning, match=r"made by litert-quantizer \(road='quantizer'\), as the bridge refused(.|\n)*doubled"):
        record = export(built(unbridged), tmp_path, MIXED)
    assert record.road == "quantizer"
    assert "doubled" in record.road_reason
    assert bits_of(record) == [8, 4, 8]


@functools.cache
def trained(bits):
    model = QuantizeAware(weight_bits=bits).apply(built(mlp), dry_run=False)
    model.compile("sgd", "mse")
    model.fit(np.random.default_rng(1).normal(size=(32, 16)), np.zeros((32, 5)), epochs=1, verbose=0)
    return model


def test_a_model_that_brings_4_bits_keeps_its_own(tmp_path):
    everywhere = Quantize(weight_bits=4).apply(built(mlp), data_of(built(mlp)))
    for model in (everywhere, trained(4)):
        record = export(model, tmp_path, MIXED, calibration=None, verify_on=data_of(built(mlp)))
        assert (record.road, bits_of(record)) == (None, [4, 4, 4])


@pytest.mark.parametrize("variant", [W4, MIXED])
def test_batches_signatures_and_states(variant, tmp_path):
    model = built(mlp)
    for batch in (4, None):
        record = export(model, tmp_path, variant, batch_size=batch)
        assert (record.batch_size, 4 in bits_of(record)) == (batch, True)
    features = keras.Model(model.input, L.Dense(6)(model.get_layer("middle").output))
    both = export_tflite(
        {"serving_default": model, "features": features},
        tmp_path / "two.tflite",
        variant,
        data_of(model),
        data_of(model),
        tolerances=Tolerances(),
    )
    assert set(both.signatures) == {"serving_default", "features"}
    assert both.size_bytes < sum(one.alone_bytes for one in both.signatures.values())


@pytest.mark.slow
@pytest.mark.parametrize("variant", [W4, MIXED])
def test_states_stand_outside(variant, tmp_path):
    frames = keras.Input(batch_shape=(1, 3, 4), name="frames")
    h = L.Dense(16, activation="relu", name="middle")(L.GRU(5, stateful=True, name="gru")(frames))
    model, x = keras.Model(frames, L.Dense(2, name="scores")(h)), np.random.default_rng(0).normal(size=(40, 3, 4)).astype("float32")
    record = export_tflite(model, tmp_path / "m.tflite", variant, x, x, states="explicit", tolerances=Tolerances())
    assert [state.input for state in record.states] == ["gru_h"]
    assert 4 in bits_of(record)


def test_the_versions_say_what_the_operations_read(tmp_path):
    """Else an older runtime would take the file for one of floats, and compute something else or end."""
    versions = {op.name: op.version for op in export(built(mlp), tmp_path, W4).census.ops}
    assert versions["DEQUANTIZE"] == 6
    mixed = export(built(mlp), tmp_path, MIXED, road="quantizer")
    assert {op.version for op in mixed.census.ops if op.name == "FULLY_CONNECTED"} >= {10}
    # As TensorFlow's converter says it of the same weights.
    bridge = export(built(mlp), tmp_path, MIXED)
    assert 10 in {op.version for op in bridge.census.ops if op.name == "FULLY_CONNECTED"}
    assert bridge.min_runtime_version == mixed.min_runtime_version == "2.11.0"
    content = pathlib.Path(bridge.path).read_bytes()
    named = [(code.builtinCode, code.version) for code in quantizer.parsed(with_versions(content)).model.operatorCodes]
    assert set(named) >= {(code.builtinCode, code.version) for code in quantizer.parsed(content).model.operatorCodes}


def outer_names(model):
    opened = open_model(model)
    return {path for path, layer in opened.layers.items() if id(layer) in outer_layers(opened.legacy)}


OUTER = {
    mlp: {"first", "last"},
    several: {"conv", "dense", "kind", "size"},
    nested: {"body/a", "head"},
    transformer: {"table", "scores"},
}


@pytest.mark.parametrize("make", OUTER)
def test_the_first_and_last_layers_with_weights(make):
    assert outer_names(built(make)) == OUTER[make]


def test_the_first_and_last_operations_of_a_file(tmp_path):
    content = pathlib.Path(export(built(several), tmp_path, "float32").path).read_bytes()
    ((kind, name),) = inner_kernels(content, ("CONV_2D", "FULLY_CONNECTED"))
    assert kind == "FULLY_CONNECTED"
    assert name.startswith("hidden")


def one_layer():
    return keras.Sequential([keras.Input((6,), name="x"), L.Dense(3, name="only")])


def depthwise():
    return keras.Sequential([keras.Input((6, 6, 2), name="x"), L.DepthwiseConv2D(3), L.GlobalAveragePooling2D()])


def one_dimensional():
    return keras.Sequential([keras.Input((9, 2), name="x"), *(L.Conv1D(4, 2) for _ in range(3)), L.GlobalAveragePooling1D()])


def normalized():
    return keras.Sequential([keras.Input((6,), name="x"), L.Dense(8), L.LayerNormalization(), L.Dense(8), L.Dense(3)])


def spoilt():
    model = keras.models.clone_model(built(mlp))
    model.set_weights([np.full_like(w, np.nan) if w.shape == (24, 24) else w for w in built(mlp).get_weights()])
    return model


def every_layer_in_4_bits(folder):
    quantized = Quantize(weight_bits=4).apply(built(one_layer), data_of(built(one_layer)))
    return export(quantized, folder, MIXED, calibration=None)


def again_in_4_bits(folder):
    return export(trained(4), folder, MIXED, calibration=None), export(trained(8), folder, "int8", calibration=None)


REMEDIES = {
    "only outer layers": Row(
        "export it as int8; or let these have 4 bits too: export what Quantize(weight_bits=4).apply(model, calibration) returns",
        lambda f: export(built(one_layer), f, MIXED),
        lambda f: (export(built(one_layer), f, "int8"), every_layer_in_4_bits(f)),
    ),
    "no layer with a 4-bit form": Row(
        "export it as int8",
        lambda f: export(built(one_dimensional), f, MIXED),
        lambda f: export(built(one_dimensional), f, "int8"),
    ),
    "trained in 8 bits": Row(
        "train it again with QuantizeAware(weight_bits=4), or export it as int8",
        lambda f: export(trained(8), f, MIXED, calibration=None),
        again_in_4_bits,
    ),
    "quantized already": Row(
        "leave road= out: the integers of the model are used as they are",
        lambda f: export(trained(4), f, MIXED, calibration=None, road="quantizer"),
        lambda f: export(trained(4), f, MIXED, calibration=None),
    ),
    "no weights for 4 bits": Row(
        "export it as dynamic_range, whose weights have 8 bits",
        lambda f: export(built(depthwise), f, W4),
        lambda f: export(built(depthwise), f, "dynamic_range"),
    ),
    "none by the quantizer": Row(
        "export it as int8",
        lambda f: export(built(one_layer), f, MIXED, road="quantizer"),
        lambda f: export(built(one_layer), f, "int8"),
    ),
    "floats among integers": Row(
        "leave road= out: the bridge computes what TFLite has no integers of in operations that it has them of",
        lambda f: export(built(normalized), f, MIXED, road="quantizer"),
        lambda f: export(built(normalized), f, MIXED),
    ),
    "a loop": Row(
        "leave road= out: the bridge computes what TFLite has no integers of in operations that it has them of",
        lambda f: export(built(recurrent), f, MIXED, road="quantizer"),
        lambda f: export(built(recurrent), f, MIXED),
    ),
    "numbers that are not finite": Row(
        "check the weights, and that calibration data is scaled as in training",
        lambda f: export(spoilt(), f, MIXED, road="quantizer"),
        lambda f: export(built(mlp), f, MIXED, road="quantizer"),
    ),
    "a road that leads elsewhere": Row(
        "road='auto' or road='quantizer'",
        lambda f: export(built(mlp), f, W4, road="bridge"),
        lambda f: (export(built(mlp), f, W4), export(built(mlp), f, W4, road="quantizer")),
    ),
    "a runtime without floats of 4 bits": Row(
        "export as int8_int4_mixed, whose weights of 4 bits it multiplies integers with, or as int8",
        lambda f: export(built(mlp), f, W4, runtime="tflite-micro"),
        lambda f: [export(built(mlp), f, variant, runtime="tflite-micro") for variant in (MIXED, "int8")],
    ),
    "a runtime that is older": Row(
        "export as int8_int4_mixed, whose weights of 4 bits it multiplies integers with, or as int8",
        lambda f: export(built(mlp), f, W4, runtime="tflite-runtime-2.14"),
        lambda f: [export(built(mlp), f, variant, runtime="tflite-runtime-2.14") for variant in (MIXED, "int8")],
    ),
    "a kit of dense layers with a scale for each output": Row(
        "export it with runtime='tflite-micro': dense layers with weights of 4 bits then have one scale",
        lambda f: tfdistill.kit(export(built(mlp), f, MIXED, road="quantizer").path, "microcontroller", f / "kit"),
        lambda f: tfdistill.kit(export(built(mlp), f, MIXED, road="quantizer", runtime="tflite-micro").path, "microcontroller", f / "kit"),
    ),
    "a kit of such a file": Row(
        "take the variant int8_int4_mixed or int8: it makes no floats of weights of 4 bits",
        lambda f: tfdistill.kit(export(built(mlp), f, W4).path, "microcontroller", f / "kit"),
        lambda f: [
            tfdistill.kit(export(built(mlp), f, variant).path, "microcontroller", f / f"kit {variant}") for variant in (MIXED, "int8")
        ],
    ),
}


@pytest.mark.parametrize("row", REMEDIES)
def test_what_an_error_says_to_do_works(row, tmp_path):
    check(REMEDIES[row], tmp_path)


def failing(monkeypatch, content):
    """Lets the quantizer give another file."""
    monkeypatch.setattr(quantizer, "with_versions", lambda made: content(made))


def broken(made):
    """A file with too few weights, which no interpreter opens."""
    file = quantizer.parsed(with_versions(made))
    first = placed_kernels(file)[0]
    buffer = file.model.buffers[first.graph.tensors[first.tensor].buffer]
    buffer.data = buffer.data[:-8]
    return quantizer.pack(file.model, file.classes)


@pytest.mark.parametrize("variant", [W4, MIXED])
def test_a_file_that_does_not_open_is_refused_and_not_written(variant, tmp_path, monkeypatch):
    failing(monkeypatch, broken)
    with pytest.raises(ExportError, match="as litert-quantizer wrote it, does not run") as caught:
        export(built(mlp), tmp_path, variant, road="quantizer")
    assert caught.value.__cause__ is not None
    assert caught.value.fix == {W4: "export it as dynamic_range, whose weights have 8 bits", MIXED: "export it as int8"}[variant]
    assert list(tmp_path.iterdir()) == []
    export(built(mlp), tmp_path, {W4: "dynamic_range", MIXED: "int8"}[variant])


def test_what_the_quantizer_raises_is_told(tmp_path, monkeypatch):
    real = importlib.import_module(f"{installed()}.quantizer")

    class Failing(real.Quantizer):
        def quantize(self, *arguments, **settings):
            raise KeyError("a tensor")

    monkeypatch.setattr(real, "Quantizer", Failing)
    with pytest.raises(ExportError, match=r"could not quantize(.|\n)*KeyError(.|\n)*a tensor") as caught:
        export(built(mlp), tmp_path, W4)
    assert isinstance(caught.value.__cause__, KeyError)
    assert caught.value.fix == "export it as dynamic_range, whose weights have 8 bits"
    export(built(mlp), tmp_path, "dynamic_range")


def installed():
    return next(name for name in quantizer.PACKAGES if importlib.util.find_spec(name) is not None)


def test_without_the_package_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(quantizer, "PACKAGES", ("litert_quantizer_of_tomorrow",))
    monkeypatch.setitem(optional.EXTRAS, "litert_quantizer_of_tomorrow", "quantizer")
    for arguments in ({"variant": W4}, {"variant": MIXED, "road": "quantizer"}):
        with pytest.raises(MissingPackageError, match=r"tfdistill\[quantizer\]"):
            export(built(mlp), tmp_path, **arguments)
    assert list(tmp_path.iterdir()) == []
    export(built(mlp), tmp_path, MIXED)  # by the bridge, which needs no package


def test_either_name_of_the_package_is_taken(monkeypatch):
    assert optional.require_one(["no_such_package.part", "json.decoder"], "test").__name__ == "json.decoder"
    with pytest.raises(MissingPackageError, match="pip install no_such_package"):
        optional.require_one(["no_such_package.part", "nor_this"], "test")


@pytest.mark.parametrize("variant", [W4, MIXED])
def test_pre_flight_takes_the_variant(variant):
    assert not tfdistill.check(built(mlp), variant=variant).fails


def test_pre_flight_refuses_what_export_would():
    with pytest.raises(ModelError, match="were trained with 4 bits"):
        tfdistill.check(trained(8), variant=MIXED)
    assert not tfdistill.check(trained(4), variant=MIXED).fails


def test_quantized_for_8_bits_the_float_weights_are_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="trained quantization-aware for int8; as int4_weights"):
        export(trained(8), tmp_path, W4, calibration=None)


def test_the_terminal_stays_quiet(tmp_path, capfd):
    capfd.readouterr()
    for arguments in ({"variant": W4}, {"variant": MIXED, "road": "quantizer"}):
        export(built(mlp), tmp_path, **arguments)
    assert tuple(capfd.readouterr()) == ("", "")


def test_inspection_counts_the_bytes_as_weights(tmp_path):
    found = tfdistill.inspect(export(built(mlp), tmp_path, W4).path)
    assert found.bytes_by_kind["weights int4"] == 16 * 24 // 2 + 24 * 24 // 2 + 24 * 5 // 2
    assert {operation.kind for operation in found.operations if operation.name == "DEQUANTIZE"} == {"int4"}
    assert found.runtimes["tflite-micro"] == ("DEQUANTIZE of int4",)
    assert found.runtimes["tflite-runtime-2.14"] == ("DEQUANTIZE version 6 (up to 5 there)",)
    assert tfdistill.inspect(export(built(mlp), tmp_path, MIXED).path).runtimes == {"tflite-runtime-2.14": (), "tflite-micro": ()}


@pytest.mark.parametrize("variant", [W4, MIXED])
def test_a_kit_says_the_variant_that_it_holds(variant, tmp_path):
    path = export(built(mlp), tmp_path, variant).path
    assert tfdistill.kit(path, "raspberry_pi", tmp_path / "kit").variant == variant


# Runs in the environment of a runtime: what it computes with a file on rows of floats, or what it says.
RUNNING = """
import sys
import numpy as np
path, name = sys.argv[1:]
rows = np.load(path.replace(".tflite", ".npy"))
if name == "micro":
    from tflite_micro import runtime
    interpreter = runtime.Interpreter.from_file(path, arena_size=1 << 20)
    def run(row):
        interpreter.set_input(row[None], 0)
        interpreter.invoke()
        return interpreter.get_output(0)[0]
else:
    from tflite_runtime.interpreter import Interpreter
    interpreter = Interpreter(path)
    interpreter.allocate_tensors()
    def run(row):
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], row[None])
        interpreter.invoke()
        return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0]
np.save(path.replace(".tflite", ".found.npy"), np.array([run(row) for row in rows]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["old", "micro"])
@pytest.mark.parametrize("make", [mlp, convolutions])
def test_what_the_runtimes_of_devices_do_is_what_their_tables_say(runtime, make, tmp_path):
    python = sys.executable if runtime == "micro" else environments.python_with("tflite-runtime==2.14.0", "numpy<2")
    program = tmp_path / "program.py"
    program.write_text(RUNNING, encoding="utf-8")
    model, said = built(make), {"old": "tflite-runtime-2.14", "micro": "tflite-micro"}[runtime]
    rows = [(W4, {}), (MIXED, {}), (MIXED, {"road": "quantizer"}), (MIXED, {"road": "quantizer", "runtime": said})]
    # Dense layers of the quantizer have a scale for each output, unless a runtime is named.
    lacking = {0, 2} if make is mlp else {0}
    for row, (variant, arguments) in enumerate(rows):
        record = export(model, tmp_path, variant, io="float32", **arguments)
        np.save(str(record.path).replace(".tflite", ".npy"), data_of(model))
        done = subprocess.run([python, program, record.path, runtime], capture_output=True, text=True)
        lacks = tfdistill.inspect(record.path).runtimes[said]
        assert bool(done.returncode) == bool(lacks) == (row in lacking), (arguments, lacks, done.stderr[-500:])
        if not lacks:
            found = np.load(str(record.path).replace(".tflite", ".found.npy"))
            expected = next(iter(open_file(record.path, xnnpack=False).run({record.inputs[0].name: data_of(model)}).values()))
            assert np.abs(found - expected).max() < 0.02 * np.ptp(expected)


@pytest.mark.release
def test_the_package_under_its_former_name(tmp_path):
    """In an environment that has the older one alone; it takes a file that was made here."""
    content = pathlib.Path(export(built(mlp), tmp_path, "float32").path)
    program = tmp_path / "program.py"
    root = pathlib.Path(tfdistill.__file__).parents[1]
    program.write_text(
        "import sys\n"
        f"sys.path[:0] = [{str(root)!r}]\n"
        "from tfdistill.convert.quantizer import Quantization, PACKAGES\n"
        "from tfdistill.convert.variants import VARIANTS\n"
        "import importlib.util\n"
        "assert importlib.util.find_spec(PACKAGES[0]) is None\n"
        f"made = Quantization('mlp', VARIANTS['int4_weights'], 'float32')(open({str(content)!r}, 'rb').read())\n"
        f"open({str(tmp_path / 'former.tflite')!r}, 'wb').write(made)\n",
        encoding="utf-8",
    )
    python = environments.python_with("ai-edge-quantizer==0.10.0", "rich", "pydantic", "ai-edge-litert==2.3.0")
    subprocess.run([python, program], check=True, env={**os.environ, "PYTHONPATH": ""})
    ours = {name: values.tolist() for name, (values, _) in stored(export(built(mlp), tmp_path, W4).path).items()}
    theirs = {name: values.tolist() for name, (values, _) in stored(tmp_path / "former.tflite").items()}
    assert list(ours.values()) == list(theirs.values())


def test_a_model_of_several_signatures_of_which_one_has_no_4_bits_is_refused(tmp_path):
    with pytest.raises(ModelError, match="first and last ones"):
        export_tflite(
            {"a": built(mlp), "b": built(one_layer)},
            tmp_path / "two.tflite",
            MIXED,
            {"a": data_of(built(mlp)), "b": data_of(built(one_layer))},
        )
    assert list(tmp_path.iterdir()) == []
