"""A file is compared with its model layer by layer: exact files are exact everywhere, and the layer of a planted fault is the worst."""

import dataclasses
import os
import pathlib

import blame_models
import keras
import numpy as np
import pytest

import tfdistill
from tfdistill.convert.computed_tensors import ComputedTensor
from tfdistill.convert.packing import pack
from tfdistill.errors import ConfigurationError, DataError, VerificationError
from tfdistill.runtime.schema import schema
from tfdistill.tflite import export_tflite, layer_error, verify
from tfdistill.tflite.blame.calls import Call
from tfdistill.tflite.blame.matching import matches
from tfdistill.tflite.blame.sums import ErrorSums

L = keras.layers
NAMES = list(blame_models.PLANTED)


def rows_of(found):
    return {row.name: row.layers for row in found.layers if row.matched != "input"}


@pytest.mark.parametrize("name", ["convnet", "nested"])
def test_each_tensor_of_an_int8_file_is_that_of_its_layers(name):
    found = layer_error(blame_models.model(name), blame_models.file(name), blame_models.data(name))
    assert rows_of(found) == blame_models.PLANTED[name].rows
    assert found.unmatched == ()
    assert all(row.own_error < 0.03 for row in found.layers), str(found)
    inputs = [row.name for row in found.layers if row.matched == "input"]
    assert inputs == [tensor.name for tensor in blame_models.model(name).inputs]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("convnet", "nested")])
def test_each_tensor_of_other_int8_files_is_that_of_its_layers(name):
    found = layer_error(blame_models.model(name), blame_models.file(name), blame_models.data(name))
    assert rows_of(found) == blame_models.PLANTED[name].rows
    assert found.unmatched == ()
    assert all(row.own_error < 0.1 for row in found.layers), str(found)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("variant", ["float32", "float16"])
def test_in_a_file_of_floats_every_layer_is_exact(name, variant):
    found = layer_error(blame_models.model(name), blame_models.file(name, variant), blame_models.data(name))
    assert rows_of(found) == blame_models.PLANTED[name].rows
    limit = 2e-6 if variant == "float32" else 3e-3  # weights of half precision have eleven bits
    assert all(row.own_error < limit and row.total_error < 4 * limit for row in found.layers), str(found)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["convnet", "residual", "perceptron", "nested"])
def test_the_files_of_the_converter_have_the_same_rows(name):
    found = layer_error(blame_models.model(name), blame_models.file(name, "int8", "converter"), blame_models.data(name))
    assert rows_of(found) == blame_models.PLANTED[name].rows


def test_the_last_rows_are_what_verification_measures():
    model, x = blame_models.model("convnet"), blame_models.data("convnet")
    row = layer_error(model, blame_models.file("convnet"), x).layers[-1]
    output = verify(blame_models.file("convnet"), model, x).outputs["logits"]
    # XNNPACK, which runs the verification, rounds halves another way: by one step of the output.
    assert row.max_abs_error == pytest.approx(output.max_abs_error, abs=2e-2 * output.scale)
    assert row.spread == pytest.approx(float(np.std(model(x))), rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_scale_that_is_ten_times_too_coarse_is_the_worst(name):
    found = layer_error(blame_models.model(name), blame_models.coarse_file(name), blame_models.data(name))
    assert found.worst.name.partition("@")[0] == blame_models.PLANTED[name].coarse, str(found)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_wrong_preprocessing_is_an_error_of_the_input(name):
    x = blame_models.data(name)
    pixels = [127.5 + 127.5 * a for a in x] if isinstance(x, list) else 127.5 + 127.5 * x
    found = layer_error(blame_models.model(name), blame_models.file(name), pixels)
    assert found.worst.matched == "input", str(found)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_stale_statistics_are_an_error_of_their_layer(name):
    found = layer_error(blame_models.model(name), blame_models.stale_file(name), blame_models.data(name))
    norm, row = blame_models.PLANTED[name].stale
    assert found.worst.name.partition("@")[0] == row, str(found)
    assert norm in found.worst.layers
    after = [r for r in found.layers[found.layers.index(found.worst) + 1 :] if r.matched != "input"]
    # What comes behind has come to be wrong, too, but not by itself.
    assert all(r.total_error > 3 * r.own_error for r in after if r.name not in ("encoder/relu@1", "encoder/relu")), str(found)


def test_keras_own_names_with_numbers_are_not_mixed_up():
    """`conv2d` is traced as `conv2d_1`, which is the name of the next layer."""
    keras.backend.clear_session()
    inputs = keras.Input((6, 6, 2))
    x = L.Conv2D(4, 3, padding="same", activation="relu")(inputs)
    x = L.Conv2D(4, 3, padding="same", activation="relu")(x)
    x = L.Conv2D(4, 3, padding="same", activation="relu")(x)
    model = keras.Model(inputs, L.Dense(3)(L.Flatten()(x)))
    samples = np.random.default_rng(0).normal(size=(16, 6, 6, 2)).astype("float32")
    for variant in ("float32", "int8"):
        path = export_tflite(model, blame_models.folder() / f"numbered-{variant}.tflite", variant, calibration=samples).path
        found = layer_error(model, path, samples)
        assert [row.name for row in found.layers[1:]] == [layer.name for layer in model.layers[1:]]
        assert found.worst.own_error < 0.02, str(found)


def nameless(path):
    """Writes a copy of a file as other tools write it: without the names of layers."""
    classes = schema()
    parsed = classes.ModelT.InitFromObj(classes.Model.GetRootAs(path.read_bytes(), 0))
    for graph in parsed.subgraphs:
        for index, tensor in enumerate(graph.tensors):
            tensor.name = f"t{index}".encode()
    copy = path.with_name(f"nameless-{path.name}")
    copy.write_bytes(pack(parsed, classes))
    return copy


def test_without_names_tensors_are_found_by_their_values():
    path = nameless(blame_models.folder() / blame_models.file("convnet"))
    found = layer_error(blame_models.model("convnet"), path, blame_models.data("convnet"))
    assert rows_of(found) == blame_models.PLANTED["convnet"].rows
    assert [row.matched for row in found.layers] == ["input", "values", "values", "values", "output"]
    assert found.worst.own_error < 0.03


def test_values_that_go_together_loosely_are_not_taken():
    rng = np.random.default_rng(0)
    true = rng.normal(size=(32, 5))
    calls = [Call("a", 0, 5), Call("end", 0, 2)]
    tensors = [ComputedTensor(7, "ADD", (1, 5), ("x",), 0), ComputedTensor(9, "ADD", (1, 2), ("y",), 7)]
    floats = {"a": true, "end": rng.normal(size=(32, 2))}
    for noise, expected in ((0.1, {"a", "end"}), (1.0, {"end"})):
        values = {7: true + noise * rng.normal(size=true.shape), 9: floats["end"]}
        assert set(matches(calls, ["end"], [9], tensors, floats, values)) == expected


def test_the_sums_are_those_of_an_independent_formula(rng):
    expected, local, actual = rng.normal(3.0, 2.0, (3, 40, 6))
    sums = ErrorSums()
    for part in (slice(0, 7), slice(7, 40)):
        sums.add(expected[part], local[part], actual[part])
    figures = sums.figures()
    assert figures["spread"] == pytest.approx(expected.std())
    assert figures["own_error"] == pytest.approx(np.sqrt(((actual - local) ** 2).mean()) / local.std())
    assert figures["total_error"] == pytest.approx(np.sqrt(((actual - expected) ** 2).mean()) / expected.std())
    assert figures["max_abs_error"] == np.abs(actual - expected).max()


@pytest.mark.parametrize(("value", "actual", "error"), [(0.0, 0.0, 0.0), (0.0, 0.5, 0.5), (4.0, 5.0, 0.25)])
def test_what_does_not_vary_is_compared_by_its_magnitude(value, actual, error):
    sums = ErrorSums()
    sums.add(np.full(8, value), np.full(8, value), np.full(8, actual))
    assert sums.figures()["own_error"] == pytest.approx(error)


def test_the_record_is_saved_read_and_drawn(tmp_path):
    found = layer_error(blame_models.model("convnet"), blame_models.file("convnet"), blame_models.data("convnet"), max_samples=8)
    assert found.samples == 8
    assert type(found).load(found.save(tmp_path / "layers.json")) == found
    assert found.plot(tmp_path / "layers.png").read_bytes()[:4] == b"\x89PNG"
    assert [row.own_error for row in found.worst_first] == sorted((row.own_error for row in found.layers), reverse=True)
    assert found.worst.name in str(found)
    assert dataclasses.replace(found, layers=found.layers[:1]).worst is found.layers[0]


REFUSED = {
    "another model": (lambda: ("residual", blame_models.file("convnet"), blame_models.data("residual")), VerificationError),
    "no file": (lambda: ("convnet", "none.tflite", blame_models.data("convnet")), ConfigurationError),
    "data of another shape": (lambda: ("convnet", blame_models.file("convnet"), np.zeros((4, 3, 3, 1))), DataError),
    "inputs of other names": (lambda: ("convnet", blame_models.file("series"), blame_models.data("convnet")), VerificationError),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused(case):
    name, path, samples = REFUSED[case][0]()
    with pytest.raises(REFUSED[case][1]):
        layer_error(blame_models.model(name), path, samples)


@pytest.mark.parametrize("value", [0, -1, 2.5])
def test_a_number_of_samples_that_is_none_is_refused(value):
    with pytest.raises(ConfigurationError):
        layer_error(blame_models.model("convnet"), blame_models.file("convnet"), blame_models.data("convnet"), max_samples=value)


@pytest.mark.slow
def test_the_layers_of_official_files_are_found_by_their_names_of_mlperf_tiny():
    """ResNet-8 of MLPerf Tiny: a file of another release of the converter, whose input has another name than the model's."""
    folder = pathlib.Path(os.environ["TFDISTILL_MLPERF_TINY"])
    model = tfdistill.load_model(folder / "pretrainedResnet.h5")
    pixels = np.random.default_rng(0).integers(0, 256, (16, 32, 32, 3)).astype("float32")
    found = layer_error(model, folder / "pretrainedResnet_quant.tflite", pixels)
    assert found.unmatched == ()
    assert len(found.layers) == 16
    assert {row.matched for row in found.layers} == {"input", "name", "output"}
    assert found.worst.own_error < 0.05, str(found)
