"""One ssh connection to a board: sends files, runs a program there, and yields what it says.

On the board `export/raspberry_pi/receive.py` makes a fresh folder, writes the files, runs the program and removes the folder again. It does so too when its standard
input closes, which is what the end of the connection looks like from there: so nothing is left on the board when this process is interrupted or killed.
"""

import contextlib
import hashlib
import json
import os
import queue
import secrets
import shlex
import subprocess
import tempfile
import threading
import time

from tfdistill.benchmarking.remote import failures
from tfdistill.errors import BenchmarkError, RuntimeUnavailableError
from tfdistill.runtime.isolated import last_lines, standard_descriptors_taken
from tfdistill.utils.shipped import device_folder

# The program that is run on a board, with the modules that it imports.
RUNNER = ("benchmark.py", "answers.py", "errors.py", "runtime.py", "measuring.py", "process_memory.py", "delegated.py", "machine.py")
# What Python runs on the board: the program that it reads from its standard input. Modules that lie in the home folder are not imported by mistake.
_START = "import sys;sys.path[:]=[p for p in sys.path if p];exec(sys.stdin.buffer.read(int(sys.stdin.buffer.readline())))"
_POLL_SECONDS = 0.1
_MOST_BYTES = 1 << 28  # of one line
# How long the board may take to remove its files after the end of a run.
_GOODBYE_SECONDS = 10.0


def run(target, request, files, timeout_seconds, on_wait=None):
    """Runs a request on a board.

    Args:
        target: An `Ssh`.
        request: The request for `benchmark.py`, as a JSON value.
        files: Dict of name -> bytes, beside the runner.
        timeout_seconds: The run is ended after this time.
        on_wait: Function that is called regularly with the elapsed seconds.

    Yields:
        The messages of `benchmark.py`: dicts.

    Raises:
        RuntimeUnavailableError: if there is no ssh here.
        BenchmarkError: if the board cannot be reached, the program does not run there, or the connection ends; with what ssh says.
    """
    token = secrets.token_hex(8)
    kit = device_folder("raspberry_pi")
    sent = {name: (kit / name).read_bytes() for name in RUNNER}
    sent.update(files)
    sent["request.json"] = json.dumps(request).encode()
    header = {
        "token": token,
        "files": [{"name": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in sent.items()],
        "run": ["benchmark.py", "--request", "request.json"],
    }
    program = (kit / "receive.py").read_bytes()
    parts = [b"%d\n" % len(program), program, json.dumps(header).encode() + b"\n", *sent.values()]
    with tempfile.TemporaryFile() as log, _connected(target, parts, log) as (child, lines):
        state = failures.State()
        for message in _messages(child, lines, token.encode(), timeout_seconds, target, log, on_wait):
            state.take(message)
            if "line" in message:
                yield message["line"]
        state.require_whole(target, child.returncode, last_lines(log))


@contextlib.contextmanager
def _connected(target, parts, log):
    """Yields the ssh process, which is sent the bytes of `parts`, and a queue of the lines that it prints; ends both."""
    command = [*target.command(), f"{shlex.quote(target.python)} -c {shlex.quote(_START)}"]
    try:
        with standard_descriptors_taken():
            # In a session of its own, so that Ctrl-C reaches this process alone, which then closes the connection in order.
            child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, bufsize=0, start_new_session=True)
    except OSError as error:
        raise RuntimeUnavailableError(
            f"'{command[0]}' cannot be started: {error.strerror or error}.", "the ssh program of OpenSSH's client"
        ) from error
    lines: queue.SimpleQueue = queue.SimpleQueue()
    reader = threading.Thread(target=_read, args=(child.stdout, lines), daemon=True)
    writer = threading.Thread(target=_write, args=(child.stdin, parts), daemon=True)
    reader.start()
    writer.start()
    try:
        yield child, lines
    finally:
        _close(child, writer)
        writer.join()
        reader.join()
        child.stdin.close()
        child.stdout.close()


def _close(child, writer):
    """Ends the connection: in order where that can be, so that the board has removed its files when this returns."""
    try:
        if writer.is_alive():  # the board has not taken all of it; for it, standard input closes when the connection does
            child.terminate()
        else:
            child.stdin.close()
        child.wait(_GOODBYE_SECONDS)
    except subprocess.TimeoutExpired:
        child.terminate()
        try:
            child.wait(_GOODBYE_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    except BaseException:  # a second Ctrl-C
        child.kill()
        child.wait()
        raise


def _messages(child, lines, token, seconds, target, log, on_wait):
    """Yields the messages until ssh ends or the board says that the program has."""
    began = time.monotonic()
    while True:
        elapsed = time.monotonic() - began
        if elapsed > seconds:
            raise BenchmarkError(
                f"{target.host} was still busy after {seconds:g} s and was ended.{failures.said(last_lines(log))}",
                fix="raise timeout_seconds, or lower max_seconds of the timing",
            )
        if on_wait is not None:
            on_wait(elapsed)
        try:
            line = lines.get(timeout=_POLL_SECONDS)
        except queue.Empty:
            continue
        if line is None:
            child.wait()
            return
        _, found, message = line.partition(token)  # what else is printed, by login scripts, is none
        if found:
            yield _read_message(message, target)


def _read_message(text, target):
    """Reads a message, which another machine sends: it may be anything."""
    try:
        message = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BenchmarkError(f"{target.host} sent a message that is not JSON: {text[:80]!r}.", "the answer of the runner") from error
    kinds = {"line": dict, "ended": int, "failed": str}
    if not isinstance(message, dict) or any(not isinstance(message[name], kind) for name, kind in kinds.items() if name in message):
        raise BenchmarkError(f"{target.host} sent a message that is none: {text[:80]!r}.", "the answer of the runner")
    return message


def _write(pipe, parts):
    try:
        for part in parts:
            view = memoryview(part)
            while view:
                view = view[os.write(pipe.fileno(), view[: 1 << 16]) :]
    except (OSError, ValueError):
        return  # the other side has gone; what ssh says is reported


def _read(pipe, lines):
    rest = b""
    while block := os.read(pipe.fileno(), 1 << 16):
        *whole, rest = (rest + block).split(b"\n")
        for line in whole:
            lines.put(line)
        if len(rest) > _MOST_BYTES:
            break  # no message is that long; what ssh sends further is not read, and the connection ends
    lines.put(None)
