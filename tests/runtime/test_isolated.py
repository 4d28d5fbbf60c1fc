"""Child processes: what they may import, what becomes of them when their parent is killed, and what they leave behind."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import keras
import pytest
import tensorflow as tf

from tfdistill.errors import ConfigurationError, RuntimeUnavailableError
from tfdistill.runtime import isolated, probe, tensorflow_lite
from tfdistill.runtime.capture import captured_output
from tfdistill.runtime.interpreter import open_file
from tfdistill.tflite import export_tflite

HERE = pathlib.Path(__file__).parent


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    return export_tflite(model, tmp_path_factory.mktemp("isolated") / "small.tflite").path


@pytest.fixture(scope="module")
def endless(tmp_path_factory):
    """A valid file that never comes back: a loop whose condition is always true for inputs below 1e9, and whose step is 0."""

    @tf.function(input_signature=[tf.TensorSpec((1, 2), tf.float32)])
    def serve(x):
        return tf.while_loop(lambda v: tf.reduce_sum(v) < 1e9, lambda v: [v * 1.0 - 0.0], [x])[0]

    with captured_output():
        content = tensorflow_lite.converter_class().from_concrete_functions([serve.get_concrete_function()], tf.Module()).convert()
    made = tmp_path_factory.mktemp("endless") / "endless.tflite"
    made.write_bytes(content)
    return made


HOSTILE = ["json", "numpy", "tfdistill", "sitecustomize", "usercustomize", "signal", "ctypes", "flatbuffers", "tempfile", "select"]


def test_nothing_of_the_working_folder_is_run(path, tmp_path):
    marker = tmp_path / "was_run.txt"
    working = tmp_path / "working"
    working.mkdir()
    for name in HOSTILE:
        text = f"open({str(marker)!r}, 'a').write({name!r} + chr(10))\nraise SystemExit(77)\n"
        (working / f"{name}.py").write_text(text)
        (working / f"{name}_package").mkdir()
    command = [sys.executable, str(HERE / "isolated_job.py"), path]
    done = subprocess.run(command, cwd=working, capture_output=True, text=True, check=False, timeout=120)
    assert not marker.exists(), marker.read_text()
    assert (done.returncode, done.stdout.strip()) == (0, "True"), done.stderr


# Where this process has its packages from -> which folders a child is given.
def test_folders_that_a_child_imports_from(tmp_path, monkeypatch):
    import flatbuffers

    vendored, user, working = tmp_path / "vendored", tmp_path / "user" / "site-packages", tmp_path / "working"
    for folder in (vendored / "tflite_runtime", user, working / "tests"):
        folder.mkdir(parents=True)
    (vendored / "tflite_runtime" / "__init__.py").touch()
    monkeypatch.chdir(working)
    monkeypatch.setattr(sys, "path", ["", ".", str(working), str(vendored), str(user), *sys.path])
    found = isolated._directories()
    assert {str(vendored), str(user), str(pathlib.Path(flatbuffers.__file__).parents[1])} <= set(found)
    assert not {"", ".", str(working)} & set(found)
    assert found.index(str(vendored)) < found.index(str(user))
    (working / "tflite_runtime").mkdir()
    (working / "tflite_runtime" / "__init__.py").touch()
    assert isolated._directories()[-1] == str(working)


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
        return stat.read().rpartition(")")[2].split()[0] != "Z"


def descendants(pid):
    found = []
    for task in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = task.read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            child = int(task.parent.name)
            found += [child, *descendants(child)]
    return found


def waits_until(condition, seconds=30):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False


# What a parent does when it is killed -> (its code, how many processes hang below it).
PARENTS = {
    "opens an endless file": ("from tfdistill.runtime.interpreter import open_file; open_file(path)", 2),
    "measures an endless file": ("import tfdistill; tfdistill.benchmark(path, timeout_seconds=600)", 1),
    "counts an endless file and idles": ("from tfdistill.tflite import census; census(path); import time; time.sleep(600)", 1),
    "runs a child that holds the interpreter lock": (
        "from tfdistill.benchmarking.isolation import run_child; run_child({}, 600, module='deaf_child', paths=[folder])",
        1,
    ),
}


@pytest.mark.parametrize("parent", PARENTS)
def test_children_end_with_a_killed_parent_and_leave_nothing(parent, endless, tmp_path):
    code, count = PARENTS[parent]
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    (tmp_path / "deaf_child.py").write_text("import ctypes\ndef main(result_fd):\n    ctypes.PyDLL(None).sleep(600)\n")
    process = subprocess.Popen(
        [sys.executable, "-c", f"path, folder = {str(endless)!r}, {str(tmp_path)!r}\n{code}"],
        env={**os.environ, "TMPDIR": str(temporary), "TFDISTILL_PROBE_SECONDS": "600"},
    )
    try:
        assert waits_until(lambda: len(descendants(process.pid)) >= count)
        time.sleep(1.0)  # until they are where they hang
        below = descendants(process.pid)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert len(below) >= count
    assert waits_until(lambda: not any(alive(pid) for pid in below)), below
    assert list(temporary.iterdir()) == []


def test_an_endless_file_is_an_error_with_a_remedy(endless, monkeypatch):
    monkeypatch.setenv("TFDISTILL_PROBE_SECONDS", "1")
    with pytest.raises(RuntimeUnavailableError, match=r"still busy after 1 s(.|\n)*TFDISTILL_PROBE_SECONDS"):
        open_file(endless)
    monkeypatch.setenv("TFDISTILL_PROBE_SECONDS", "2")
    with pytest.raises(RuntimeUnavailableError, match="still busy after 2 s"):  # a late file is tried again
        open_file(endless)


@pytest.mark.parametrize("text", ["", "soon", "0", "-1", "nan", "inf"])
def test_impossible_limits(text, path, monkeypatch):
    monkeypatch.setenv("TFDISTILL_PROBE_SECONDS", text)
    with pytest.raises(ConfigurationError, match="TFDISTILL_PROBE_SECONDS") as caught:
        open_file(path)
    assert "unset" in caught.value.fix
    monkeypatch.delenv("TFDISTILL_PROBE_SECONDS")
    assert open_file(path).outputs


def test_a_helper_that_was_killed_is_started_again(path):
    open_file(path)
    first = probe._helper.process.pid
    os.kill(first, signal.SIGKILL)
    assert waits_until(lambda: not alive(first))
    open_file(path, threads=2)
    assert probe._helper.process.pid != first


# In a process of its own: TensorFlow's threads, which have run here, do not exist in a fork, and what collects its objects there may wait for them for ever.
FORKING = """
import os, sys
from tfdistill.runtime import probe
from tfdistill.runtime.interpreter import open_file

path = sys.argv[1]
open_file(path)
first = probe._helper.process.pid
pid = os.fork()
if pid == 0:
    code = 1
    try:
        open_file(path, threads=3)
        code = 0 if probe._helper.process.pid != first else 2
        probe._helper.end()
    finally:
        os._exit(code)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
open_file(path, threads=4)
assert probe._helper.process.pid == first
"""


def test_a_forked_process_has_a_helper_of_its_own(path):
    done = subprocess.run([sys.executable, "-c", FORKING, path], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("name", "match"), [("path", None), ("endless", "still busy after 1 s")])
def test_where_nothing_can_be_forked_each_file_has_a_process(name, match, request, monkeypatch):
    monkeypatch.setattr(probe, "_CAN_FORK", False)
    monkeypatch.setattr(probe, "_START_SECONDS", 0.0 if match else 60.0)
    monkeypatch.setenv("TFDISTILL_PROBE_SECONDS", "1" if match else "30")
    if match:
        with pytest.raises(RuntimeUnavailableError, match=match):
            open_file(request.getfixturevalue(name), threads=5)
    else:
        assert open_file(request.getfixturevalue(name), threads=5).outputs


@pytest.mark.parametrize("executable", ["/no/such/python", ""])
def test_a_python_that_cannot_be_started(executable, path, monkeypatch):
    monkeypatch.setattr(sys, "executable", executable)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(probe, "_helper", probe._Helper())
    with pytest.raises(RuntimeUnavailableError, match="No process can be started"):
        open_file(path, threads=6)


def test_a_helper_that_cannot_work_says_why(path, monkeypatch, tmp_path):
    (tmp_path / "broken_helper.py").write_text("def main(result_fd):\n    raise OSError('something is missing')\n")
    start = isolated.start
    monkeypatch.setattr(isolated, "start", lambda *arguments, **options: start(*arguments, **options, paths=[tmp_path]))
    monkeypatch.setattr(probe, "_CHILD", "broken_helper")
    monkeypatch.setattr(probe, "_helper", probe._Helper())
    with pytest.raises(RuntimeUnavailableError, match=r"failed with exit code 1(.|\n)*something is missing"):
        open_file(path, threads=7)
