"""A cache is whole or refused: kills, flipped bytes, missing files, two writers."""

import os
import pathlib
import random
import subprocess
import sys

import numpy as np
import pytest
from small import mlp

from tfdistill.distill.cache import manifest as cache_manifest
from tfdistill.distill.cache import writer
from tfdistill.distill.cache.build import soft_targets
from tfdistill.distill.cache.lock import only_writer
from tfdistill.distill.cache.options import CacheOptions
from tfdistill.distill.cache.reader import SoftTargetCache
from tfdistill.errors import ConfigurationError, DataError

HERE = pathlib.Path(__file__).parent
# Writers that are killed once each.
KILLED = 20


@pytest.fixture
def made(tmp_path):
    x = np.random.default_rng(0).normal(size=(200, 8)).astype("float32")
    teacher = mlp(8, name="teacher")
    return teacher, x, soft_targets(teacher, x, tmp_path / "cache", options=CacheOptions(batch_size=16, shard_elements=32))


def contents(directory):
    """Name -> bytes of every file but the lock, which holds the writer's process number."""
    return {p.name: p.read_bytes() for p in sorted(pathlib.Path(directory).iterdir()) if p.name != ".lock"}


def flips(directory, count, seed):
    """Flips a bit of one byte at a time; yields the file's path with the flip in it, and undoes it."""
    chance = random.Random(seed)
    files = [p for p in sorted(directory.iterdir()) if p.name != ".lock"]
    sizes = [p.stat().st_size for p in files]
    for _ in range(count):
        # Half of them in the manifest, which is the smaller part.
        path = directory / "manifest.json" if chance.random() < 0.5 else chance.choices(files, sizes)[0]
        whole = path.read_bytes()
        place = chance.randrange(len(whole))
        path.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << chance.randrange(8))]) + whole[place + 1 :])
        try:
            yield path
        finally:
            path.write_bytes(whole)


def refusal(directory):
    """The error with which a cache is refused, or None."""
    try:
        SoftTargetCache(directory).verify()
    except DataError as error:
        return error
    return None


def test_every_flipped_byte_is_found_or_changes_nothing(made):
    _, _, cache = made
    found = 0
    for path in flips(cache.directory, 200, seed=5):
        error = refusal(cache.directory)
        if error is None:
            assert path.name == "manifest.json"
            assert SoftTargetCache(cache.directory).manifest == cache.manifest
        else:
            assert path.name in str(error)
            found += 1
    assert found >= 190
    assert refusal(cache.directory) is None


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def flip(path):
    whole = path.read_bytes()
    path.write_bytes(whole[:40] + bytes([whole[40] ^ 1]) + whole[41:])


@pytest.mark.parametrize(
    ("name", "act", "words"),
    [
        ("shard-00002.tfrecord", pathlib.Path.unlink, "is missing"),
        ("shard-00002.tfrecord", cut, "bytes"),
        ("shard-00002.tfrecord", flip, "is damaged"),
    ],
)
def test_a_damaged_shard_is_said_before_training(made, name, act, words):
    teacher, x, cache = made
    act(cache.directory / name)
    for attempt in (lambda: SoftTargetCache(cache.directory).join(x), lambda: soft_targets(teacher, x, cache.directory)):
        with pytest.raises(DataError) as error:
            attempt()
        assert name in str(error.value)
        assert words in str(error.value)


def test_a_manifest_of_another_format_is_refused(made):
    _, _, cache = made
    settings = cache.manifest.settings.to_dict() | {"format": 3}
    manifest = cache_manifest.Manifest.from_dict(cache.manifest.to_dict() | {"settings": settings})
    cache_manifest.save_signed(manifest, cache.directory / "manifest.json")
    with pytest.raises(DataError, match="format 3"):
        SoftTargetCache(cache.directory)


class Stopped(Exception):
    pass


def stop_after(monkeypatch, shards):
    """Makes writers stop once so many shards are written."""
    write = writer.ShardWriter.write

    def counted(self, index, *args, **kwargs):
        if index >= shards:
            raise Stopped
        return write(self, index, *args, **kwargs)

    monkeypatch.setattr(writer.ShardWriter, "write", counted)


def test_a_stopped_run_goes_on(made, tmp_path, monkeypatch):
    teacher, x, cache = made
    settings = dict(batch_size=16, shard_elements=32)
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        with pytest.raises(Stopped):
            soft_targets(teacher, x, tmp_path / "stopped", options=CacheOptions(**settings))
    with pytest.raises(DataError, match="unfinished: 3 shards"):
        SoftTargetCache(tmp_path / "stopped")
    written = (tmp_path / "stopped" / "shard-00001.tfrecord").stat().st_mtime_ns
    other = x.copy()
    other[20, 0] += 1
    with pytest.raises(DataError, match="Another dataset"):
        soft_targets(teacher, other, tmp_path / "stopped", options=CacheOptions(**settings))
    (tmp_path / "stopped" / ".shard-00004.abc.tfrecord").write_bytes(b"part")
    soft_targets(teacher, x, tmp_path / "stopped")  # batch and shard sizes are those it began with
    assert contents(tmp_path / "stopped") == contents(cache.directory)
    assert (tmp_path / "stopped" / "shard-00001.tfrecord").stat().st_mtime_ns == written


def test_a_shorter_dataset_does_not_finish_a_longer_one(made, tmp_path, monkeypatch):
    teacher, x, _ = made
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        with pytest.raises(Stopped):
            soft_targets(teacher, x, tmp_path / "stopped", options=CacheOptions(batch_size=16, shard_elements=32))
    with pytest.raises(DataError, match="another dataset"):
        soft_targets(teacher, x[:64], tmp_path / "stopped")


def test_two_writers_cannot_write_one_folder(made):
    teacher, x, cache = made
    with only_writer(cache.directory), pytest.raises(ConfigurationError, match=f"process {os.getpid()} "):
        soft_targets(teacher, x, cache.directory)
    soft_targets(teacher, x, cache.directory)


def test_an_unwritable_folder_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="cannot be written"):
        soft_targets(mlp(4), np.zeros((4, 8), "float32"), tmp_path / "file")


@pytest.mark.slow
def test_killed_runs_end_like_an_undisturbed_one(tmp_path):
    command = [sys.executable, str(HERE / "soft_targets_job.py"), str(tmp_path), str(KILLED), "11"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=HERE.parents[1])
    assert done.returncode == 0, done.stderr
    # Most were killed before they were done; else the moments were badly chosen.
    assert int(done.stdout.split()[-1]) >= KILLED // 4
    expected = contents(tmp_path / "undisturbed")
    assert len(expected) == 65
    for number in range(KILLED):
        assert contents(tmp_path / f"killed_{number}") == expected
