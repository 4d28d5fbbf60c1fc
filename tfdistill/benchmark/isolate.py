"""Runs a measurement in a process of its own: a crash, an abort or a hang in there is an error here."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

from tfdistill.errors import BenchmarkError
from tfdistill.progress import progress

_POLL_SECONDS = 0.05


def run_child(order, timeout_seconds, module="tfdistill.benchmark.child", description="benchmarking", expected_seconds=None):
    """Runs `python -m module ANSWER` with `order` as JSON on its standard input.

    Args:
        order: What JSON can hold.
        timeout_seconds: The child is killed after this long.
        module: The module to run; it writes its answer as JSON to the file ANSWER: `{"record": ...}` or `{"error": "..."}`.
        description: What the progress bar says.
        expected_seconds: How long it takes at most if all goes well, for the progress bar.

    Returns:
        The answer's `record`, as JSON gives it.

    Raises:
        BenchmarkError: if the child reports an error, crashes (with the signal's name), hangs, or answers nothing; with what it wrote to
            standard error.
    """
    with tempfile.TemporaryDirectory(prefix="tfdistill-") as folder:
        asked, answer, said = (pathlib.Path(folder, name) for name in ("order.json", "answer.json", "said.txt"))
        asked.write_text(json.dumps(order), encoding="utf-8")
        # Files, not pipes: a child that neither reads nor dies must not make this process wait beyond the time-out.
        with open(asked, "rb") as given, open(said, "wb") as noise:
            child = subprocess.Popen(
                [sys.executable, "-m", module, str(answer)], stdin=given, stdout=noise, stderr=noise, env=_environment()
            )
            try:
                finished = _wait(child, timeout_seconds, description, expected_seconds)
            finally:
                if child.poll() is None:
                    child.kill()
                child.wait()
        text = "\n".join(said.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-30:])
        words = f"\nIt said:\n{text}" if text else ""
        if not finished:
            raise BenchmarkError(
                f"The measuring process was still busy after {timeout_seconds:g} s and was ended.{words}",
                mend="raise timeout_seconds, or lower max_seconds of the timing",
            )
        if child.returncode:
            raise BenchmarkError(f"The measuring process {_death(child.returncode)}.{words}", "a process that ends by itself and answers")
        if not answer.exists():
            raise BenchmarkError(f"The measuring process ended without an answer.{words}")
        found = json.loads(answer.read_text(encoding="utf-8"))
    if "error" in found:
        raise BenchmarkError(f"The measuring process reports: {found['error']}")
    return found["record"]


def _environment():
    # The child must find this very package, whatever its folder is and however it was imported.
    root = str(pathlib.Path(__file__).resolve().parents[2])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def _wait(child, timeout_seconds, description, expected_seconds):
    began, shown = time.monotonic(), 0
    with progress(f"{description} (seconds)", expected_seconds and round(expected_seconds)) as advance:
        while child.poll() is None:
            elapsed = time.monotonic() - began
            if elapsed > timeout_seconds:
                return False
            if elapsed >= shown + 1:
                shown += 1
                advance()
            time.sleep(_POLL_SECONDS)
    return True


def _death(code):
    if code > 0:
        return f"failed with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
