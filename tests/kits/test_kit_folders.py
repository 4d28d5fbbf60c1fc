"""The folder of a kit: whole or not at all, and nothing in it is lost."""

import json
import os
import pathlib
import shutil

import pytest
from kit_models import file_of, kit_of

import tfdistill
from tfdistill.errors import ConfigurationError
from tfdistill.kits import folders
from tfdistill.utils.shipped import device_folder, shipped_files


def copy_of(tmp_path, name="int8"):
    return pathlib.Path(shutil.copytree(kit_of(name, "microcontroller").path, tmp_path / "kit"))


def make(folder, name="int8", **arguments):
    return tfdistill.kit(file_of(name), "microcontroller", folder, **arguments)


def test_a_new_folder_an_empty_one_and_a_link_to_one(tmp_path):
    make(tmp_path / "a" / "b" / "kit")
    (tmp_path / "empty").mkdir()
    make(tmp_path / "empty")
    (tmp_path / "place").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "place")
    make(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert {(tmp_path / name / "model.json").is_file() for name in ("a/b/kit", "empty", "place")} == {True}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "empty", "link", "place"]


def changed(kit):
    (kit / "main.cc").write_text("// mine")


def added(kit):
    (kit / "notes.txt").write_text("mine")


def linked(kit):
    (kit / "main.cc").unlink()
    (kit / "main.cc").symlink_to("/etc/hostname")


OWN = {
    "a changed file": (changed, "main.cc"),
    "a new file": (added, "notes.txt"),
    "a link": (linked, "main.cc"),
}


@pytest.mark.parametrize("row", OWN)
def test_a_kit_with_files_of_its_owner_stays(row, tmp_path):
    harm, named = OWN[row]
    kit = copy_of(tmp_path)
    harm(kit)
    before = sorted(path.name for path in kit.rglob("*"))
    with pytest.raises(ConfigurationError, match=f"not as they were written: {named}"):
        make(kit, "softmax", overwrite=True)
    assert sorted(path.name for path in kit.rglob("*")) == before


def test_a_kit_is_replaced_when_that_is_asked_for(tmp_path):
    kit = copy_of(tmp_path)
    with pytest.raises(ConfigurationError, match="There is a kit"):
        make(kit, "softmax")
    (kit / "src" / "__pycache__").mkdir()
    (kit / "src" / "__pycache__" / "x.pyc").write_bytes(b"left over")
    record = make(kit, "softmax", overwrite=True)
    assert json.loads((kit / "model.json").read_text())["sha256"] == record.sha256
    assert not (kit / "src" / "__pycache__").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["kit"]


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("content", ["{}", "no json", '{"files": {"photo.png": "0"}}', None])
def test_a_folder_that_is_no_kit_stays(overwrite, content, tmp_path):
    (tmp_path / "photo.png").write_bytes(b"mine")
    if content is not None:
        (tmp_path / folders.CONTENTS).write_text(content)
    with pytest.raises(ConfigurationError, match="no kit"):
        make(tmp_path, overwrite=overwrite)
    assert (tmp_path / "photo.png").read_bytes() == b"mine"


def test_a_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / "kit").write_text("mine")
    with pytest.raises(ConfigurationError, match="is a file"):
        make(tmp_path / "kit")


def test_a_failure_leaves_the_old_kit_and_nothing_else(tmp_path, monkeypatch):
    kit = copy_of(tmp_path)
    before = {path: path.read_bytes() for path in kit.rglob("*") if path.is_file()}
    rename = pathlib.Path.rename

    def fails(path, target):
        if path.name == "new":
            raise OSError(28, os.strerror(28))
        return rename(path, target)

    monkeypatch.setattr(pathlib.Path, "rename", fails)
    with pytest.raises(ConfigurationError, match=os.strerror(28)):
        make(kit, "softmax", overwrite=True)
    assert {path: path.read_bytes() for path in kit.rglob("*") if path.is_file()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["kit"]


def test_programs_can_be_run(tmp_path):
    files = {"install.sh": b"#!/bin/sh\n", "deep/er/run": b"#!/usr/bin/env python3\n", "notes.txt": b"text"}
    folders.write_kit(files, tmp_path / "kit", "raspberry_pi", "0")
    assert {name: os.access(tmp_path / "kit" / name, os.X_OK) for name in files} == {
        "install.sh": True,
        "deep/er/run": True,
        "notes.txt": False,
    }


def test_the_files_of_a_device_are_found():
    assert {"main.cc", "src/tensor_math.c", "CMakeLists.txt"} <= set(shipped_files("microcontroller"))
    assert device_folder("web").name == "web"
    with pytest.raises(ConfigurationError, match="no files for the device 'wbe'") as caught:
        device_folder("wbe")
    assert "'web'" in caught.value.fix


def test_what_programs_leave_is_no_part_of_a_kit(tmp_path, monkeypatch):
    for name in ("a.py", "__pycache__/a.pyc", "deep/b.txt", "build/c.o"):
        (tmp_path / "device" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "device" / name).write_text(name)
    monkeypatch.setattr("tfdistill.utils.shipped._PLACES", (tmp_path,))
    assert shipped_files("device") == {"a.py": b"a.py", "deep/b.txt": b"deep/b.txt"}
