"""Folders of images as calibration and verification data: what Keras reads, of every class its share, with the model's preprocessing."""

import functools
import pathlib
import tempfile

import keras
import numpy as np
import pytest
from keras import layers as L

from tfdistill.convert.image_folder import chosen, class_of_each
from tfdistill.convert.samples import collect
from tfdistill.convert.signature import describe
from tfdistill.errors import ConfigurationError, DataError
from tfdistill.tflite import FileMetadata, ImageFolder, Normalization, export_tflite

SIZES = {"ant": 20, "bee": 4, "cat": 1}


@functools.cache
def folder():
    """Images of three classes and of several sizes, and a file that is none."""
    import tensorflow as tf

    rng, root = np.random.default_rng(0), pathlib.Path(tempfile.mkdtemp())
    for name, count in SIZES.items():
        (root / name).mkdir()
        for i in range(count):
            image = rng.integers(0, 256, (9 + i % 3, 12, 3)).astype("uint8")
            encoded = tf.io.encode_png(image) if i % 2 else tf.io.encode_jpeg(image)
            tf.io.write_file(str(root / name / f"{i:02}.{'png' if i % 2 else 'JPG'}"), encoded)
    (root / "ant" / "notes.txt").write_text("not an image")
    return root


@functools.cache
def model():
    inputs = keras.Input((8, 8, 3), name="image")
    return keras.Model(inputs, L.Dense(3, name="scores")(L.Flatten()(L.Conv2D(4, 3, name="conv")(inputs))))


def test_the_images_are_those_that_keras_reads():
    samples = collect(folder(), describe(model()))
    theirs = keras.utils.image_dataset_from_directory(folder(), image_size=(8, 8), shuffle=False, batch_size=25, verbose=False)
    ((images, labels),) = theirs.as_numpy_iterator()
    np.testing.assert_allclose(samples.inputs["image"], images, atol=1e-3)
    np.testing.assert_array_equal(samples.labels, labels)


def test_each_class_has_its_share_where_not_all_are_read():
    samples = collect(ImageFolder(folder()), describe(model()), minimum=10, limit=10)
    assert np.bincount(samples.labels).tolist() == [8, 1, 1]


@pytest.mark.parametrize("count", [1, 30, 200])
@pytest.mark.parametrize("limit", [2, 7, 16, 64])
@pytest.mark.parametrize("classes", [1, 2, 5, 40])
def test_shares_are_those_of_the_classes(count, limit, classes):
    labels = np.random.default_rng(count).integers(0, classes, count)
    kept = chosen(count, limit, labels)
    assert len(kept) == len(set(kept)) == min(count, limit)
    assert (np.diff(kept) > 0).all()
    present = len(set(labels))
    if 1 < present <= limit < count:
        for label in set(labels):
            share = limit * (labels == label).mean()
            assert (labels[kept] == label).sum() >= min(1, share)
            assert abs((labels[kept] == label).sum() - share) <= max(2.0, present / 2)


def test_arrays_with_labels_of_classes_are_shared_out_too():
    x = np.arange(100.0)[:, None] * np.ones((100, 192), "float32")
    labels = np.repeat([0, 1], [95, 5])
    for given in (labels, labels[:, None], np.eye(2)[labels]):
        samples = collect((x.reshape(100, 8, 8, 3), given), describe(model()), limit=20)
        assert samples.count == 20
        assert (samples.positions >= 95).sum() == 1
    assert class_of_each(np.array([0.5, 1.5]), 2) is None
    assert class_of_each({"a": labels}, 100) is None


def test_preprocessing_is_a_function_or_the_normalization_of_the_metadata(tmp_path):
    scaled = ImageFolder(folder(), preprocess=lambda images: images / 127.5 - 1)
    samples = collect(scaled, describe(model()))
    assert samples.inputs["image"].min() < -0.8
    assert samples.inputs["image"].max() <= 1.0
    record = export_tflite(model(), tmp_path / "a.tflite", "int8", calibration=scaled)
    about = FileMetadata(normalization=Normalization(127.5, 127.5))
    described = export_tflite(model(), tmp_path / "b.tflite", "int8", calibration=str(folder()), metadata=about)
    assert described.calibration_samples == record.calibration_samples == 25
    assert described.inputs[0].scale == pytest.approx(record.inputs[0].scale, rel=1e-5)
    pixels = export_tflite(model(), tmp_path / "c.tflite", "int8", calibration=str(folder()))
    assert pixels.inputs[0].scale == pytest.approx(1.0, rel=0.1)


def test_a_folder_without_classes_has_no_labels():
    samples = collect(folder() / "ant", describe(model()))
    assert samples.count == 20
    assert samples.labels is None


def damaged(root):
    root.mkdir()
    (root / "a.png").write_bytes(b"\x89PNG no more")
    return root


def vectors():
    return keras.Sequential([keras.Input((8,)), L.Dense(2)])


REFUSED = {
    "no folder": (lambda root: ImageFolder(root / "none"), model, ConfigurationError, "There is no folder"),
    "no images": (lambda root: root, model, DataError, "holds no images"),
    "a damaged image": (lambda root: damaged(root / "bad"), model, DataError, r"a\.png' cannot be read"),
    "a model of vectors": (lambda root: folder(), vectors, ConfigurationError, "the model takes"),
    "another shape": (lambda root: ImageFolder(folder(), lambda x: x[..., :1]), model, DataError, "preprocess made images"),
    "too few": (lambda root: folder() / "bee", model, DataError, "holds 4 samples"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_data_is_refused(case, tmp_path):
    make, of, kind, text = REFUSED[case]
    with pytest.raises(kind, match=text):
        collect(make(tmp_path), describe(of()), minimum=16)


@pytest.mark.parametrize("road", ["bridge", "converter"])
def test_equal_samples_are_refused_for_integers(road, tmp_path):
    with pytest.raises(DataError, match="All 20 samples of the calibration data are equal"):
        export_tflite(model(), tmp_path / "m.tflite", "int8", calibration=np.ones((20, 8, 8, 3)), road=road)
    export_tflite(model(), tmp_path / "m.tflite", calibration=np.ones((20, 8, 8, 3)))
