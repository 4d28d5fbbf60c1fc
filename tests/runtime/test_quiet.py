"""Capturing native output and opening files in many threads: descriptors and filters are what they were, and nobody loses a line."""

import collections
import io
import os
import pathlib
import subprocess
import sys
import threading
import warnings

import keras
import pytest
from quiet_job import LINES, SCENARIOS

from tfdistill.runtime.capture import captured_output
from tfdistill.runtime.interpreter import open_file
from tfdistill.tflite import export_tflite

HERE = pathlib.Path(__file__).parent


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    return export_tflite(model, tmp_path_factory.mktemp("quiet") / "small.tflite").path


def run_python(*arguments, **options):
    return subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=120, **options)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_threads_lose_no_line_and_leave_nothing_changed(scenario, path):
    done = run_python(HERE / "quiet_job.py", scenario, path)
    assert done.returncode == 0, done.stderr[-3000:]
    out, err = done.stdout.splitlines(), done.stderr.splitlines()
    every = [(number, line) for number in range(3) for line in range(LINES)]
    assert collections.Counter(out) == collections.Counter(f"out {n} {i}" for n, i in every)
    for kind in ("err", "log"):
        assert [line for n, i in every for line in [f"{kind} {n} {i}"] if err.count(line) != 1] == []
    # Another thread's `catch_warnings` may swallow a warning, as it does without us; what is shown is whole.
    shown = [line for line in err if "RuntimeWarning: warn " in line]
    assert len(shown) > len(every) / 2
    assert not [line for line in (*out, *err) if "secret" in line or "XNNPACK" in line or "never shown" in line]


def test_what_other_native_code_prints_meanwhile_is_printed_again():
    code = (
        "import ctypes; from tfdistill.runtime.capture import quiet_interpreter\n"
        "libc = ctypes.CDLL(None)\n"
        "with quiet_interpreter('ai_edge_litert'):\n"
        "    stream = ctypes.c_void_p.in_dll(libc, 'stderr')\n"
        "    libc.fputs(b'INFO: Created a delegate\\n', stream); libc.fputs(b'somebody else\\n', stream)\n"
        "libc.fputs(b'after\\n', ctypes.c_void_p.in_dll(libc, 'stderr'))"
    )
    done = run_python("-c", code)
    assert (done.returncode, done.stderr) == (0, "somebody else\nafter\n")


CLOSED = {
    "no standard output": "os.close(1)",
    "no standard error": "os.close(2)",
    "neither": "os.close(1); os.close(2)",
    "nothing at all": "[os.close(i) for i in (0, 1, 2)]",
    "streams that are None": "sys.stdout = sys.stderr = None",
    "a closed stream": "sys.stdout.close()",
}


@pytest.mark.parametrize("how", CLOSED)
def test_closed_streams(how, path, tmp_path):
    result = tmp_path / "result.txt"
    code = (
        "import ctypes, os, sys\n"
        "from tfdistill.runtime.interpreter import open_file\nfrom tfdistill.runtime.capture import captured_output\n"
        f"{CLOSED[how]}\n"
        "def state():\n"
        "    found = []\n"
        "    for i in (0, 1, 2):\n"
        "        try:\n            found.append(os.fstat(i).st_ino)\n"
        "        except OSError:\n            found.append(None)\n"
        "    return found\n"
        "before = state()\n"
        "with captured_output() as captured:\n    ctypes.CDLL(None).puts(b'words')\n"
        f"open_file({str(path)!r})\n"
        f"open_file({str(path)!r}, trusted=True)\n"
        "same = before == state()\n"
        f"open({str(result)!r}, 'w').write(str(same))\n"
    )
    run_python("-c", code)
    assert result.read_text() == "True"


class Notebook(io.StringIO):
    """A stream without a descriptor, as notebooks have it."""

    def fileno(self):
        raise io.UnsupportedOperation("fileno")


@pytest.mark.parametrize("stream", [Notebook, io.StringIO, lambda: None])
def test_replaced_streams_are_left_alone(stream, path, monkeypatch):
    replaced = stream()
    monkeypatch.setattr(sys, "stdout", replaced)
    with captured_output() as captured:
        print("to the notebook")
        os.write(1, b"native\n")
        open_file(path)
    assert sys.stdout is replaced
    assert captured.text == "native\n"
    if replaced is not None:
        assert replaced.getvalue() == "to the notebook\n"


@pytest.mark.parametrize("engine", ["ai_edge_litert", "tensorflow"])
def test_opening_warns_nobody_and_keeps_the_filters(engine, path):
    before = list(warnings.filters)
    seen = []
    with warnings.catch_warnings(record=True) as recorded:
        warnings.simplefilter("always")
        filters = list(warnings.filters)
        open_file(path, engine=engine, trusted=True)
        assert warnings.filters == filters
        thread = threading.Thread(target=lambda: seen.append(warnings.warn("mine", UserWarning, stacklevel=1)))
        with captured_output() as captured:
            thread.start()
            thread.join()
    assert [str(w.message) for w in recorded] == ["mine"]
    assert (captured.text, seen) == ("", [None])
    assert list(warnings.filters) == before
