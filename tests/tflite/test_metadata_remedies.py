"""What errors about metadata say to do works."""

import dataclasses
import functools
import pathlib

import keras
import pytest
from remedies_of_source import Row, check

import tfdistill
from tfdistill.tflite import FileMetadata, Normalization

ABOUT = FileMetadata(author="Ada")


@functools.cache
def net(outputs=1):
    inputs = keras.Input((4,), name="x")
    heads = {f"head_{i}": keras.layers.Dense(2, name=f"head_{i}")(inputs) for i in range(outputs)}
    return keras.Model(inputs, heads if outputs > 1 else heads["head_0"])


def export(folder, metadata, outputs=1):
    return tfdistill.export_tflite(net(outputs), folder / "m.tflite", metadata=metadata).path


def lines(folder):
    path = folder / "labels.txt"
    path.write_text("cat\ndog\n", encoding="utf-8")
    return str(path)


def again(folder, **arguments):
    return tfdistill.add_metadata(export(folder, ABOUT), FileMetadata(license="MIT"), **arguments)


def changed(folder):
    path = export(folder, ABOUT)
    record = tfdistill.add_metadata(path, dataclasses.replace(tfdistill.read_metadata(path).to_metadata(), license="MIT"), replace=True)
    found = tfdistill.read_metadata(record.path)
    assert (found.author, found.license) == ("Ada", "MIT")


NUMBERED = {1: "dog", 0: "cat"}
ROWS = {
    "labels by index": Row(
        "[labels[i] for i in sorted(labels)]",
        lambda folder: FileMetadata(labels=NUMBERED),
        lambda folder: FileMetadata(labels=[NUMBERED[i] for i in sorted(NUMBERED)]),
    ),
    "the name of a file": Row(
        "if it is the name of a file with a label on each line, read that: pathlib.Path(",
        lambda folder: FileMetadata(labels=lines(folder)),
        lambda folder: FileMetadata(labels=pathlib.Path(lines(folder)).read_text("utf-8").splitlines()),
    ),
    "numbers": Row(
        "write [str(label) for label in labels]",
        lambda folder: FileMetadata(labels=[0, 1]),
        lambda folder: FileMetadata(labels=[str(label) for label in [0, 1]]),
    ),
    "two numbers": Row(
        "write tfdistill.tflite.Normalization(mean, std)",
        lambda folder: FileMetadata(normalization=(0, 255)),
        lambda folder: FileMetadata(normalization=tfdistill.tflite.Normalization(0, 255)),
    ),
    "no metadata": Row(
        "write tfdistill.tflite.FileMetadata(author='...', labels=[...])",
        lambda folder: export(folder, {"author": "Ada"}),
        lambda folder: export(folder, tfdistill.tflite.FileMetadata(author="Ada", labels=["cat", "dog"])),
    ),
    "no image": Row(
        "write Normalization(mean, std, kind='features')",
        lambda folder: export(folder, FileMetadata(normalization=Normalization(0, 255))),
        lambda folder: export(folder, FileMetadata(normalization=Normalization(0, 255, kind="features"))),
    ),
    "two outputs": Row(
        "write labels={'head_0': ...}",
        lambda folder: export(folder, FileMetadata(labels=["cat", "dog"]), 2),
        lambda folder: export(folder, FileMetadata(labels={"head_0": ["cat", "dog"]}), 2),
    ),
    "described already": Row("replace all of it by replace=True", again, lambda folder: again(folder, replace=True)),
    "keep the rest": Row("dataclasses.replace(tfdistill.read_metadata(path).to_metadata(), ...) keeps what stays", again, changed),
}


@pytest.mark.parametrize("row", ROWS)
def test_what_an_error_says_to_do_works(row, tmp_path):
    check(ROWS[row], tmp_path)
