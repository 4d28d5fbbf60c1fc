"""Models, weights, losses and a cache of soft targets that version 0.1.0 wrote before its modules moved are read by a new process (tests/data/README.md)."""

import json
import pathlib
import zipfile

import fresh
import numpy as np
import pytest

TESTS = pathlib.Path(__file__).parent
FILES = TESTS / "data" / "saved_0.1.0.zip"
# File -> the class that Keras makes of it.
MODELS = {
    "adopted": "AdoptedModel",
    "pruned": "PrunedModel",
    "clustered": "AdoptedModel",
    "quantized": "AdoptedModel",
    "distilled": "Distiller",
    "distilled_by_an_ensemble": "Distiller",
    "distilled_by_a_cache": "Distiller",
}


def unpack(folder):
    """Unpacks the files; the model that was taught by a cache looks for it where it is now."""
    with zipfile.ZipFile(FILES) as archive:
        archive.extractall(folder)
    path = folder / "distilled_by_a_cache.keras"
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(parts["config.json"])
    config["config"]["teacher"]["config"]["directory"] = str(folder / "cache")
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**parts, "config.json": json.dumps(config)}.items():
            archive.writestr(name, content)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The unpacked files, and beside them what a new process found in them."""
    folder = tmp_path_factory.mktemp("saved")
    unpack(folder)
    done = fresh.run(TESTS / "load_saved_job.py", folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_the_files_are_small():
    assert sum(path.stat().st_size for path in FILES.parent.rglob("*") if path.is_file()) < 100_000


@pytest.mark.slow
@pytest.mark.parametrize("kind", MODELS)
def test_a_model_saved_before_the_modules_moved_computes_the_same(kind, folder):
    expected, found = np.load(folder / "expected.npz"), np.load(folder / "found.npz")
    assert read(folder / "found.json")["classes"][kind] == MODELS[kind]
    assert np.ptp(expected[kind]) > 0.1
    np.testing.assert_allclose(found[kind], expected[kind], atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("kind", MODELS)
def test_its_losses_and_metrics_are_the_same(kind, folder):
    expected, found = read(folder / "expected.json")[kind], read(folder / "found.json")["evaluated"][kind]
    assert found == pytest.approx(expected, abs=1e-5)


@pytest.mark.slow
def test_weights_saved_before_the_modules_moved_are_read(folder):
    found = np.load(folder / "found.npz")
    np.testing.assert_array_equal(found["quantized.weights"], found["quantized"])


def values(config):
    """The settings of a saved object by class, without the keys and modules, which may be called otherwise today."""
    if isinstance(config, dict) and "class_name" in config:
        return config["registered_name"], values(config["config"])
    if isinstance(config, dict):
        return sorted((values(value) for value in config.values()), key=repr)
    return config


@pytest.mark.slow
def test_every_loss_and_schedule_saved_before_the_modules_moved_has_its_settings(folder):
    saved = read(folder / "losses.json")
    assert [values(entry) for entry in read(folder / "found.json")["losses"]] == [values(entry) for entry in saved]
