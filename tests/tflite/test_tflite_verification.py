"""Verification: its figures against NumPy, and its refusal of files that compute something else."""

import pathlib

import keras
import numpy as np
import pytest

from tfdistill.convert.variants import VARIANTS
from tfdistill.errors import ConfigurationError, DataError, ExportError, VerificationError
from tfdistill.tflite import Tolerances, VerificationRecord, export_tflite, verify
from tfdistill.tflite.verification.verify import compare

X = np.random.default_rng(0).standard_normal((60, 8)).astype("float32")


def model_of(seed, outputs=3, inputs=8, name="x"):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [keras.Input((inputs,), name=name), keras.layers.Dense(16, activation="relu"), keras.layers.Dense(outputs, name="out")]
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("verify")


@pytest.fixture(scope="module")
def files(folder):
    model = model_of(1)
    return {variant: export_tflite(model, folder / f"{variant}.tflite", variant, calibration=X).path for variant in ("float32", "int8")}


def test_figures_against_numpy():
    rng = np.random.default_rng(3)
    expected = rng.standard_normal((50, 4))
    actual = expected + 0.2 * rng.standard_normal((50, 4))
    labels = rng.integers(0, 4, 50)
    found = compare(expected, actual, labels)
    assert found.max_abs_error == pytest.approx(max(abs(e - a) for e, a in zip(expected.ravel(), actual.ravel(), strict=True)))
    assert found.mean_abs_error == pytest.approx(sum(abs(expected - actual).ravel()) / 200)
    assert found.scale == pytest.approx(max(expected.max() - expected.min(), abs(expected).max()))
    wins = [int(np.argmax(e)) == int(np.argmax(a)) for e, a in zip(expected, actual, strict=True)]
    assert found.argmax_agreement == pytest.approx(sum(wins) / 50)
    clear = [w for e, w in zip(expected, wins, strict=True) if sorted(e)[-1] - sorted(e)[-2] > 0.1 * found.scale]
    assert (found.decided, found.decided_agreement) == (len(clear), pytest.approx(sum(clear) / len(clear)))
    assert found.accuracy == pytest.approx(sum(int(np.argmax(a)) == t for a, t in zip(actual, labels, strict=True)) / 50)
    assert found.keras_accuracy == pytest.approx(sum(int(np.argmax(e)) == t for e, t in zip(expected, labels, strict=True)) / 50)
    assert compare(expected, actual, np.eye(4)[labels]) == found == compare(expected, actual, labels[:, None])


@pytest.mark.parametrize(("shape", "classes"), [((9,), False), ((9, 1), False), ((9, 2), True), ((9, 5, 3), True)])
def test_only_outputs_with_classes_have_an_agreement(shape, classes):
    values = np.random.default_rng(0).random(shape)
    assert (compare(values, values).argmax_agreement == 1.0) is classes


@pytest.mark.parametrize("variant", ["float32", "int8"])
def test_own_file_passes(files, variant):
    record = verify(files[variant], model_of(1), X, variant=variant)
    assert record.samples == 60
    assert set(record.outputs) == {"out"}
    assert VerificationRecord.from_dict(record.to_dict()) == record


@pytest.mark.parametrize("variant", ["float32", "int8"])
def test_file_of_another_model_fails(files, variant):
    with pytest.raises(VerificationError, match=r"Output 'out' of '.*tflite' is .* away from Keras's"):
        verify(files[variant], model_of(2), X, variant=variant)


def test_disagreeing_classes_fail(files):
    with pytest.raises(VerificationError, match="clearly decided samples"):
        verify(files["int8"], model_of(2), X, tolerances=Tolerances(min_argmax_agreement=0.9))


def test_empty_tolerances_only_measure(files):
    record = verify(files["int8"], model_of(2), X, tolerances=Tolerances())
    assert record.argmax_agreement < 0.9


@pytest.mark.parametrize(
    ("model", "match"), [(model_of(1, outputs=4), "gives"), (model_of(1, name="other"), "takes the inputs"), (model_of(1, inputs=8), None)]
)
def test_file_must_have_the_models_names_and_shapes(files, model, match):
    if match is None:
        verify(files["float32"], model, X)
    else:
        with pytest.raises(VerificationError, match=match):
            verify(files["float32"], model, X)


BAD_LABELS = [
    (np.zeros(59, int), "different numbers of samples|have the shape"),
    (np.full(60, 3), "run from 3 to 3"),
    (np.full(60, -1), "run from -1"),
    (np.zeros((60, 4)), "have the shape"),
    ([np.zeros(60, int)] * 2, "2 arrays of labels"),
    ({"none": np.zeros(60, int)}, "labels for the outputs"),
]


@pytest.mark.parametrize(("labels", "match"), BAD_LABELS)
def test_bad_labels(files, labels, match):
    with pytest.raises(DataError, match=match):
        verify(files["float32"], model_of(1), X, labels)


def test_labels_of_several_outputs_by_name(folder):
    x = keras.Input((8,), name="x")
    model = keras.Model(x, [keras.layers.Dense(3, name="a")(x), keras.layers.Dense(2, name="b")(x)])
    path = export_tflite(model, folder / "two.tflite").path
    truth = [out.numpy().argmax(-1) for out in model(X)]
    assert verify(path, model, X, truth).accuracy == 1.0
    assert verify(path, model, X, {"b": 1 - truth[1]}).accuracy == 0.0
    with pytest.raises(DataError, match="One array of labels"):
        verify(path, model, X, truth[0])


def test_not_finite():
    values = np.ones((4, 2))
    with pytest.raises(VerificationError, match="file's output 'o' is NaN"):
        compare(values, values * np.nan, name="o")
    with pytest.raises(DataError, match="Keras model's output 'o' is NaN"):
        compare(values * np.nan, values, name="o")


@pytest.mark.parametrize(
    "arguments",
    [{"max_relative_error": -1}, {"max_relative_mean_error": -0.1}, {"min_argmax_agreement": 1.1}, {"min_argmax_agreement": -1}],
)
def test_impossible_tolerances(arguments):
    with pytest.raises(ConfigurationError, match=next(iter(arguments))):
        Tolerances(**arguments)


def test_every_variant_is_verified_by_default():
    for variant in VARIANTS.values():
        assert variant.tolerances != Tolerances()


def test_damaged_and_missing_files(files, tmp_path):
    with pytest.raises(ConfigurationError, match="There is no file"):
        verify(tmp_path / "none.tflite", model_of(1), X)
    cut = tmp_path / "cut.tflite"
    cut.write_bytes(pathlib.Path(files["int8"]).read_bytes()[:900])
    with pytest.raises(ExportError, match="is damaged"):
        verify(cut, model_of(1), X)
