"""The kit's bench.py, with the stand-in for adb and a device of tests/benchmarking; its figures are those of the `Adb` target."""

import ast
import json
import subprocess
import sys

import pytest
from kotlin_kit import KIT
from phone import NEWER, SAME, Phone

from tfdistill.benchmarking.remote.benchmark_model import parsed

BENCH = KIT / "bench.py"
WITHOUT = "\n".join(line for line in NEWER.splitlines() if "delegate" not in line)


@pytest.fixture
def phone(tmp_path):
    (tmp_path / "model.tflite").write_bytes(b"\x1c\0\0\0TFL3 and more")
    return Phone(tmp_path)


def bench(phone, *words, adb=None):
    files = [phone.folder / "model.tflite", "--benchmark-model", phone.program, "--adb", adb or phone.adb]
    done = subprocess.run([sys.executable, "-I", BENCH, *files, *words], capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(("output", "words"), [(NEWER, ["--gpu", "--threads", "4"]), (SAME, []), (WITHOUT, [])])
def test_figures_are_those_of_the_target(phone, output, words):
    phone.set(output)
    code, said = bench(phone, *words, "--json", phone.folder / "found.json")
    assert code == 0, said
    found = json.loads((phone.folder / "found.json").read_text())
    target = parsed(output)
    assert {name: found[name] for name in found if name in target} == {name: target[name] for name in found if name in target}
    assert found["device"] == "39071FDJH0001"
    log = (phone.folder / "log").read_text()
    assert ("--use_gpu=true" in log) == ("--gpu" in words)
    assert ("--num_threads=4" in log) == ("4" in words)
    assert phone.leftovers() == []


def test_a_gpu_that_takes_nothing_is_said(phone):
    phone.set(WITHOUT)
    code, said = bench(phone, "--gpu")
    assert code == 0
    assert "The GPU took nothing: these are times of the CPU." in said


FAILING = {
    "no device": ({"devices": {}}, [], "connected: none. Switch USB debugging on"),
    "another": ({}, ["--serial", "other"], "adb has no device other that is ready; connected: 39071FDJH0001 (device)"),
    "several": (
        {"devices": {"a": "device", "b": "device"}},
        [],
        "Several devices are connected: a (device), b (device). Name one: --serial a",
    ),
    "unauthorized": ({"devices": {"a": "unauthorized"}}, [], "connected: a (unauthorized)"),
    "no room": ({"room": 10}, [], "No space left on device"),
    "vanishes": ({"vanishes": True}, [], "adb shell failed with exit code 255"),
    "no statistics": ({"output": "INFO: STARTING!"}, [], "benchmark_model printed no statistics"),
}


@pytest.mark.parametrize("name", FAILING)
def test_failures_say_what_is_wrong(name, phone):
    changes, words, expected = FAILING[name]
    phone.set(**changes)
    code, said = bench(phone, *words)
    assert code == 1
    assert expected in said
    assert "Traceback" not in said
    assert phone.leftovers() == [] or name == "vanishes"


def test_no_adb_and_no_file(phone):
    assert "Give the path of adb: --adb PATH" in bench(phone, adb=phone.folder / "none")[1]
    (phone.folder / "model.tflite").unlink()
    code, said = bench(phone)
    assert code == 1
    assert "There is no file" in said


def test_it_needs_the_standard_library_alone():
    tree = ast.parse(BENCH.read_text(encoding="utf-8"))
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert {name.partition(".")[0] for name in names} <= sys.stdlib_module_names
