"""The file of a training state: whole or not at all, and refused by name if it is damaged, foreign or of another model."""

import json
import pathlib
import pickle
import random
import zipfile

import keras
import numpy as np
import pytest
from small import data, mlp

from tfdistill import BackupAndRestore
from tfdistill.distill.backup import file
from tfdistill.distill.backup.callback import FILE, PREVIOUS
from tfdistill.distill.backup.state import Counters
from tfdistill.errors import DataError

X, Y = data(24)


def compiled(*widths, optimizer="adam"):
    model = mlp(*widths)
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False, run_eagerly=True)
    return model


def fit(model, folder, epochs=2, **settings):
    callback = BackupAndRestore(folder, delete_checkpoint=False, **settings)
    return model.fit(X, Y, epochs=epochs, batch_size=8, verbose=0, callbacks=[callback])


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The bytes of a state after one epoch, and the weights at that moment."""
    folder = tmp_path_factory.mktemp("saved")
    model = compiled(4)
    fit(model, folder, epochs=1)
    return (folder / FILE).read_bytes(), model.get_weights()


@pytest.fixture
def folder(saved, tmp_path):
    (tmp_path / FILE).write_bytes(saved[0])
    return tmp_path


def rewritten(path, **changes):
    """The state with other values, in a file whose checksums are right."""
    file.write(path, {**file.read(path), **changes})


def archive(path, compression=zipfile.ZIP_STORED, **members):
    with zipfile.ZipFile(path, "w", compression) as made:
        for name, content in members.items():
            made.writestr(name.replace("_json", ".json"), content)


def without(path, name):
    state = file.read(path)
    del state[name]
    file.write(path, state)


TREE = {"format": file.FORMAT, "state": {"dict": []}}
DAMAGE = {
    "empty": lambda p: p.write_bytes(b""),
    "cut": lambda p: p.write_bytes(p.read_bytes()[:-30]),
    "half": lambda p: p.write_bytes(p.read_bytes()[: p.stat().st_size // 2]),
    "text": lambda p: p.write_text("{}"),
    "a pickle": lambda p: p.write_bytes(pickle.dumps({"epoch": 1})),
    "an HDF5 file": lambda p: (compiled(4).save_weights(p.with_name("a.weights.h5")), p.with_name("a.weights.h5").replace(p)),
    "an archive of NumPy": lambda p: p.write_bytes((np.savez(p.with_name("a.npz"), a=np.zeros(3)), p.with_name("a.npz").read_bytes())[1]),
    "a folder": lambda p: (p.unlink(), p.mkdir()),
    "a link to nothing": lambda p: (p.unlink(), p.symlink_to("nowhere")),
    "a compressed archive": lambda p: archive(p, zipfile.ZIP_DEFLATED, state_json=" " * 10**6),
    "another format": lambda p: archive(p, state_json=json.dumps({**TREE, "format": "tfdistill training state 9"})),
    "no tree": lambda p: archive(p, state_json="[]"),
    "an unknown kind": lambda p: archive(p, state_json=json.dumps({**TREE, "state": {"python": "os.system"}})),
    "no function of keras.ops": lambda p: archive(p, state_json=json.dumps({**TREE, "state": {"keras.ops": "__loader__"}})),
    "an array that is not there": lambda p: archive(
        p, state_json=json.dumps({**TREE, "state": {"array": 3, "dtype": "int32", "shape": [1]}})
    ),
    "an array of objects": lambda p: archive(p, state_json=json.dumps({**TREE, "state": {"array": 0, "dtype": "object", "shape": [1]}})),
    "nothing in it": lambda p: archive(p, state_json=json.dumps(TREE)),
    "no epoch": lambda p: without(p, "epoch"),
    "no random states": lambda p: without(p, "random"),
    "an epoch before the first": lambda p: rewritten(p, epoch=-1),
    "an epoch of text": lambda p: rewritten(p, epoch="1"),
    "an epoch that is true": lambda p: rewritten(p, epoch=True),
    "variables of text": lambda p: rewritten(p, variables=["a"]),
    "half a random state": lambda p: rewritten(p, random={"python": (3, (1, 2), None), "numpy": {}, "keras": None}),
    "callbacks without names": lambda p: rewritten(p, callbacks={"EarlyStopping 0": [1]}),
    "logs of text": lambda p: rewritten(p, logs={"loss": "low"}),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_or_foreign_file_is_refused_by_name(folder, case):
    DAMAGE[case](folder / FILE)
    before = sorted(p.name for p in folder.iterdir())
    model = compiled(4)
    weights = model.get_weights()
    with pytest.raises(DataError, match=FILE) as error:
        fit(model, folder)
    assert "move it away to begin the training anew" in str(error.value)
    assert sorted(p.name for p in folder.iterdir()) == before, "nothing is removed"
    for a, b in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    # The remedy.
    (folder / FILE).rename(folder / "moved")
    assert fit(model, folder).epoch == [0, 1]


def test_every_flipped_byte_is_refused_or_changes_nothing(folder):
    path, chance = folder / FILE, random.Random(4)
    whole, found = path.read_bytes(), 0
    same = json.dumps(file.read(path), default=lambda a: [a.dtype.name, a.tolist()])
    for place in chance.sample(range(len(whole)), 300):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << chance.randrange(8))]) + whole[place + 1 :])
        try:
            state = file.read(path)
        except DataError:
            found += 1
        else:
            assert json.dumps(state, default=lambda a: [a.dtype.name, a.tolist()]) == same
    assert found > 200


OTHERS = {
    "another width": lambda: compiled(5),
    "one layer more": lambda: compiled(4, 4),
    "another optimizer": lambda: compiled(4, optimizer="sgd"),
    "another type": lambda: mixed(),
}


def mixed():
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, dtype="bfloat16"), keras.layers.Dense(5)])
    model.compile("adam", "mse", jit_compile=False, run_eagerly=True)
    return model


@pytest.mark.parametrize("case", OTHERS)
def test_a_state_of_another_model_is_refused(folder, case):
    model = OTHERS[case]()
    weights = model.get_weights()
    with pytest.raises(DataError, match="of another model, or of another optimizer"):
        fit(model, folder)
    for a, b in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_state_sets_no_path_and_no_method(folder, tmp_path):
    mine = str(tmp_path / "{epoch}.weights.h5")
    rewritten(
        folder / FILE, callbacks={"ModelCheckpoint 0": {"filepath": "/elsewhere.weights.h5", "on_epoch_end": 3, "params": 1, "best": 0.5}}
    )
    callback = keras.callbacks.ModelCheckpoint(mine, save_weights_only=True)
    compiled(4).fit(X, Y, epochs=2, verbose=0, callbacks=[callback, BackupAndRestore(folder)])
    assert callback.filepath == mine
    assert callback.best == 0.5
    assert [p.name for p in tmp_path.glob("*.h5")] == ["2.weights.h5"]


class Failed(Exception):
    pass


def breaks(monkeypatch, where):
    def fail(*args, **kwargs):
        raise Failed

    target, name = {"bytes": (zipfile.ZipFile, "open"), "end": (zipfile.ZipFile, "close"), "name": ("os", "replace")}[where]
    monkeypatch.setattr(f"{target}.{name}" if isinstance(target, str) else target, *([] if isinstance(target, str) else [name]), fail)


@pytest.mark.parametrize("where", ["bytes", "name"])
@pytest.mark.parametrize("double", [False, True])
def test_a_write_that_breaks_off_leaves_the_state_before(folder, saved, monkeypatch, where, double):
    with monkeypatch.context() as patch:
        breaks(patch, where)
        with pytest.raises(Failed):
            file.write(folder / FILE, {"epoch": 7})
    assert (folder / FILE).read_bytes() == saved[0]
    model = compiled(4)
    assert fit(model, folder, double_checkpoint=double).epoch == [1]


def test_the_state_before_is_used_where_it_is_kept(tmp_path):
    fit(compiled(4), tmp_path, epochs=3, double_checkpoint=True)
    assert file.read(tmp_path / FILE)["epoch"] == 3
    assert file.read(tmp_path / PREVIOUS)["epoch"] == 2
    (tmp_path / FILE).write_bytes(b"0")
    with pytest.raises(DataError, match=FILE):
        fit(compiled(4), tmp_path, epochs=4)
    with pytest.warns(UserWarning, match=f"is damaged.*{PREVIOUS}"):
        assert fit(compiled(4), tmp_path, epochs=4, double_checkpoint=True).epoch == [2, 3]
    assert sorted(p.name for p in tmp_path.iterdir()) == [PREVIOUS, FILE]


def test_without_links_the_state_before_is_copied(tmp_path, monkeypatch):
    monkeypatch.setattr("os.link", lambda *args: (_ for _ in ()).throw(OSError("not supported")))
    fit(compiled(4), tmp_path, epochs=2, double_checkpoint=True)
    assert [file.read(tmp_path / name)["epoch"] for name in (PREVIOUS, FILE)] == [1, 2]


VALUES = {
    "numbers": {"a": 1, "b": -2.5, "c": True, "d": None, "e": 2**70, "f": float("inf"), "g": "text"},
    "nested": [1, (2, [3, {"a": (), 4: []}]), {}],
    "arrays": [np.arange(6).reshape(2, 3).astype(d) for d in ("int8", "uint32", "int64", "float16", "float32", "float64", "bool")],
    "empty arrays": [np.zeros((0, 3)), np.float32(2.5), np.array(7)],
    "half precision": [np.ones(3).astype(keras.ops.convert_to_numpy(keras.ops.ones(1, "bfloat16")).dtype)],
    "functions of keras.ops": [keras.ops.less, keras.ops.greater],
    "transposed": np.arange(6).reshape(2, 3).T,
}


def flat(value):
    return [(type(v), v) if not isinstance(v, (np.ndarray, np.generic)) else (v.dtype, v.tolist()) for v in keras.tree.flatten(value)]


@pytest.mark.parametrize("kind", VALUES)
def test_values_come_back_as_they_were(kind, tmp_path):
    file.write(tmp_path / "a.zip", VALUES[kind])
    found = file.read(tmp_path / "a.zip")
    assert flat(found) == flat(VALUES[kind])
    assert type(found) is type(VALUES[kind])


@pytest.mark.parametrize(
    "value",
    [object(), len, np.array(["a"]), np.array([None]), {1, 2}, pathlib.Path(), lambda: 0, keras.Model],
    ids=lambda value: type(value).__name__,
)
def test_other_values_are_no_part_of_a_state(value):
    assert not file.encodable(value)
    assert not file.encodable([{"a": value}])


def test_only_what_changed_is_kept_of_callbacks():
    class Counts(keras.callbacks.Callback):
        size = 3

        def __init__(self):
            super().__init__()
            self.path, self.wait, self.seen, self.table = "mine", 0, [], np.zeros(2)

    first, second = Counts(), Counts()
    counters = Counters([first, second, keras.callbacks.History()])
    first.wait, first.seen, second.size, second.path = 2, [1.5], 9, "other"
    second.table[0] = 4
    read = counters.read()
    assert set(read) == {"Counts 0", "Counts 1"}
    assert read["Counts 0"] == {"wait": 2, "seen": [1.5]}
    assert read["Counts 1"].keys() == {"size", "table"}
    again = [Counts(), Counts()]
    Counters(again).restore(read)
    assert (again[0].wait, again[0].seen, again[1].size, again[1].table[0], again[1].path) == (2, [1.5], 9, 4.0, "mine")
    assert again[0].size == 3
