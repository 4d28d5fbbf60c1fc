"""MediaPipe Tasks, a reader by others, finds the labels and the normalization in our files: its names of classes are ours."""

import json
import pathlib
import subprocess

import environments
import keras
import numpy as np
import pytest

import tfdistill
from tfdistill.runtime.interpreter import open_file
from tfdistill.tflite import FileMetadata, Normalization

MEDIAPIPE = "mediapipe==1.2.2"
# Each name has a color; in another order of the channels it would be that of another name.
COLORS = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1), "jaune doré": (1, 0.8, 0), "cyan": (0, 1, 1), "violet": (0.6, 0, 1)}
FILES = [("float32", "float32"), ("float16", "float32"), ("int8", "float32"), ("int8", "uint8")]
# Texts, numbers of the kinds (an image in red, green, blue; a normalization; labels of the last axis), mean and standard deviation.
WRITTEN = ["colors", "Ada", "MIT", "1.0.0", "image", "color", "labels.txt", 2, 1, 1, 2, 127.5, 127.5]


def photos(number, seed):
    """Noisy pictures as bytes, and the indices of their colors."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, len(COLORS), number)
    colors = np.array(list(COLORS.values()))[labels][:, None, None]
    bright, noise = rng.uniform(0.6, 1, (number, 1, 1, 1)), rng.normal(0, 0.15, (number, 16, 16, 3))
    return (255 * np.clip(bright * colors + noise, 0, 1)).astype("uint8"), labels


@pytest.fixture(scope="module")
def classifier():
    """A classifier of the photos that computes with pixels from -1 to 1."""
    keras.utils.set_random_seed(3)
    layers = [keras.layers.Conv2D(8, 3, activation="relu"), keras.layers.GlobalAveragePooling2D()]
    model = keras.Sequential([keras.Input((16, 16, 3), name="image"), *layers, keras.layers.Dense(len(COLORS), "softmax", name="color")])
    model.compile(keras.optimizers.Adam(0.02), "sparse_categorical_crossentropy")
    x, y = photos(600, 0)
    model.fit(x / 127.5 - 1, y, epochs=8, verbose=0)
    return model


@pytest.mark.slow
def test_the_names_are_those_of_our_own_classes(classifier, tmp_path):
    pixels, labels = photos(100, 1)
    names, x = np.array(list(COLORS)), (pixels / 127.5 - 1).astype("float32")
    about = FileMetadata(name="colors", author="Ada", license="MIT", labels=list(COLORS), normalization=Normalization(127.5, 127.5))
    ours = {}
    for variant, io in FILES:
        path = tmp_path / f"{variant}_{io}.tflite"
        tfdistill.export_tflite(classifier, path, variant, calibration=x, verify_on=(x, labels), io=io, metadata=about)
        (scores,) = open_file(path).run(x).values()
        ours[str(path)] = names[scores.argmax(-1)]
    np.save(tmp_path / "images.npy", pixels)
    python = environments.python_with(MEDIAPIPE)
    job = pathlib.Path(__file__).with_name("mediapipe_job.py")
    done = subprocess.run([python, "-I", job, tmp_path / "images.npy", *ours], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    theirs = json.loads(done.stdout)
    for path, found in ours.items():
        assert (found == theirs[path]["names"]).sum() >= 99, path
        assert theirs[path]["written"] == WRITTEN
        assert (found == names[labels]).mean() > 0.9
