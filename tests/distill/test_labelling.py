"""Labelling by many workers writes what one writer writes."""

import itertools
import os
import signal
import sys
import threading
import time

import keras
import labelling_job
import pytest
from test_soft_targets_safety import contents

from tfdistill.cli import app
from tfdistill.distill.cache import manifest
from tfdistill.distill.cache.build import soft_targets
from tfdistill.distill.cache.options import CacheOptions
from tfdistill.distill.cache.ray_workers import Worker, label_with_ray
from tfdistill.distill.cache.reader import SoftTargetCache
from tfdistill.distill.cache.writer import ShardWriter
from tfdistill.errors import ConfigurationError, DataError, ModelError


@pytest.fixture
def alone(tmp_path):
    """A teacher's file, and the folder that a single writer wrote."""
    path = labelling_job.save_teacher(tmp_path / "teacher.keras")
    soft_targets(
        keras.saving.load_model(path), labelling_job.arrays(), tmp_path / "alone", options=CacheOptions(batch_size=8, shard_elements=24)
    )
    return path, tmp_path / "alone"


def test_workers_write_the_same_files(alone, tmp_path):
    """The shards are written by two workers, in no order, in this process."""
    path, folder = alone
    settings = SoftTargetCache(folder).manifest.settings
    (tmp_path / "many").mkdir()
    workers = [Worker(path, "labelling_job:arrays", tmp_path / "many", settings, CacheOptions(), None) for _ in range(2)]
    shards = {
        index: manifest.Shard.from_dict(worker.write(index)) for index, worker in zip((3, 0, 2, 1), itertools.cycle(workers), strict=False)
    }
    ShardWriter(tmp_path / "many", settings).finish([shards[i] for i in range(4)])
    assert contents(tmp_path / "many") == contents(folder)


def test_a_worker_with_another_teacher_is_refused(alone, tmp_path):
    _, folder = alone
    keras.utils.set_random_seed(9)
    other = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4)])
    other.save(tmp_path / "other.keras")
    with pytest.raises(DataError, match="another teacher"):
        Worker(tmp_path / "other.keras", labelling_job.arrays, folder, SoftTargetCache(folder).manifest.settings, CacheOptions(), None)


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        (dict(num_shards=0), ConfigurationError, "num_shards"),
        (dict(workers=0), ConfigurationError, "workers"),
        (dict(threads=0), ConfigurationError, "threads"),
    ],
)
def test_impossible_numbers_are_refused(alone, tmp_path, arguments, kind, words):
    with pytest.raises(kind, match=words):
        label_with_ray(
            **{"teacher_path": alone[0], "make_dataset": labelling_job.arrays, "directory": tmp_path / "c", "num_shards": 2, **arguments}
        )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make_dataset", "kind", "words"),
    [
        ("labelling_job", ConfigurationError, "module:function"),
        ("labelling_job:none_such", ConfigurationError, "cannot be imported"),
        ("labelling_job:nothing", DataError, "above 0"),
    ],
)
def test_a_dataset_that_cannot_be_made_is_refused(alone, tmp_path, make_dataset, kind, words):
    with pytest.raises(kind, match=words):
        label_with_ray(alone[0], make_dataset, tmp_path / "c", 2)
    with pytest.raises(ModelError, match="no such file"):
        label_with_ray(tmp_path / "none.tflite", labelling_job.arrays, tmp_path / "c", 2)


@pytest.mark.slow
def test_many_processes_write_the_same_files(alone, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([os.path.dirname(__file__), os.environ.get("PYTHONPATH", "")]))
    path, folder = alone
    label_with_ray(path, "labelling_job:arrays", tmp_path / "many", 4, options=CacheOptions(batch_size=8), workers=2)
    assert contents(tmp_path / "many") == contents(folder)


@pytest.mark.slow
def test_a_killed_worker_loses_nothing(alone, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([os.path.dirname(__file__), os.environ.get("PYTHONPATH", "")]))
    path, folder = alone
    started = []

    def kill_the_first_in_the_middle(pid):
        started.append(pid)
        if len(started) == 1:
            # A shard takes 0.6 seconds.
            threading.Thread(target=lambda: (time.sleep(0.9), os.kill(pid, signal.SIGKILL)), daemon=True).start()

    label_with_ray(
        path,
        "labelling_job:slow_batches",
        tmp_path / "many",
        4,
        options=CacheOptions(batch_size=8),
        workers=1,
        on_worker_start=kill_the_first_in_the_middle,
    )
    assert len(started) == 2
    assert contents(tmp_path / "many") == contents(folder)


@pytest.mark.slow
def test_a_second_run_does_only_what_is_missing(alone, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([os.path.dirname(__file__), os.environ.get("PYTHONPATH", "")]))
    path, folder = alone
    settings = SoftTargetCache(folder).manifest.settings
    many = tmp_path / "many"
    many.mkdir()
    manifest.save_signed(settings, many / "plan.json")
    Worker(path, labelling_job.arrays, many, settings, CacheOptions(), None).write(2)
    written = (many / "shard-00002.tfrecord").stat().st_mtime_ns
    label_with_ray(path, "labelling_job:arrays", many, 4, workers=1)
    assert contents(many) == contents(folder)
    assert (many / "shard-00002.tfrecord").stat().st_mtime_ns == written
    started = []
    label_with_ray(path, "labelling_job:arrays", many, 4, workers=1, on_worker_start=started.append)
    assert started == []


@pytest.mark.slow
def test_the_command_labels(alone, tmp_path, monkeypatch, capsys):
    path, folder = alone
    monkeypatch.chdir(os.path.dirname(__file__))
    monkeypatch.setattr(sys, "path", list(sys.path))
    words = ["label", path, "labelling_job:arrays", tmp_path / "c", "--shards", 4, "--workers", 1, "--batch-size", 8]
    monkeypatch.setattr(sys, "argv", ["tfdistill", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        app.main()
    assert end.value.code == 0
    assert "96 elements" in capsys.readouterr().out
    assert contents(tmp_path / "c") == contents(folder)
