"""Accuracy control: layers are kept wider until the drop on held-out data is met, as few as suffice, or nothing is written."""

import functools

import keras
import numpy as np
import pytest

from tfdistill.errors import ConfigurationError, DataError, VerificationError
from tfdistill.runtime.interpreter import open_file
from tfdistill.tflite import ExportRecord, Tolerances, export_tflite
from tfdistill.tflite.accuracy_control.floats import FloatSearch

L = keras.layers
RNG = np.random.default_rng(0)
X, HELD_OUT = (RNG.normal(size=(count, 12)).astype("float32") for count in (64, 800))


@functools.cache
def net():
    """A unit that nothing reads stretches the range of `outlier`, so that 8 bits are too few for the others."""
    keras.utils.set_random_seed(1)
    stack = [L.Dense(24, activation="relu", name=name) for name in ("first", "outlier", "second")]
    model = keras.Sequential([keras.Input((12,), name="x"), *stack, L.Dense(4, name="last")], name="net")
    kernel, bias = model.get_layer("outlier").get_weights()
    kernel[:, 0] *= 200
    model.get_layer("outlier").set_weights([kernel, bias])
    kernel, bias = model.get_layer("second").get_weights()
    kernel[0] = 0
    model.get_layer("second").set_weights([kernel, bias])
    return model


@functools.cache
def labels():
    return np.asarray(net()(HELD_OUT)).argmax(-1)


def export(folder, limit, **changed):
    settings = {"variant": "int8", "calibration": X, "verify_on": (HELD_OUT, labels()), "tolerances": Tolerances(), **changed}
    return export_tflite(net(), folder / "net.tflite", max_accuracy_drop_points=limit, **settings)


def drop_of(path):
    (outputs,) = open_file(path, trusted=True).run(HELD_OUT).values()
    return 100 * float((outputs.argmax(-1) != labels()).mean())


def test_layers_are_kept_wider_until_the_drop_is_met(tmp_path):
    plain = export_tflite(net(), tmp_path / "plain.tflite", "int8", calibration=X, tolerances=Tolerances())
    lost = drop_of(plain.path)
    record = export(tmp_path, lost / 2)
    assert drop_of(record.path) == pytest.approx(record.accuracy_drop_points)
    assert record.accuracy_drop_points <= lost / 2
    assert [(row.name, row.bits) for row in record.kept_wider] == [("outlier", 16)]
    assert record.kept_wider[0].error_after < record.kept_wider[0].error_before
    assert record.wide_layers == ("outlier",)
    assert record.road == "bridge"
    assert "outlier" in str(record)
    assert ExportRecord.load(record.save(tmp_path / "record.json")) == record


def test_nothing_is_widened_where_8_bits_suffice(tmp_path):
    record = export(tmp_path, 100)
    assert record.kept_wider == record.wide_layers == ()
    assert "int16" not in record.dtypes
    assert record.accuracy_drop_points == pytest.approx(100 * (record.keras_accuracy - record.accuracy))


def test_layers_of_4_bits_get_8_where_that_suffices(tmp_path):
    plain = export_tflite(net(), tmp_path / "plain.tflite", "int8_int4_mixed", calibration=X, tolerances=Tolerances())
    lost = drop_of(plain.path)
    assert set(plain.weight_bits.values()) == {4, 8}
    record = export(tmp_path, 0.9 * lost, variant="int8_int4_mixed")
    assert drop_of(record.path) == pytest.approx(record.accuracy_drop_points)
    assert record.accuracy_drop_points <= 0.9 * lost
    assert [row.bits for row in record.kept_wider] == sorted(row.bits for row in record.kept_wider)
    assert record.kept_wider[0].bits == 8
    assert 4 in record.weight_bits.values()


def test_weights_of_files_of_floats_get_8_bits(tmp_path):
    plain = export_tflite(net(), tmp_path / "plain.tflite", "int4_weights", tolerances=Tolerances())
    lost = drop_of(plain.path)
    record = export(tmp_path, 0.9 * lost, variant="int4_weights", calibration=None)
    assert drop_of(record.path) == pytest.approx(record.accuracy_drop_points)
    assert record.accuracy_drop_points <= 0.9 * lost
    wider = {row.name: row.bits for row in record.kept_wider}
    assert set(wider.values()) == {8}
    # What is said to be wider is so in the file, and nothing else.
    assert record.weight_bits == {name: wider.get(name, 4) for name in plain.weight_bits}
    assert all(row.error_after < row.error_before for row in record.kept_wider)
    assert record.road == "quantizer"


@pytest.mark.parametrize("make", [lambda: net(), lambda: convolutions()], ids=["dense", "convolutions"])
def test_all_weights_but_one_can_stay_in_float(make, tmp_path):
    model = make()
    x = np.random.default_rng(1).normal(size=(20, *model.input_shape[1:])).astype("float32")
    settings = dict(variant="int4_weights", calibration=None, verify_on=(x, np.zeros(20, int)), batch_size=1, max_calibration_samples=20)
    search = FloatSearch(export_tflite, model, settings, 0.0, tmp_path)
    search.measure_layers()
    with search.made_with(len(search.order)):
        record = export_tflite(model, tmp_path / "wide.tflite", "int4_weights", tolerances=Tolerances())
    assert sorted(record.weight_bits.values()) == [4, *[32] * (len(record.weight_bits) - 1)]
    assert len({row.name for row in search.kept(len(search.order))}) == len(record.weight_bits) - 1


def convolutions():
    keras.utils.set_random_seed(2)
    stack = [L.Conv2D(4, 3, name="conv"), L.DepthwiseConv2D(3, name="depthwise"), L.Conv2DTranspose(4, 3, name="transposed"), L.Flatten()]
    return keras.Sequential([keras.Input((8, 8, 2), name="x"), *stack, L.Dense(3, name="last")], name="convolutions")


@pytest.mark.slow
def test_where_no_bits_suffice_nothing_is_written(tmp_path):
    with pytest.raises(VerificationError, match=r"the best loses .* with .*'outlier'.* kept wider. Nothing was written"):
        export(tmp_path, 0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"verify_on": (X, np.zeros(64, int))}, "64 of the 64 samples of verify_on are calibration samples"),
        ({"verify_on": (np.concatenate([X[:40], HELD_OUT[:8]]), np.zeros(48, int))}, "40 of the 48 samples"),
        ({"verify_on": None}, "without verify_on="),
        ({"calibration": None}, "without calibration="),
    ],
)
def test_data_that_is_not_held_out_is_refused(changed, said, tmp_path):
    with pytest.raises(DataError, match=said):
        export(tmp_path, 1, **changed)


def test_data_without_labels_is_refused(tmp_path):
    with pytest.raises(DataError, match="needs an accuracy"):
        export(tmp_path, 1, verify_on=HELD_OUT)


@pytest.mark.parametrize("changed", [{"road": "converter"}, {"batch_size": None}, {"states": "explicit"}])
def test_settings_that_contradict_it_are_refused(changed, tmp_path):
    with pytest.raises(ConfigurationError, match="max_accuracy_drop_points was given with"):
        export(tmp_path, 1, **changed)


@pytest.mark.parametrize("limit", [-1, 101, "0.5", float("nan")])
def test_limits_that_are_no_points_are_refused(limit, tmp_path):
    with pytest.raises(ConfigurationError, match="max_accuracy_drop_points"):
        export(tmp_path, limit)


@pytest.mark.slow
def test_each_signature_is_held_by_itself(tmp_path):
    models = {"serving_default": net(), "again": keras.Model(net().inputs, net().outputs)}
    record = export_tflite(
        models,
        tmp_path / "two.tflite",
        "int8",
        calibration=X,
        verify_on=(HELD_OUT, labels()),
        tolerances=Tolerances(),
        max_accuracy_drop_points=drop_of(
            export_tflite(net(), tmp_path / "plain.tflite", "int8", calibration=X, tolerances=Tolerances()).path
        )
        / 2,
    )
    assert [row.name for row in record.kept_wider] == ["outlier"]
    assert set(record.signatures) == {"serving_default", "again"}
