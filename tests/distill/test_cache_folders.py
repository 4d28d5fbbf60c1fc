"""The folder of a cache: no file of the user's is overwritten, removed or read, whatever lies in it."""

import os
import pathlib
import shutil

import numpy as np
import pytest
from small import mlp

from tfdistill.distill.cache import manifest
from tfdistill.distill.cache.build import plan_soft_targets, soft_targets
from tfdistill.distill.cache.folder import check_folder, remove_cache
from tfdistill.distill.cache.lock import only_writer
from tfdistill.distill.cache.options import CacheOptions
from tfdistill.distill.cache.ray_workers import label_with_ray
from tfdistill.distill.cache.reader import SoftTargetCache
from tfdistill.errors import ConfigurationError, DataError

X = np.random.default_rng(0).normal(size=(48, 8)).astype("float32")
SIZES = dict(batch_size=16, shard_elements=16)


@pytest.fixture(scope="module")
def teacher():
    return mlp(4, name="teacher")


@pytest.fixture(scope="module")
def finished(teacher, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "cache"
    soft_targets(teacher, X, folder, options=CacheOptions(**SIZES))
    return folder


@pytest.fixture
def cache(finished, tmp_path):
    """A finished cache of three shards."""
    return pathlib.Path(shutil.copytree(finished, tmp_path / "cache"))


def state(folder):
    """What is in a folder, as it is: path -> kind, mode, target of a link or bytes."""
    found = {}
    for path in sorted(folder.rglob("*")):
        kind = path.lstat().st_mode
        content = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found[str(path.relative_to(folder))] = kind, content
    return found


def outside(folder):
    """A file of the user's, beside the folder."""
    path = folder.parent / "precious.txt"
    path.write_text("precious")
    return path


# Folders that were never a cache.

FOREIGN = {
    "a shard's name": lambda f: (f / "shard-00000.tfrecord").write_text("mine"),
    "a note's name": lambda f: (f / "shard-notes.json").write_text("mine"),
    "a note's own name": lambda f: (f / "shard-00000.json").write_text("{}"),
    "an old leftover's name": lambda f: (f / ".shard-00000.abc.tfrecord").write_text("mine"),
    "an old leftover of a plan": lambda f: (f / ".plan.abcdefgh.json").write_text("mine"),
    "any file": lambda f: (f / "thesis.tex").write_text("mine"),
    "a folder": lambda f: (f / "photos").mkdir(),
    "a link to nothing": lambda f: (f / "link").symlink_to("nowhere"),
    "a lock that is the user's": lambda f: (f / ".lock").write_text("mine"),
    "a lock that is a link": lambda f: (f / ".lock").symlink_to(outside(f)),
    "a lock that is a hard link": lambda f: os.link(outside(f), f / ".lock"),
    "a lock that is a pipe": lambda f: os.mkfifo(f / ".lock"),
    "a lock that is a folder": lambda f: (f / ".lock").mkdir(),
    "a manifest of another program": lambda f: (f / "manifest.json").write_text('{"name": "my app"}'),
    "a manifest that is a list": lambda f: (f / "manifest.json").write_text("[]"),
    "a manifest with strange content": lambda f: (f / "manifest.json").write_text('{"sha256": "", "content": 3}'),
    "a manifest that is a link": lambda f: (f / "manifest.json").symlink_to(outside(f)),
    "a manifest that is a link to nothing": lambda f: (f / "manifest.json").symlink_to("nowhere"),
    "a manifest that is a folder": lambda f: (f / "manifest.json").mkdir(),
    "a plan of another program": lambda f: (f / "plan.json").write_text('{"sha256": "x", "content": {}}'),
    "a plan that is a link": lambda f: (f / "plan.json").symlink_to(outside(f)),
    "a plan that is no text": lambda f: (f / "plan.json").write_bytes(b"\xff\xfe"),
    "a plan that is a pipe": lambda f: os.mkfifo(f / "plan.json"),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_a_folder_that_was_never_a_cache_is_refused_and_stays(teacher, tmp_path, case):
    folder = tmp_path / "folder"
    folder.mkdir()
    FOREIGN[case](folder)
    before = state(tmp_path)
    with pytest.raises((ConfigurationError, DataError)) as error:
        soft_targets(teacher, X, folder, options=CacheOptions(**SIZES))
    assert str(folder) in str(error.value)
    with pytest.raises(DataError):
        remove_cache(folder)
    assert state(tmp_path) == before


def test_the_folder_that_is_advised_works(teacher, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ConfigurationError, match=r"files that are not a cache's: 'mine\.txt'") as error:
        soft_targets(teacher, X, tmp_path, options=CacheOptions(**SIZES))
    assert SoftTargetCache(soft_targets(teacher, X, error.value.fix.split("'")[1], options=CacheOptions(**SIZES)).directory).elements == 48
    assert sorted(os.listdir(tmp_path)) == ["mine.txt", "soft_targets"]


def test_many_machines_refuse_a_foreign_folder_too(teacher, tmp_path):
    import labelling_job

    path = labelling_job.save_teacher(tmp_path / "teacher.keras")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "shard-00000.tfrecord").write_text("mine")
    (folder / ".lock").symlink_to(outside(folder))
    before = state(tmp_path)
    with pytest.raises(ConfigurationError, match=r"not a cache's: '\.lock', 'shard-00000\.tfrecord'"):
        label_with_ray(path, labelling_job.arrays, folder, 2)
    assert state(tmp_path) == before


def test_a_plan_writes_nothing(teacher, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan_soft_targets(teacher, X)
    assert state(tmp_path) == {}


def killed_before_the_plan(f):
    (f / ".lock").write_text("process 12 on machine\n")
    (f / ".tfdistill-abcdefgh").mkdir()


EMPTY = {
    "an empty folder": lambda f: None,
    "an empty lock": lambda f: (f / ".lock").write_text(""),
    "a run that was killed before its plan": killed_before_the_plan,
}


@pytest.mark.parametrize("case", EMPTY)
def test_a_folder_that_holds_nothing_is_taken(teacher, finished, tmp_path, case):
    EMPTY[case](tmp_path)
    soft_targets(teacher, X, tmp_path, options=CacheOptions(**SIZES))
    assert {n: c for n, (_, c) in state(tmp_path).items() if n != ".lock"} == {
        n: c for n, (_, c) in state(finished).items() if n != ".lock"
    }


def test_a_folder_that_is_a_link_is_followed(teacher, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    soft_targets(teacher, X, tmp_path / "link", options=CacheOptions(**SIZES))
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "manifest.json").is_file()


# Caches with something in them that is not theirs.

MINE = [
    "README.md",
    "shard-notes.json",
    "shard-00003.json",
    "shard-00000.json",
    "shard-99999.tfrecord",
    ".shard-mine",
    ".manifest.swp",
    "plan.json",
]


@pytest.mark.parametrize("act", ["again", "remove"])
def test_files_of_the_user_in_a_cache_stay(teacher, cache, act):
    for name in MINE:
        (cache / name).write_text("mine")
    (cache / ".shard-00001.abc.tfrecord").symlink_to(outside(cache))
    soft_targets(teacher, X, cache) if act == "again" else remove_cache(cache)
    assert {(cache / name).read_text() for name in MINE} == {"mine"}
    assert (cache / ".shard-00001.abc.tfrecord").is_symlink()
    assert (cache / "shard-00000.tfrecord").exists() == (act == "again")
    if act == "remove":
        assert sorted(os.listdir(cache)) == sorted([*MINE, ".lock", ".shard-00001.abc.tfrecord"])


def test_a_removed_cache_leaves_a_folder_for_the_next(teacher, cache):
    remove_cache(cache)
    assert os.listdir(cache) == [".lock"]
    check_folder(cache)
    soft_targets(teacher, X[:16], cache)


def rewritten(folder, change):
    """Signs a changed manifest, as whoever can write the folder can."""
    path = folder / "manifest.json"
    content = manifest.load_signed(manifest.Manifest, path)[0].to_dict()
    change(content)
    kind = type("Any", (), {"to_dict": lambda self: content})
    manifest.save_signed(kind(), path)


def a_name(text):
    def change(folder):
        rewritten(folder, lambda content: content["shards"][1].update(file=text))

    return change


def becomes_a_link(name):
    def change(folder):
        real = folder.parent / "elsewhere"
        (folder / name).rename(real)
        (folder / name).symlink_to(real)

    return change


def exchanged(content):
    content["shards"] = content["shards"][::-1]


HOSTILE = {
    "a shard above the folder": a_name("../precious.txt"),
    "a shard with an absolute path": a_name("/etc/passwd"),
    "a shard in a folder": a_name("inner/shard-00001.tfrecord"),
    "a shard that is the manifest": a_name("manifest.json"),
    "a shard that is another": a_name("shard-00002.tfrecord"),
    "a shard without a name": a_name(""),
    "a shard whose name is a number": a_name(7),
    "a name with a null": a_name("shard-00001.tfrecord\0"),
    "exchanged shards": lambda f: rewritten(f, exchanged),
    "settings that are text": lambda f: rewritten(f, lambda content: content.update(settings="x")),
    "a linked shard": becomes_a_link("shard-00001.tfrecord"),
    "a linked manifest": becomes_a_link("manifest.json"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_nothing_outside_a_cache_is_read_written_or_removed(teacher, cache, case):
    outside(cache)
    HOSTILE[case](cache)
    before = {n: v for n, v in state(cache.parent).items() if not n.endswith(".lock")}
    for attempt in (
        lambda: SoftTargetCache(cache).verify(),
        lambda: SoftTargetCache(cache).join(X),
        lambda: soft_targets(teacher, X, cache),
    ):
        with pytest.raises(DataError, match=r"manifest\.json|shard-00001"):
            attempt()
    if "linked shard" not in case:
        with pytest.raises(DataError, match=r"manifest\.json"):
            remove_cache(cache)
    assert {n: v for n, v in state(cache.parent).items() if not n.endswith(".lock")} == before


def test_the_remedy_for_a_linked_shard_works(teacher, cache):
    becomes_a_link("shard-00001.tfrecord")(cache)
    with pytest.raises(DataError, match="put the file itself in the place of the link"):
        SoftTargetCache(cache).verify()
    (cache / "shard-00001.tfrecord").unlink()
    (cache.parent / "elsewhere").rename(cache / "shard-00001.tfrecord")
    SoftTargetCache(cache).verify()


@pytest.mark.parametrize("name", ["shard-00001.tfrecord", "shard-00001.json", "manifest.json"])
def test_an_unfinished_cache_writes_through_no_link(teacher, cache, name):
    """A link stands where the next file of the cache would be written."""
    precious = outside(cache)
    settings = SoftTargetCache(cache).manifest.settings
    for path in cache.iterdir():
        path.unlink()
    manifest.save_signed(settings, cache / "plan.json")
    (cache / name).symlink_to(precious)
    with pytest.raises((ConfigurationError, DataError), match="symbolic link"):
        soft_targets(teacher, X, cache)
    assert precious.read_text() == "precious"
    assert (cache / name).is_symlink()
    (cache / name).unlink()
    soft_targets(teacher, X, cache)


def test_a_lock_names_its_holder_and_can_be_taken_over(tmp_path):
    (tmp_path / ".lock").write_text("process 4194304999 on a-machine.example\n")
    with only_writer(tmp_path):
        assert (tmp_path / ".lock").read_text().startswith(f"process {os.getpid()} on ")


def test_a_cache_in_a_folder_of_any_name(teacher, tmp_path):
    """Written and compared again; TensorFlow's own reader of files refuses names that are not UTF-8."""
    folder = tmp_path / os.fsdecode(b"c\xff")
    cache = soft_targets(teacher, X, folder, options=CacheOptions(**SIZES))
    cache.verify()
    soft_targets(teacher, X, folder)
