"""Tries files in another process before this one reads them.

One helper process, started at the first need, imports NumPy and the interpreter once. For every file it forks: the fork may crash, hang or ask for
all memory, and costs milliseconds. Where a process cannot be forked (Windows), each file gets a process of its own.
"""

import atexit
import collections
import contextlib
import json
import math
import os
import select
import subprocess
import tempfile
import threading
import time

from tfdistill import errors
from tfdistill.errors import ConfigurationError, RuntimeUnavailableError
from tfdistill.runtime import isolated
from tfdistill.runtime.probe_child import HEADER

SECONDS_VARIABLE = "TFDISTILL_PROBE_SECONDS"
_SECONDS = 30.0
_CHILD = "tfdistill.runtime.probe_child"
# Starting the helper and importing the interpreter; TensorFlow's takes the longest.
_START_SECONDS = 120.0
_REMEMBERED = 256
_CAN_FORK = hasattr(os, "fork")


def limit_seconds():
    """How long a file may take in the other process: 30 s, or what the environment variable TFDISTILL_PROBE_SECONDS says.

    Raises:
        ConfigurationError: if that is no number above 0.
    """
    text = os.environ.get(SECONDS_VARIABLE)
    try:
        seconds = _SECONDS if text is None else float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise ConfigurationError(f"{SECONDS_VARIABLE}={text!r} is impossible.", "a number of seconds above 0", f"unset {SECONDS_VARIABLE}")
    return seconds


def probe(file, job, settings, refused):
    """Lets another process do a job with a file; what comes back is remembered, so the same content and settings are tried once.

    Args:
        file: A `ModelFile`.
        job: `"module:function"`; the function takes the content as bytes and `settings`, and returns what JSON can hold. The module may have a
            function `warm_up(settings)`, which imports what is needed.
        settings: What JSON can hold.
        refused: Makes the error to raise of the cause (an exception or a text), what was said on standard error, and a remedy.

    Returns:
        What the function returned.

    Raises:
        TfdistillError: what `refused` makes, if the function raised, or its process crashed or did not end in time.
    """
    seconds = limit_seconds()
    key = (file.sha256, job, json.dumps(settings, sort_keys=True))
    answer = _verdicts.get(key)
    if answer is None:
        answer = _answer({"job": job, "settings": settings, "seconds": seconds}, file.content)
        if "late" not in answer:  # a busy machine can be late once
            _verdicts.put(key, answer)
    if "late" in answer:
        raise refused(
            f"The process that tried it first was still busy after {seconds:g} s and was ended.",
            answer["said"],
            f"set the environment variable {SECONDS_VARIABLE} to more seconds, if the file is only slow",
        )
    if "death" in answer:
        raise refused(f"The process that tried it first {answer['death']}.", answer["said"])
    if "error" in answer:
        raise refused(_error(answer), answer["said"])
    return answer["value"]


def _error(answer):
    kind = getattr(errors, answer["kind"], None)
    ours = isinstance(kind, type) and issubclass(kind, errors.TfdistillError)
    return kind(*answer["error"]) if ours else RuntimeUnavailableError(answer["error"][0])


class _Verdicts:
    """Answers by content and settings, the least recently used forgotten first."""

    def __init__(self):
        self.lock, self.kept = threading.Lock(), collections.OrderedDict()

    def get(self, key):
        with self.lock:
            if key in self.kept:
                self.kept.move_to_end(key)
            return self.kept.get(key)

    def put(self, key, answer):
        with self.lock:
            self.kept[key] = answer
            while len(self.kept) > _REMEMBERED:
                self.kept.popitem(last=False)


def _answer(request, content):
    message = json.dumps({**request, "size": len(content), "fork": _CAN_FORK}).encode()
    message = HEADER.pack(len(message)) + message
    if _CAN_FORK:
        return _helper.ask(message, content, request["seconds"])
    ended = isolated.run(_CHILD, message + content, request["seconds"] + _START_SECONDS)
    if ended.code is None:
        return {"late": True, "said": ended.said}
    if ended.death:
        return {"death": ended.death, "said": ended.said}
    return {**json.loads(ended.answer), "said": ended.said}


class _Helper:
    """The process that forks. One request at a time; it is started again when it is gone."""

    def __init__(self):
        self.lock, self.process, self.noise = threading.Lock(), None, None

    def ask(self, message, content, seconds):
        with self.lock:
            for last in (False, True):
                fresh = self.process is None
                if fresh:
                    with isolated.standard_descriptors_taken():
                        self.noise = tempfile.TemporaryFile()  # noqa: SIM115 closed with the process
                    try:
                        self.process = isolated.start(_CHILD, subprocess.PIPE, self.noise, dies_with_thread=False)
                    except RuntimeUnavailableError:
                        self.noise.close()
                        raise
                try:
                    self._send(message)
                    self._send(content)
                    return json.loads(self._line(seconds + _START_SECONDS))
                except (OSError, EOFError, ValueError) as error:
                    # It never runs a file itself, so somebody else ended it. Once more, with a new one.
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        self.process.wait(1.0)  # its pipes close a moment before it ends
                    said, code = isolated.last_lines(self.noise), self.end()
                    if last or fresh:
                        raise RuntimeUnavailableError(
                            f"The process that tries .tflite files {isolated.death(code) if code else 'does not answer'}."
                            + (f"\nIt said:\n{said}" if said else ""),
                            "a Python that can be started again by its path",
                        ) from error
                except BaseException:
                    self.end()  # interrupted: the next answer would be this one's
                    raise
        raise AssertionError("unreachable")

    def _send(self, data):
        descriptor, view = self.process.stdin.fileno(), memoryview(data)
        while view:
            view = view[os.write(descriptor, view[: 1 << 20]) :]

    def _line(self, seconds):
        descriptor, deadline, parts = self.process.stdout.fileno(), time.monotonic() + seconds, []
        while not (parts and parts[-1].endswith(b"\n")):
            waiter = select.poll()
            waiter.register(descriptor, select.POLLIN)
            if not waiter.poll(max(deadline - time.monotonic(), 0) * 1000):
                raise EOFError
            parts.append(os.read(descriptor, 1 << 16))
            if not parts[-1]:
                raise EOFError
        return b"".join(parts)

    def end(self):
        """Ends the process; returns its exit code if it ended before, else None."""
        process, self.process = self.process, None
        if process is None:
            return None
        code = process.poll()
        process.kill()
        process.wait()
        for file in (process.stdin, process.stdout, self.noise):
            file.close()
        return code


_verdicts, _helper = _Verdicts(), _Helper()
atexit.register(lambda: _helper.end())


def _forget():
    # A forked process must neither share its parent's pipes nor end its parent's helper.
    global _helper, _verdicts
    inherited, noise = _helper.process, _helper.noise
    _helper, _verdicts = _Helper(), _Verdicts()
    if inherited is not None:
        for file in (inherited.stdin, inherited.stdout, noise):
            file.close()
        inherited.returncode = 0  # not this process's child to wait for


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
