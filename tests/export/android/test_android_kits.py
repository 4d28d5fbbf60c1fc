"""Kits for Android that `tfdistill kit` fills: their core reads them, and passes the self-test on the file that LiteRT runs."""

import json
import pathlib

import keras
import kotlin_kit
import numpy as np
import pytest
from kit_models import FILES, kit_of

import tfdistill

REFUSED = {"any size"}


def folder_of(name):
    return pathlib.Path(kit_of(name, "android").path)


@pytest.mark.slow
def test_every_kit_passes_its_self_test():
    names = [name for name in FILES if name not in REFUSED]
    jobs = [["selftest", folder_of(name), *kotlin_kit.runner(folder_of(name) / "model.tflite")] for name in names]
    answers = kotlin_kit.run_jobs(jobs)
    vectors = [len(json.loads((folder_of(name) / "model.json").read_text(encoding="utf-8"))["vectors"]) for name in names]
    expected = [(True, f"true true All outputs of {count} test vectors are equal to those of the desk.") for count in vectors]
    assert dict(zip(names, answers, strict=True)) == dict(zip(names, expected, strict=True))


def test_a_kit_is_the_project_with_the_model_in_it():
    found = {path.relative_to(folder_of("int8")).as_posix() for path in folder_of("int8").rglob("*") if path.is_file()}
    project = {path.relative_to(kotlin_kit.KIT).as_posix() for path in kotlin_kit.KIT.rglob("*") if path.is_file()}
    assert project <= found
    assert {"model.tflite", "model.json", "labels.txt", "vectors/0_image.bin"} <= found - project
    assert "Ten things" in (folder_of("int8") / "app/src/main/res/values/app_name.xml").read_text(encoding="utf-8")


def test_what_the_kit_refuses_runs_when_it_is_exported_as_it_says(tmp_path):
    x = np.random.default_rng(0).normal(size=(32, 6)).astype("float32")
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])
    refused = [("int16x8", {}, "io='float32'", {"io": "float32"}), ("float32", {"batch_size": None}, "batch_size=1", {"batch_size": 1})]
    for number, (variant, settings, remedy, mended) in enumerate(refused):
        path = tmp_path / f"{number}.tflite"
        tfdistill.export_tflite(model, path, variant, calibration=x, **settings)
        with pytest.raises(tfdistill.errors.ExportError) as caught:
            tfdistill.kit(path, "android", tmp_path / "kit")
        assert remedy in caught.value.fix
        tfdistill.export_tflite(model, path, variant, calibration=x, **mended)
        assert tfdistill.kit(path, "android", tmp_path / f"kit{number}").vectors == 3
