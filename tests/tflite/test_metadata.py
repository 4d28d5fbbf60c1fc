"""What is written into a file about itself is read back, by position and by name; what the file computes stays the same to the bit."""

import contextlib
import dataclasses
import functools
import pathlib
import zipfile

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tfdistill
from tfdistill.bridge.imports import tf_keras
from tfdistill.convert.packing import pack
from tfdistill.runtime.interpreter import open_file
from tfdistill.runtime.schema import schema
from tfdistill.tflite import FileDescription, FileMetadata, Normalization
from tfdistill.tflite.metadata.read import keys_of, read_content
from tfdistill.tflite.metadata.write import described

L = keras.layers
RNG = np.random.default_rng(0)


@functools.cache
def photo():
    """One image, one output."""
    layers = [L.Conv2D(4, 3), L.GlobalAveragePooling2D(), L.Dense(5, name="logits")]
    return keras.Sequential([keras.Input((8, 8, 3), name="image"), *layers]), RNG.random((32, 8, 8, 3), dtype="float32")


@functools.cache
def several():
    """Three inputs, of which one is an image, and two outputs."""
    image, weather = keras.Input((4, 4, 1), name="image"), keras.Input((3,), name="weather.now")
    words = keras.Input((2,), dtype="int32", name="words")
    x = L.Concatenate()([L.Flatten()(image), weather, L.Flatten()(L.Embedding(7, 2)(words))])
    outputs = {"kind": L.Dense(3, name="kind")(x), "size": L.Dense(1, name="size")(x)}
    data = {"image": RNG.random((32, 4, 4, 1)), "weather.now": RNG.random((32, 3)), "words": RNG.integers(0, 7, (32, 2))}
    return keras.Model({"image": image, "weather.now": weather, "words": words}, outputs), data


class Subclassed(keras.Model):
    """A model that does not know its outputs before it is called."""

    def __init__(self):
        super().__init__()
        self.dense = L.Dense(5)

    def call(self, x):
        return self.dense(x)


@functools.cache
def subclassed():
    model, x = Subclassed(), RNG.random((32, 6), dtype="float32")
    model(x)
    return model, x


@functools.cache
def adopted():
    """A model of tf_keras with two outputs in a list."""
    tfk = tf_keras()
    x = tfk.Input((6,), name="x")
    outputs = [tfk.layers.Dense(3, name="kind")(x), tfk.layers.Dense(2, name="other")(x)]
    return tfdistill.adopt(tfk.Model(x, outputs)), RNG.random((32, 6), dtype="float32")


TEXTS = dict(name="Größe", description="two\nlines", version="1.2", author="Ada 愛", license="Apache-2.0")
ONE = FileMetadata(**TEXTS, labels=["a", "b ", "日本", "d", "é"], normalization=Normalization(0, 255), provenance={"recipe": {"epochs": 3}})
BY_NAME = FileMetadata(
    author="Ada",
    labels={"size": ["cm"], "kind": ["x", "y", "z"]},
    normalization={"weather_now": Normalization([1, 2, 3], [0.1, 0.2, 0.3], "features"), "image": Normalization(127.5, 127.5)},
)
EXPORTS = {
    "image": (photo, "float32", "auto", ONE),
    "float16": (photo, "float16", "auto", ONE),
    "dynamic range": (photo, "dynamic_range", "auto", ONE),
    "int8": (photo, "int8", "auto", ONE),
    "uint8": (photo, "int8", "uint8", ONE),
    "int16": (photo, "int16x8", "auto", ONE),
    "several": (several, "float32", "auto", BY_NAME),
    "several in integers": (several, "int8", "uint8", dataclasses.replace(BY_NAME, normalization=None)),
    "one of several": (several, "float32", "auto", FileMetadata(labels={"kind": ["x", "y", "z"]})),
    "subclassed": (subclassed, "float32", "auto", FileMetadata(labels=list("abcde"), normalization=Normalization(0, 1, "features"))),
    "adopted": (adopted, "float32", "auto", FileMetadata(labels={"kind": ["x", "y", "z"]}, normalization=Normalization(0, 1, "features"))),
    "nothing but provenance": (photo, "float32", "auto", FileMetadata()),
}


def by_name(about, record):
    """The same metadata with the names of the file."""
    given = {}
    if isinstance(about.labels, tuple):
        given["labels"] = {record.outputs[0].name: about.labels} if about.labels else {}
    if about.normalization is None or isinstance(about.normalization, Normalization):
        given["normalization"] = {record.inputs[0].name: about.normalization} if about.normalization else {}
    return dataclasses.replace(about, **given)


@pytest.mark.parametrize("case", EXPORTS)
def test_what_is_written_is_read_and_nothing_else_changes(case, tmp_path):
    build, variant, io_type, about = EXPORTS[case]
    model, x = build()
    record = tfdistill.export_tflite(model, tmp_path / "m.tflite", variant, calibration=x, io=io_type, metadata=about)
    plain = tfdistill.export_tflite(model, tmp_path / "plain.tflite", variant, calibration=x, io=io_type)
    found = tfdistill.read_metadata(record.path)
    export = found.provenance["export"]
    assert found.to_metadata() == dataclasses.replace(by_name(about, record), provenance={**about.provenance, "export": export})
    assert FileDescription.from_dict(found.to_dict()) == found
    # What it says of the export is so, and the file without it is the one that is written without metadata.
    assert export["sha256_without_metadata"] == plain.sha256 == record.verification.sha256
    assert (export["variant"], export["verification"]["max_abs_error"]) == (variant, record.max_abs_error)
    assert export["versions"]["keras"] == keras.__version__
    content, size = (tmp_path / "m.tflite").read_bytes(), (tmp_path / "m.tflite").stat().st_size
    assert (record.size_bytes, record.sha256) == (size, tfdistill.census(record.path).sha256)
    assert without_metadata(content) == without_metadata((tmp_path / "plain.tflite").read_bytes())
    inputs = x if isinstance(x, dict) else {record.inputs[0].name: x}
    inputs = {name.replace(".", "_"): values for name, values in inputs.items()}
    outputs, others = (open_file(each.path).run(inputs) for each in (record, plain))
    assert all(np.array_equal(outputs[name], others[name]) for name in others)
    # Shown by inspect, byte by byte.
    shown = tfdistill.inspect(record.path)
    assert (shown.described, shown.not_described) == (found, "")
    assert sum(shown.bytes_by_kind.values()) == size
    assert ("associated files" in shown.bytes_by_kind) == bool(found.labels)
    # Written again, in place of itself or into the plain file, it has the same bytes.
    for path, replace in ((record.path, True), (plain.path, False)):
        tfdistill.add_metadata(path, found.to_metadata(), out=tmp_path / "again.tflite", replace=replace)
        assert (tmp_path / "again.tflite").read_bytes() == content


def without_metadata(content):
    """The tables of a file without its description, packed anew."""
    classes = schema()
    model = classes.ModelT.InitFromObj(classes.Model.GetRootAs(content, 0))
    gone = {entry.buffer for entry in model.metadata if entry.name in (b"TFLITE_METADATA", b"TFDISTILL_PROVENANCE")}
    model.metadata = [entry for entry in model.metadata if entry.buffer not in gone]
    model.buffers = [buffer for index, buffer in enumerate(model.buffers) if index not in gone]
    return pack(model, classes)


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    """The bytes of a file of three inputs and two outputs."""
    model, _ = several()
    return pathlib.Path(tfdistill.export_tflite(model, tmp_path_factory.mktemp("metadata") / "m.tflite").path).read_bytes()


# One line for every reader: neither `\n` nor what Python or Java take for its end.
label = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), min_size=1).filter(
    lambda text: text.strip() and text.splitlines() == [text]
)
number = st.floats(-(2.0**96), 2.0**96, width=32)
deviation = st.floats(2.0**-96, 2.0**96, width=32)
values = st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(), st.lists)


@settings(max_examples=40, deadline=None)
@given(
    kinds=st.lists(label, min_size=3, max_size=3),
    size=label,
    means=st.lists(number, min_size=3, max_size=3),
    std=deviation,
    author=st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0")),
    provenance=st.dictionaries(st.text(st.characters(blacklist_categories=["Cs"])), values),
)
def test_all_texts_and_numbers_come_back(content, kinds, size, means, std, author, provenance):
    about = FileMetadata(
        author=author,
        labels={"kind": kinds, "size": [size]},
        normalization={"weather_now": Normalization(means, std, "features")},
        provenance=provenance,
    )
    made, notes = described(content, about, "m.tflite")
    assert notes == []
    found = FileDescription.from_dict(read_content(made, None))
    assert found.labels == about.labels
    assert found.to_metadata().normalization["weather_now"].std == pytest.approx([std] * 3, rel=1e-6)
    assert np.array_equal(np.float32(found.inputs["weather_now"].mean), np.float32(means))
    assert (found.author, found.provenance) == (author, about.provenance)
    assert described(made, found.to_metadata(), "m.tflite")[0] == made


def test_the_archive_has_nothing_of_the_machine_and_is_not_compressed(content, tmp_path):
    (tmp_path / "m.tflite").write_bytes(described(content, BY_NAME, "m.tflite")[0])
    with zipfile.ZipFile(tmp_path / "m.tflite") as archive:
        found = [(each.filename, each.compress_type, each.date_time, each.create_system, archive.read(each)) for each in archive.infolist()]
    outputs = [tensor.name for tensor in tfdistill.census(tmp_path / "m.tflite").outputs]
    lines = {"size": b"cm\n", "kind": b"x\ny\nz\n"}
    expected = {f"labels_{outputs.index(name)}.txt": text for name, text in lines.items()}
    assert {name: text for name, *_, text in found} == expected
    assert {tuple(rest) for _, *rest, _ in found} == {(zipfile.ZIP_STORED, (1980, 1, 1, 0, 0, 0), 0)}


def test_weights_that_look_like_an_archive(tmp_path):
    """The end of a ZIP archive among the last bytes of the tables hides neither the labels nor the file."""
    path = pathlib.Path(tfdistill.export_tflite(photo()[0], tmp_path / "m.tflite").path)
    classes = schema()
    parsed = classes.ModelT.InitFromObj(classes.Model.GetRootAs(path.read_bytes(), 0))
    weights = max(parsed.buffers, key=lambda buffer: 0 if buffer.data is None else len(buffer.data))
    weights.data = np.concatenate([np.frombuffer(b"PK\x05\x06" + bytes(18), np.uint8), weights.data[22:]])
    path.write_bytes(pack(parsed, classes))
    assert zipfile.is_zipfile(path)
    assert tfdistill.read_metadata(path) is None
    record = tfdistill.add_metadata(path, FileMetadata(labels=list("abcde")))
    assert tfdistill.read_metadata(path).labels == {"logits": tuple("abcde")}
    shown = tfdistill.inspect(path)
    assert sum(shown.bytes_by_kind.values()) == record.size_bytes


def test_nothing_is_written_without_metadata(tmp_path):
    model, _ = photo()
    record = tfdistill.export_tflite(model, tmp_path / "m.tflite")
    assert tfdistill.read_metadata(record.path) is None
    shown = tfdistill.inspect(record.path)
    assert (shown.described, shown.not_described) == (None, "")
    assert set(shown.metadata) == {"min_runtime_version", "CONVERSION_METADATA"}


# Pixels of uint8 that the file reads as they are, and as others -> the largest value of the calibration data, whether that is said.
PIXELS = {"as they are": (1.0, Normalization(0, 255), False), "half as bright": (0.5, Normalization(0, 255), True)}
PIXELS |= {"of another scale": (1.0, Normalization(127.5, 127.5), True), "of no image": (1.0, Normalization(9, 9, "features"), False)}


@pytest.mark.parametrize("case", PIXELS)
def test_pixels_that_are_read_otherwise_are_said(case, tmp_path):
    largest, normalization, said = PIXELS[case]
    model, x = photo()
    path, about = tmp_path / "m.tflite", FileMetadata(normalization=normalization)
    arguments = dict(variant="int8", calibration=x * largest, io="uint8")
    with pytest.warns(UserWarning, match="read as other colors") if said else contextlib.nullcontext():
        tfdistill.export_tflite(model, path, **arguments, metadata=about)
    tfdistill.export_tflite(model, path, **arguments)
    with pytest.warns(UserWarning, match=r"io='float32'") if said else contextlib.nullcontext():
        tfdistill.add_metadata(path, about)
    tfdistill.export_tflite(model, path, **{**arguments, "io": "float32"}, metadata=about)  # as the warning says


def test_metadata_prints_as_a_table_and_in_one_line(tmp_path):
    record = tfdistill.export_tflite(photo()[0], tmp_path / "m.tflite", metadata=ONE)
    found = tfdistill.read_metadata(record.path)
    for words in ("logits: 5", "rgb", "Apache-2.0", "labels.txt"):
        assert words in str(found)
    assert found.line() == "'Größe', 1.2, by Ada 愛, Apache-2.0, 5 labels of 'logits', 'image' = (rgb - 0) / 255, provenance"
    assert "by Ada" in str(tfdistill.inspect(record.path))
    assert FileDescription().line() == "no texts, labels or normalization"


def test_tensors_of_one_name_are_told_apart():
    assert keys_of(["a", "b", "a"]) == ["a:0", "b", "a:2"]
