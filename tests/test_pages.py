"""The Python code in README and docs runs as it is written, block after block of a page, on small models and data."""

import pathlib
import re

import custom_layers
import keras
import numpy as np
import pytest
from example_names import classifier, images

import tfdistill

ROOT = pathlib.Path(__file__).parents[1]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
}
WITH_CODE = [page for page, text in PAGES.items() if BLOCK.search(text)]
CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def image_names():
    """Classifiers of images, and their data, as the README has them."""
    x, y = images()
    teacher, student = classifier(16, "teacher"), classifier(8, "student")
    names = dict(teacher=teacher, student=student, x_train=x, y_train=y, x_test=x, y_test=y, steps_per_epoch=2, loss=CROSS_ENTROPY)
    for kind, classes, activation in (("softmax", 10, "softmax"), ("label", 3, "sigmoid"), ("regression", 1, None)):
        for role in ("teacher", "student"):
            layers = [keras.Input(x.shape[1:]), keras.layers.Flatten(), keras.layers.Dense(classes, activation, name="classes")]
            names[f"{kind}_{role}"] = keras.Sequential(layers, name=role)
    names.update(y_labels=np.stack([y % 2, y % 3 == 0, y > 4], axis=-1).astype("float32"), y_numbers=y[:, None].astype("float32"))
    tokens = np.random.default_rng(0).integers(1, 1000, (32, 6))
    tokens[:, 4:] = 0
    names.update({f"photo_{role}": photo_classifier(width, role) for role, width in (("teacher", 16), ("student", 8))})
    return {**names, "tokens": tokens, "tags": tokens % 9, "images": x}


def photo_classifier(width, name):
    """A classifier of the photos that `put_photos` writes, with the scaling of bytes in it."""
    layers = [keras.Input((28, 28, 3)), keras.layers.Rescaling(1 / 255), keras.layers.Conv2D(width, 3, strides=4, activation="relu")]
    return keras.Sequential([*layers, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)], name=name)


def put_photos(folder):
    """Writes 20 pictures of noise into each of two subfolders."""
    rng = np.random.default_rng(0)
    for number in range(40):
        path = folder / ("cats", "dogs")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        keras.utils.save_img(path, rng.integers(0, 256, (32, 40, 3)).astype("float32"), scale=False)


def compression_names():
    """The same, with a teacher of residual blocks, some of which can be left out."""
    names = image_names()
    inputs = keras.Input(names["x_train"].shape[1:])
    x = keras.layers.Conv2D(32, 3, padding="same")(inputs)
    for _ in range(6):
        inside = keras.layers.Conv2D(32, 3, padding="same", activation="relu")(x)
        x = keras.layers.Add()([x, keras.layers.Conv2D(32, 3, padding="same")(inside)])
    x = keras.layers.GlobalAveragePooling2D()(x)
    teacher = keras.Model(inputs, keras.layers.Dense(10, name="logits")(x), name="teacher")
    return {**names, "teacher": teacher, "bert": custom_layers.sequence(custom_layers.GatedMLP(64, name="encoder"))}


def encoder_net(name, block, attention, width):
    """A net with an attention layer inside a nested model `encoder`, and a block after it."""
    inside = keras.Input((6, width))
    encoder = keras.Model(inside, keras.layers.MultiHeadAttention(2, 4, name=attention)(inside, inside), name="encoder")
    inputs = keras.Input((6, 4))
    x = encoder(keras.layers.Dense(width, name="stem")(inputs))
    x = keras.layers.Dense(width, activation="relu", name=block)(x)
    return keras.Model(inputs, keras.layers.Dense(10)(keras.layers.GlobalAveragePooling1D()(x)), name=name)


def sequence_names():
    """Nets with the layers that docs/distillation.md names, and data."""
    x, y = images()
    x = x.reshape(64, -1)[:, :24].reshape(64, 6, 4)
    names = dict(teacher=encoder_net("teacher", "block_4", "attention_6", 16), student=encoder_net("student", "block_2", "attention_3", 8))
    return {**names, "x": x, "y": y, "keras": keras, "tfdistill": tfdistill}


def benchmark_names():
    """Writes the files that the page measures into the present folder; the page imports what it needs."""
    model = classifier(16, "teacher")
    for variant in ("float32", "int8"):
        tfdistill.export_tflite(model, f"{variant}.tflite", variant, calibration=images()[0])
    return {}


NAMES = {
    "README.md": image_names,
    "docs/benchmarking.md": benchmark_names,
    "docs/compression.md": compression_names,
    "docs/distillation.md": sequence_names,
    "docs/targets.md": image_names,
    "docs/verification.md": lambda: {**image_names(), "tfdistill": tfdistill},
}


def macs_of(model):
    return tfdistill.profile(model).macs


def blocks(text):
    """Returns the Python blocks of a page."""
    return BLOCK.findall(text)


def test_every_page_with_code_is_run():
    assert sorted(NAMES) == sorted(WITH_CODE)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`shuffle=True` was passed")  # Keras's own, for every `fit(dataset)`
@pytest.mark.parametrize("page", WITH_CODE)
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    put_photos(tmp_path / "photos")
    # The pages' nets are too small for their time to mean anything: what stays of their work stands for what stays of it.
    monkeypatch.setattr(tfdistill.pipeline.LatencyRatio, "__call__", lambda self, model, smaller: macs_of(smaller) / macs_of(model))
    names = NAMES[page]()
    for number, block in enumerate(blocks(PAGES[page])):
        if "BackupAndRestore" in block:  # the page leaves making and compiling the model to the reader
            names["distiller"].compile("adam", CROSS_ENTROPY)
        exec(compile(block, f"{page}, block {number}", "exec"), names)


def test_the_readme_prints_what_check_finds():
    printed = str(tfdistill.check(image_names()["softmax_student"]))
    shown = re.search(r"^```text\n(.*?)^```$", PAGES["README.md"], re.MULTILINE | re.DOTALL)
    assert shown.group(1) in printed + "\n"


def test_blocks_are_found():
    assert blocks("text\n```python\na = 1\n```\n```bash\nmake\n```\n```python\nb = 2\n```\n") == ["a = 1\n", "b = 2\n"]
