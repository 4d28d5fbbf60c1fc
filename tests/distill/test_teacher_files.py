"""A .tflite teacher whose file changes while it teaches, and inputs that an integer file has no number for."""

import keras
import numpy as np
import pytest

from tfdistill.distill.teachers.files import TFLiteTeacher
from tfdistill.errors import DataError, ModelError
from tfdistill.runtime.interpreter import TensorInfo, open_file
from tfdistill.tflite import export_tflite

X = np.random.default_rng(0).random((24, 6), dtype="float32")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder, contents = tmp_path_factory.mktemp("teachers"), []
    for seed in (1, 2):
        start = keras.initializers.RandomNormal(seed=seed)
        model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3, kernel_initializer=start)])
        made = {"model": model}
        for variant in ("float32", "int8"):
            record = export_tflite(model, folder / f"{seed}_{variant}.tflite", variant, calibration=X, batch_size=None)
            with open(record.path, "rb") as file:
                made[variant] = file.read()
        contents.append(made)
    return contents


def _truncate(path, other):
    with open(path, "r+b") as file:
        file.truncate(100)


def _overwrite(path, other):
    with open(path, "r+b") as file:
        file.write(other)


def _replace(path, other):
    beside = path.with_suffix(".new")
    beside.write_bytes(other)
    beside.replace(path)


CHANGES = {
    "replaced": _replace,
    "overwritten in place": _overwrite,
    "cut": _truncate,
    "emptied": lambda path, other: path.write_bytes(b""),
    "removed": lambda path, other: path.unlink(),
    "a folder now": lambda path, other: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("how", CHANGES)
def test_a_file_that_changes_while_in_use_changes_no_answer(how, exported, tmp_path):
    path = tmp_path / "teacher.tflite"
    path.write_bytes(exported[0]["float32"])
    teacher, expected = TFLiteTeacher(path), exported[0]["model"](X).numpy()
    np.testing.assert_allclose(teacher(X[:4]).numpy(), expected[:4], atol=1e-5)
    CHANGES[how](path, exported[1]["float32"])
    # A batch that was opened before, and three that are opened now.
    for rows in (4, 7, 16, 24):
        np.testing.assert_allclose(teacher(X[:rows]).numpy(), expected[:rows], atol=1e-5)
    # What is saved is what answered.
    with pytest.raises(ModelError, match=r"is not the one that was saved|is not there|is a folder"):
        TFLiteTeacher.from_config(teacher.get_config())


def _hole(value, *index):
    x = X.copy()
    x[index] = value
    return x


HOLES = [(float("nan"), 0, 0, "NaN"), (float("nan"), 23, 5, "NaN"), (float("inf"), 7, 2, "infinity"), (-float("inf"), 11, 1, "infinity")]


@pytest.mark.parametrize(("value", "row", "column", "word"), HOLES)
def test_an_integer_file_refuses_what_it_has_no_number_for(value, row, column, word, exported, tmp_path):
    path = tmp_path / "int8.tflite"
    path.write_bytes(exported[0]["int8"])
    x, match = (
        _hole(value, row, column),
        rf"Input '\w+' holds {word}: 1 of 144 values; the first at sample {row} \(index \[{row}, {column}\]\)",
    )
    with pytest.raises(DataError, match=match):
        open_file(path).run(x)
    with pytest.raises(DataError, match=match):
        TFLiteTeacher(path)(x)
    assert np.isfinite(TFLiteTeacher(path)(X)).all()


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32", "int64"])
@pytest.mark.parametrize("scale", [0.1, None])
@pytest.mark.parametrize("given", ["float16", "float32", "float64"])
def test_no_integer_type_takes_nan(dtype, scale, given):
    info = TensorInfo("x", 0, (1, 2), dtype, scale)
    whole = np.array([[1, 2], [3, 4]], given)
    assert info.quantize(whole).dtype == dtype
    whole[1, 0] = np.nan
    with pytest.raises(DataError, match=r"'x' holds NaN: 1 of 4 values; the first at sample 1 \(index \[1, 0\]\)"):
        info.quantize(whole)


@pytest.mark.parametrize(
    "values", [np.float32([3e38, 3e38, -3e38]), np.float64([1e308, 1e308]), np.float16([65504.0] * 40), np.float32(2.0)]
)
def test_large_numbers_are_clipped_not_refused(values):
    expected = np.clip(np.round(np.clip(np.float64(values), -1e6, 1e6) / 0.5), -128, 127).astype("int8")
    np.testing.assert_array_equal(TensorInfo("x", 0, (3,), "int8", 0.5).quantize(values), expected)


def test_float_files_keep_their_nan():
    info = TensorInfo("x", 0, (2,), "float32")
    np.testing.assert_array_equal(info.quantize(np.float64([np.nan, np.inf])), np.float32([np.nan, np.inf]))


def mixing(over_the_batch):
    """A model for one sample; its mean goes over the batch as well, which at that size changes nothing."""
    inputs = keras.Input(batch_shape=(1, 5, 4))
    centered = inputs - keras.ops.mean(inputs, axis=(0, 1) if over_the_batch else 1, keepdims=True)
    return keras.Model(inputs, keras.layers.Dense(3)(centered))


@pytest.mark.parametrize("over_the_batch", [False, True])
def test_a_file_that_mixes_the_samples_of_a_batch_runs_one_by_one(over_the_batch, tmp_path):
    x = np.random.default_rng(0).normal(size=(6, 5, 4)).astype("float32")
    path = export_tflite(mixing(over_the_batch), tmp_path / "m.tflite").path
    teacher = TFLiteTeacher(path)
    alone = open_file(path).run(x)
    np.testing.assert_allclose(teacher.run(x), next(iter(alone.values())), atol=1e-5)
    # The other one is run as a batch.
    assert (teacher._box.open[6] is teacher._box.own) == over_the_batch
