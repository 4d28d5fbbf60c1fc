"""The ground floor: errors, records, whole files, optional packages, and the loader of data sets."""

import dataclasses
import gzip
import json
import os
import pickle
import sys

import numpy as np
import pytest

from tfdistill import errors
from tfdistill.demo import datasets
from tfdistill.records import Record
from tfdistill.utils import optional
from tfdistill.utils.files import writable_folder, write_whole


@dataclasses.dataclass(frozen=True)
class Inner(Record):
    p50_ms: float
    name: str | None = None


@dataclasses.dataclass(frozen=True)
class Outer(Record):
    inner: Inner
    several: tuple[Inner, ...]
    counts: dict[str, int]
    maybe: Inner | None = None


def test_records_write_and_read_themselves(tmp_path):
    record = Outer(Inner(np.float32(0.5), "a"), (Inner(1), Inner(2.0)), {"int8": np.int64(3)})
    read = Outer.load(record.save(tmp_path / "deep" / "record.json"))
    assert read == Outer(Inner(0.5, "a"), (Inner(1.0), Inner(2.0)), {"int8": 3}, None)
    assert isinstance(read.several[0].p50_ms, float)
    with pytest.raises(dataclasses.FrozenInstanceError):
        read.maybe = None


BAD_RECORDS = {
    "unknown field": ('{"p50_ms": 1, "p51_ms": 2}', "p51_ms"),
    "missing field": ('{"name": "a"}', "p50_ms"),
    "no JSON": ("{", "not JSON"),
    "another thing": ("[]", "list"),
}


@pytest.mark.parametrize("case", BAD_RECORDS)
def test_bad_records_are_refused(case, tmp_path):
    text, word = BAD_RECORDS[case]
    path = tmp_path / "record.json"
    path.write_text(text)
    with pytest.raises(errors.DataError, match=word):
        Inner.load(path)


def test_unknown_figures_are_null(tmp_path):
    path = Inner(float("nan")).save(tmp_path / "r.json")
    assert json.loads(path.read_text())["p50_ms"] is None


def test_errors_say_what_was_expected_and_how_to_fix_it():
    error = errors.ConfigurationError("temperature is 0.", "a number above 0", "give 4.0")
    assert str(error) == "temperature is 0.\nExpected: a number above 0\nFix: give 4.0"
    assert isinstance(error, ValueError)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.parametrize(
    ("name", "names", "suggestion"),
    [
        ("dens_1", ["dense_1", "conv"], "'dense_1'"),
        ("Dense_1", ["dense_1"], "'dense_1'"),
        ("x", [], "none"),
        ("zzz", ["a", "b"], "There are: 'a', 'b'"),
    ],
)
def test_nearest_names(name, names, suggestion):
    assert suggestion in errors.nearest(name, names)


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "file.txt"
    with write_whole(path) as temporary:
        temporary.write_text("first")
        assert not path.exists()
    assert path.read_text() == "first"

    def break_off():
        with write_whole(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        break_off()
    assert path.read_text() == "first"
    assert os.listdir(path.parent) == ["file.txt"]
    assert path.stat().st_mode & 0o444 == 0o444 & ~_umask()


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(errors.ConfigurationError, match="file"):
        writable_folder(tmp_path / "file" / "inside")
    with pytest.raises(errors.ConfigurationError, match="is a folder"), write_whole(tmp_path):
        pass


def test_a_missing_package_names_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(errors.MissingPackageError, match=r'pip install "tfdistill\[search\]"') as caught:
        optional.require("optuna", "search for recipes")
    assert isinstance(caught.value, ImportError)
    assert optional.require("json", "test").dumps({}) == "{}"


def test_a_package_that_is_there_but_broken_keeps_its_own_error(monkeypatch, tmp_path):
    (tmp_path / "halfbroken.py").write_text("import surely_not_installed")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="surely_not_installed"):
        optional.require("halfbroken", "test")


def idx(array):
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.astype("u1").tobytes()


def write_fashion(folder, **changed):
    rng = np.random.default_rng(0)
    for (part, kind), name in datasets.FASHION_MNIST_FILES.items():
        count = {"train": 6, "test": 3}[part]
        array = rng.integers(0, 256, (count, 28, 28)) if kind == "x" else np.arange(count) % 10
        (folder / name).write_bytes(gzip.compress(changed.get(f"{part}_{kind}", idx(array))))


def test_digits_are_the_same_split_every_time():
    a, b = datasets.load("digits"), datasets.load("digits")
    assert (a.x_train.shape, a.x_test.shape, a.classes, a.shape) == ((1347, 8, 8, 1), (450, 8, 8, 1), 10, (8, 8, 1))
    np.testing.assert_array_equal(a.x_test, b.x_test)
    assert 0 <= a.x_train.min() < a.x_train.max() <= 1


def test_fashion_mnist_of_a_local_folder(tmp_path):
    write_fashion(tmp_path)
    data = datasets.load("fashion-mnist", tmp_path)
    assert data.x_train.shape == (6, 28, 28, 1)
    assert data.first(2).x_train.shape == (2, 28, 28, 1)
    assert data.y_test.tolist() == [0, 1, 2]
    assert data.x_train.dtype == np.float32


BAD_DATA = {
    "unknown name": (lambda folder: datasets.load("mnist"), errors.ConfigurationError, "digits"),
    "digits with a folder": (lambda folder: datasets.load("digits", folder), errors.ConfigurationError, "not used"),
    "empty folder": (lambda folder: datasets.load("fashion-mnist", folder), errors.DataError, "lacks train-images"),
    "cut short": (lambda folder: _load_broken(folder, idx(np.zeros((6, 28, 28)))[:-5]), errors.DataError, "6 x 28 x 28"),
    "another format": (lambda folder: _load_broken(folder, b"PNG and so on"), errors.DataError, "IDX"),
}


def _load_broken(folder, content):
    write_fashion(folder, train_x=content)
    return datasets.load("fashion-mnist", folder)


@pytest.mark.parametrize("case", BAD_DATA)
def test_bad_data_is_named(case, tmp_path):
    cause, kind, words = BAD_DATA[case]
    with pytest.raises(kind, match=words):
        cause(tmp_path)


def test_a_file_that_is_not_packed(tmp_path):
    write_fashion(tmp_path)
    (tmp_path / datasets.FASHION_MNIST_FILES["test", "y"]).write_bytes(b"plain")
    with pytest.raises(errors.DataError, match="cannot be read"):
        datasets.load("fashion-mnist", tmp_path)
