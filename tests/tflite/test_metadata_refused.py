"""Metadata that cannot be meant, or that does not fit a file, and files whose metadata is damaged or hostile: each is refused with what is wrong."""

import io
import json
import pathlib
import zipfile

import keras
import numpy as np
import pytest

import tfdistill
from tfdistill.convert.packing import pack
from tfdistill.errors import ConfigurationError, ExportError
from tfdistill.runtime.schema import schema
from tfdistill.tflite import FileMetadata, Normalization
from tfdistill.tflite.metadata.archive import append
from tfdistill.tflite.metadata.read import read_content
from tfdistill.tflite.metadata.settings import MOST_PROVENANCE_BYTES
from tfdistill.tflite.metadata.tables import AXIS_LABELS, pack_tables

L = keras.layers


MISTAKES = {
    "a label of two lines": (lambda: FileMetadata(labels=["a", "b\nc"]), "labels[1]='b\\nc' is no label", "one line"),
    "a carriage return": (lambda: FileMetadata(labels=["a\r"]), "labels[0]", "one line"),
    "a line separator": (lambda: FileMetadata(labels=["a\u2028b"]), "labels[0]", "one line"),
    "an empty label": (lambda: FileMetadata(labels=["a", ""]), "labels[1]='' is no label", "not blank"),
    "a blank label": (lambda: FileMetadata(labels={"kind": ["a", " \t"]}), "labels['kind'][1]", "not blank"),
    "half a character": (lambda: FileMetadata(labels=["\ud800"]), "labels[0]", "a text of one line"),
    "a null character": (lambda: FileMetadata(labels=["a\0"]), "labels[0]", "a text of one line"),
    "numbers": (lambda: FileMetadata(labels=np.arange(3)), "labels[0]", "texts"),
    "one text": (lambda: FileMetadata(labels="labels.txt"), "labels='labels.txt' is one text", "a list of labels"),
    "one text by name": (lambda: FileMetadata(labels={"kind": "abc"}), "labels is a dict of something else", "output name -> list"),
    "no order": (lambda: FileMetadata(labels={"a", "b"}), "is a set", "a list of labels"),
    "labels by index": (lambda: FileMetadata(labels={0: "a", 1: "b"}), "labels is a dict of something else", "output name -> list"),
    "a table of labels": (lambda: FileMetadata(labels=np.array([["a"]])), "is a ndarray", "a list of labels"),
    "an author that is none": (lambda: FileMetadata(author=None), "author=None is a NoneType", "a text"),
    "an author of bytes": (lambda: FileMetadata(author=b"Ada"), "author=b'Ada' is a bytes", "a text"),
    "half a character in a name": (lambda: FileMetadata(name="\ud800"), "name='\\ud800' cannot be written", "without surrogates"),
    "a null character in a license": (lambda: FileMetadata(license="MIT\0"), "license='MIT\\x00' cannot be written", "null characters"),
    "two numbers": (lambda: FileMetadata(normalization=(0, 1)), "normalization=(0, 1) is a tuple", "a Normalization"),
    "a deviation of 0": (lambda: Normalization(0, 0), "std=0 is out of range", "a finite number"),
    "a negative deviation": (lambda: Normalization(0, -1), "std=-1 is out of range", "a finite number"),
    "a deviation that float32 has not": (lambda: Normalization(0, 1e-60), "std=1e-60 is out of range", "a finite number"),
    "a mean that is no number": (lambda: Normalization(float("nan"), 1), "mean=nan is out of range", "a finite number"),
    "a mean as text": (lambda: Normalization("127.5", 1), "mean='127.5' is a str", "a finite number"),
    "no means": (lambda: Normalization([], 1), "mean=[] is a list", "a finite number"),
    "two means, three deviations": (lambda: Normalization([1, 2], [1, 2, 3]), "2 means and 3 standard deviations", "as many of both"),
    "an unknown kind": (lambda: Normalization(0, 1, "images"), "kind='images' is unknown", "'image', 'features'"),
    "a provenance of NaN": (lambda: FileMetadata(provenance={"loss": float("nan")}), "cannot be written as JSON", "finite numbers"),
    "a provenance of objects": (lambda: FileMetadata(provenance={"model": object()}), "cannot be written as JSON", "a dict of JSON values"),
    "a provenance by number": (lambda: FileMetadata(provenance={"a": {1: 2}}), "keys must be texts", "a dict of JSON values"),
    "a list as provenance": (lambda: FileMetadata(provenance=[1]), "provenance=[1] is a list", "a dict of JSON values"),
    "half a character in a provenance": (lambda: FileMetadata(provenance={"a": "\ud800"}), "cannot be written as JSON", "texts"),
    "a long provenance": (
        lambda: FileMetadata(provenance={"a": "x" * MOST_PROVENANCE_BYTES}),
        "takes 1,048,584 bytes",
        "at most 1,048,576",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_cannot_be_meant_is_refused_when_it_is_made(mistake):
    make, happened, expected = MISTAKES[mistake]
    with pytest.raises(ConfigurationError) as error:
        make()
    assert happened in error.value.happened
    assert expected in error.value.expected


def test_a_provenance_that_is_nested_without_end():
    endless = {}
    endless["a"] = [endless]
    with pytest.raises(ConfigurationError, match="cannot be written as JSON"):
        FileMetadata(provenance=endless)


def test_what_is_changed_later_is_not_in_the_metadata():
    provenance, labels = {"steps": [1]}, ["a"]
    about = FileMetadata(provenance=provenance, labels=labels)
    provenance["steps"].append(2)
    labels.append("b")
    assert (about.provenance, about.labels) == ({"steps": [1]}, ("a",))


def model():
    image, words = keras.Input((4, 4, 3), name="image"), keras.Input((2,), dtype="int32", name="words")
    x = L.Concatenate()([L.Flatten()(image), L.Flatten()(L.Embedding(7, 2)(words))])
    return keras.Model([image, words], {"kind": L.Dense(3, name="kind")(x), "size": L.Dense(1, name="size")(x)}, name="net")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A file of the model."""
    return tfdistill.export_tflite(model(), tmp_path_factory.mktemp("metadata") / "m.tflite").path


def both(labels=(), normalization=None):
    return FileMetadata(labels=labels, normalization=normalization)


MISFITS = {
    "too many labels": (lambda: both({"kind": list("abcd")}), "There are 4 labels for output 'kind' of", "last axis has 3 elements"),
    "no labels": (lambda: both({"kind": []}), "There are 0 labels for output 'kind' of", "last axis has 3 elements"),
    "no such output": (lambda: both({"kinds": list("abc")}), "'kinds', but", "has no such output"),
    "one of two outputs": (lambda: both(list("abc")), "labels is given for one output, but", "'kind'"),
    "one of two inputs": (lambda: both((), Normalization(0, 1)), "normalization is given for one input, but", "'words'"),
    "no such input": (lambda: both((), {"picture": Normalization(0, 1)}), "'picture', but", "has no such input"),
    "indices": (lambda: both((), {"words": Normalization(0, 1, "features")}), "input 'words' of", "type is int32"),
    "four channels": (lambda: both((), {"image": Normalization([0] * 4, 1)}), "4 means for input 'image' of", "4, 4, 3)"),
}


@pytest.mark.parametrize("misfit", MISFITS)
def test_what_does_not_fit_is_refused_before_the_conversion_and_by_the_file(misfit, path, tmp_path, monkeypatch):
    make, *said = MISFITS[misfit]
    before = pathlib.Path(path).read_bytes()
    with pytest.raises(ConfigurationError) as error:
        tfdistill.add_metadata(path, make())
    assert all(words in error.value.happened for words in (*said, path))
    assert pathlib.Path(path).read_bytes() == before
    # Nothing is converted for it: there is no calibration data, which is looked for later.
    with pytest.raises(ConfigurationError) as error:
        tfdistill.export_tflite(model(), tmp_path / "m.tflite", "int8", metadata=make())
    assert all(words in error.value.happened for words in (*said, "the model 'net'"))
    assert list(tmp_path.iterdir()) == []


def test_a_number_of_labels_that_only_the_file_knows(tmp_path):
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = L.Dense(3)

        def call(self, x):
            return self.dense(x)

    net = Subclassed()
    net(np.zeros((1, 4), "float32"))
    with pytest.raises(ConfigurationError, match=r"2 labels for output '\w+' of '.*m.tflite', whose last axis has 3"):
        tfdistill.export_tflite(net, tmp_path / "m.tflite", metadata=FileMetadata(labels=["a", "b"]))
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_not_replaced_unasked(path, tmp_path):
    record = tfdistill.add_metadata(path, FileMetadata(author="Ada", labels={"kind": list("abc")}), out=tmp_path / "new.tflite")
    before = (tmp_path / "new.tflite").read_bytes()
    with pytest.raises(ConfigurationError, match="already says something of itself: files, author, labels"):
        tfdistill.add_metadata(record.path, FileMetadata())
    with pytest.raises(ConfigurationError, match=r"does not end in \.tflite"):
        tfdistill.add_metadata(path, FileMetadata(), out=tmp_path / "new.lite")
    with pytest.raises(ConfigurationError, match="There is no file"):
        tfdistill.add_metadata(tmp_path / "none.tflite", FileMetadata())
    with pytest.raises(ExportError, match=r"not a \.tflite file"):
        tfdistill.add_metadata(__file__, FileMetadata(), out=tmp_path / "other.tflite")
    assert (tmp_path / "new.tflite").read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["new.tflite"]


def with_entries(content, **entries):
    """A file with entries of metadata."""
    classes = schema()
    parsed = classes.ModelT.InitFromObj(classes.Model.GetRootAs(content, 0))
    for name, data in entries.items():
        buffer, entry = classes.BufferT(), classes.MetadataT()
        buffer.data, entry.name, entry.buffer = np.frombuffer(data, np.uint8), name.encode(), len(parsed.buffers)
        parsed.buffers.append(buffer)
        parsed.metadata.append(entry)
    return pack(parsed, classes)


def labelled(content, name="labels.txt", outputs=1):
    """A file whose outputs name an associated file as their labels."""
    tensors = [{"name": "kind", "associated_files": [{"name": name, "type": AXIS_LABELS}]}] * outputs
    return with_entries(content, TFLITE_METADATA=pack_tables({"subgraph_metadata": [{"output_tensor_metadata": tensors}]}))


def compressed(content, size=1 << 26):
    """The labels are a ZIP bomb."""
    whole = io.BytesIO(labelled(content))
    with zipfile.ZipFile(whole, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("labels.txt", bytes(size))
    return whole.getvalue()


def with_longer_entry(content):
    """The archive says that its file is longer than the whole."""
    made = bytearray(append(labelled(content), {"labels.txt": b"a\nb\n"}))
    place = made.rindex(b"PK\x01\x02")
    made[place + 20 : place + 28] = (1 << 30).to_bytes(4, "little") * 2
    return bytes(made)


def with_other_bytes(content):
    made = append(labelled(content), {"labels.txt": b"a\nb\nc\n"})
    return made.replace(b"a\nb\nc\n", b"a\nb\nd\n")


TABLES = pack_tables({"author": "Ada", "subgraph_metadata": [{"name": "a"}]})
DAMAGED = {
    "another format": (lambda c: with_entries(c, TFLITE_METADATA=TABLES[:4] + b"M002" + TABLES[8:]), "in another format, 'M002'"),
    "an empty entry": (lambda c: with_entries(c, TFLITE_METADATA=b"\0"), "in another format"),
    "a cut table": (lambda c: with_entries(c, TFLITE_METADATA=TABLES[:40]), "It is damaged: "),
    "a table out of bounds": (lambda c: with_entries(c, TFLITE_METADATA=b"\xff\xff\xff\x7f" + TABLES[4:]), "the root points to byte"),
    "labels that are not there": (labelled, "names the associated file 'labels.txt', which is not in it"),
    "labels of another name": (lambda c: append(labelled(c, "names.txt"), {"labels.txt": b"a\n"}), "'names.txt', which is not in it"),
    "a ZIP bomb": (compressed, "holds the associated file 'labels.txt' compressed"),
    "an entry longer than the file": (with_longer_entry, "'labels.txt' cannot be read"),
    "a wrong checksum": (with_other_bytes, "'labels.txt' cannot be read"),
    "labels in another encoding": (lambda c: append(labelled(c), {"labels.txt": "é".encode("latin-1")}), "is not UTF-8 text"),
    "one long file for all outputs": (
        lambda c: append(labelled(c, outputs=2), {"labels.txt": b"a\n" * 3 * len(c)}),
        "longer than the file",
    ),
    "a provenance that is no JSON": (lambda c: with_entries(c, TFDISTILL_PROVENANCE=b"{"), "its provenance is not JSON"),
    "a provenance that is no text": (lambda c: with_entries(c, TFDISTILL_PROVENANCE=b"\xff\xfe"), "its provenance is not JSON"),
    "a deep provenance": (lambda c: with_entries(c, TFDISTILL_PROVENANCE=b'{"a":' + b"[" * 200_000), "its provenance is not JSON"),
    "a provenance that is a list": (lambda c: with_entries(c, TFDISTILL_PROVENANCE=b"[1]"), "its provenance is a list"),
    "a long provenance": (
        lambda c: with_entries(c, TFDISTILL_PROVENANCE=json.dumps({"a": "x" * MOST_PROVENANCE_BYTES}).encode()),
        "a provenance of 1,048,585 bytes",
    ),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_damaged_metadata_is_refused_and_shown_by_inspect(damage, path, tmp_path):
    make, said = DAMAGED[damage]
    damaged = tmp_path / "damaged.tflite"
    damaged.write_bytes(make(pathlib.Path(path).read_bytes()))
    with pytest.raises(ExportError) as error:
        tfdistill.read_metadata(damaged)
    assert said.removeprefix("It ") in error.value.happened
    assert str(damaged) in error.value.happened
    with pytest.raises(ExportError, match=r"damaged\.tflite"):
        tfdistill.add_metadata(damaged, FileMetadata(), replace=True)
    # The operations can be shown all the same.
    shown = tfdistill.inspect(damaged)
    assert said in shown.not_described
    assert shown.described is None
    assert sum(shown.bytes_by_kind.values()) == damaged.stat().st_size
    assert min(shown.bytes_by_kind.values()) >= 0


def test_bytes_changed_at_random_raise_nothing_else(path):
    content = pathlib.Path(path).read_bytes()
    tables = pack_tables(
        {
            "author": "Ada",
            "subgraph_metadata": [{"output_tensor_metadata": [{"name": "kind", "associated_files": [{"name": "l", "type": 2}]}]}],
        }
    )
    whole = append(with_entries(content, TFLITE_METADATA=tables, TFDISTILL_PROVENANCE=b'{"a":1}'), {"l": b"a\nb\nc\n"})
    start, rng, refused = whole.index(tables), np.random.default_rng(0), 0
    places = [*range(start, start + len(tables)), *range(len(whole) - 110, len(whole))]
    for _ in range(400):
        damaged = bytearray(whole)
        for place in rng.choice(places, 3):
            damaged[place] = rng.integers(0, 256)
        try:
            assert read_content(bytes(damaged), None) is not None
        except ExportError:
            refused += 1
    assert 100 < refused < 400


def test_what_another_program_wrote_and_settings_refuse(path, tmp_path):
    """A blank line among the labels is read as it stands, and refused when it is to be written again."""
    found = tmp_path / "foreign.tflite"
    found.write_bytes(append(labelled(pathlib.Path(path).read_bytes()), {"labels.txt": b"a\r\n\r\nc"}))
    labels = tfdistill.read_metadata(found)
    assert list(labels.labels.values()) == [("a", "", "c")]
    with pytest.raises(ConfigurationError, match="is no label"):
        labels.to_metadata()
