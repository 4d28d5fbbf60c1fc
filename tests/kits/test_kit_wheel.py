"""A kit is made by an installed wheel, without a checkout."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

import pytest
from environments import python_with
from kit_models import HERE, ROOT, file_of

from tfdistill.utils.shipped import shipped_files


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built of a copy: setuptools leaves files beside what it builds."""
    folder = tmp_path_factory.mktemp("wheel")
    tracked = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in tracked.splitlines():
        if name.split("/")[0] in ("tfdistill", "export") or "/" not in name:
            (folder / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / name).is_file():
                shutil.copy(ROOT / name, folder / "copy" / name)
    command = [
        python_with("setuptools>=68", "wheel"),
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        folder,
        folder / "copy",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(folder.glob("*.whl"))


@pytest.mark.slow
def test_a_wheel_has_the_files_of_every_device(wheel):
    with zipfile.ZipFile(wheel) as archive:
        found = {
            name.removeprefix("tfdistill/export/"): archive.read(name)
            for name in archive.namelist()
            if name.startswith("tfdistill/export/")
        }
    assert found == {f"{device}/{path}": data for device in HERE for path, data in shipped_files(device).items()} | {
        name: data for name, data in found.items() if name.split("/")[0] not in HERE
    }
    assert {name.split("/")[0] for name in found} >= set(HERE)


@pytest.mark.slow
def test_an_installed_wheel_makes_kits(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    code = """
import json, sys, tfdistill
from tfdistill.utils.shipped import device_folder
place = [str(device_folder(device)) for device in sys.argv[3].split(",")]
record = tfdistill.kit(sys.argv[1], "microcontroller", sys.argv[2])
print(json.dumps({"package": tfdistill.__file__, "places": place, "files": record.files}))
"""
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "installed")}
    command = [sys.executable, "-P", "-c", code, file_of("int8"), tmp_path / "kit", ",".join(HERE)]
    if sys.version_info < (3, 11):
        command.remove("-P")
    done = subprocess.run([str(part) for part in command], cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    installed = tmp_path / "installed" / "tfdistill"
    assert pathlib.Path(said["package"]).parent == installed
    assert {pathlib.Path(place).parent for place in said["places"]} == {installed / "export"}
    assert (tmp_path / "kit" / "src" / "model_data.cc").is_file()


@pytest.mark.slow
def test_a_wheel_has_the_page_that_runs_files_in_a_browser(wheel):
    place = "tfdistill/benchmarking/browser"
    with zipfile.ZipFile(wheel) as archive:
        found = {name: archive.read(name) for name in archive.namelist() if name.startswith(place) and not name.endswith(".py")}
    assert found == {
        path.relative_to(ROOT).as_posix(): path.read_bytes() for path in (ROOT / place).iterdir() if path.suffix in (".html", ".js")
    }
    assert len(found) == 2
