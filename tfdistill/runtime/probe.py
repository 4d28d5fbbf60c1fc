"""Tries files in another process before this process reads them.

A helper process starts at the first use and imports NumPy and the interpreter once. It forks for every file: a fork takes milliseconds, and
may crash, hang or use up the memory. Where processes cannot be forked (Windows), each file gets a new process.
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
# Time to start the helper and import the interpreter; TensorFlow's takes longest.
_START_SECONDS = 120.0
_CACHE_SIZE = 256
_CAN_FORK = hasattr(os, "fork")


def limit_seconds():
    """Returns the time limit of a file in the other process: the environment variable TFDISTILL_PROBE_SECONDS, or 30 s.

    Raises:
        ConfigurationError: if the variable is not a number above 0.
    """
    text = os.environ.get(SECONDS_VARIABLE)
    try:
        seconds = _SECONDS if text is None else float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise ConfigurationError(f"{SECONDS_VARIABLE}={text!r} is impossible.", "a number of seconds above 0", f"unset {SECONDS_VARIABLE}")
    return seconds


def probe(file, job, settings, make_error):
    """Runs a function on a file in another process. Results are cached by content and settings.

    Args:
        file: A `ModelFile`.
        job: `"module:function"`. The function takes the content as bytes and `settings`, and returns a JSON value. The module may have a
            function `warm_up(settings)` that imports what the job needs.
        settings: A JSON value.
        make_error: Function that makes the exception to raise from the cause (an exception or a text), the printed text, and the fix.

    Returns:
        The result of the function.

    Raises:
        TfdistillError: made by `make_error`, if the function raises, or its process crashes or exceeds the time limit.
    """
    seconds = limit_seconds()
    key = (file.sha256, job, json.dumps(settings, sort_keys=True))
    result = _cache.get(key)
    if result is None:
        result = _run_job({"job": job, "settings": settings, "seconds": seconds}, file.content)
        if "timed_out" not in result:  # on a busy machine the next try may be fast enough
            _cache.put(key, result)
    if "timed_out" in result:
        raise make_error(
            f"The process that tried it first was still busy after {seconds:g} s and was ended.",
            result["log"],
            f"set the environment variable {SECONDS_VARIABLE} to more seconds, if the file is only slow",
        )
    if "failure" in result:
        raise make_error(f"The process that tried it first {result['failure']}.", result["log"])
    if "error" in result:
        raise make_error(_exception(result), result["log"])
    return result["value"]


def _exception(result):
    kind = getattr(errors, result["kind"], None)
    ours = isinstance(kind, type) and issubclass(kind, errors.TfdistillError)
    return kind(*result["error"]) if ours else RuntimeUnavailableError(result["error"][0])


class _ResultCache:
    """Results by content and settings; the least recently used are dropped first."""

    def __init__(self):
        self.lock, self.results = threading.Lock(), collections.OrderedDict()

    def get(self, key):
        with self.lock:
            if key in self.results:
                self.results.move_to_end(key)
            return self.results.get(key)

    def put(self, key, result):
        with self.lock:
            self.results[key] = result
            while len(self.results) > _CACHE_SIZE:
                self.results.popitem(last=False)


def _run_job(request, content):
    message = json.dumps({**request, "size": len(content), "fork": _CAN_FORK}).encode()
    message = HEADER.pack(len(message)) + message
    if _CAN_FORK:
        return _helper.run(message, content, request["seconds"])
    ended = isolated.run(_CHILD, message + content, request["seconds"] + _START_SECONDS)
    if ended.code is None:
        return {"timed_out": True, "log": ended.log}
    if ended.failure:
        return {"failure": ended.failure, "log": ended.log}
    return {**json.loads(ended.output), "log": ended.log}


class _Helper:
    """The process that forks for each request, one at a time. It is started again if it has ended."""

    def __init__(self):
        self.lock, self.process, self.log = threading.Lock(), None, None

    def run(self, message, content, seconds):
        with self.lock:
            for last in (False, True):
                fresh = self.process is None
                if fresh:
                    with isolated.standard_descriptors_taken():
                        self.log = tempfile.TemporaryFile()  # noqa: SIM115 closed with the process
                    try:
                        self.process = isolated.start(_CHILD, subprocess.PIPE, self.log, dies_with_thread=False)
                    except RuntimeUnavailableError:
                        self.log.close()
                        raise
                try:
                    self._send(message)
                    self._send(content)
                    return json.loads(self._line(seconds + _START_SECONDS))
                except (OSError, EOFError, ValueError) as error:
                    # The helper does not open files itself, so something else ended it: try once more with a new one.
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        self.process.wait(1.0)  # its pipes close shortly before it ends
                    log, code = isolated.last_lines(self.log), self.end()
                    if last or fresh:
                        raise RuntimeUnavailableError(
                            f"The process that tries .tflite files {isolated.describe_exit(code) if code else 'does not answer'}."
                            + (f"\nIt said:\n{log}" if log else ""),
                            "a Python that can be started again by its path",
                        ) from error
                except BaseException:
                    self.end()  # interrupted: the next result would belong to this request
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
        for file in (process.stdin, process.stdout, self.log):
            file.close()
        return code


_cache, _helper = _ResultCache(), _Helper()
atexit.register(lambda: _helper.end())


def _reset_after_fork():
    # A forked process must neither use its parent's pipes nor end its parent's helper.
    global _helper, _cache
    inherited, log = _helper.process, _helper.log
    _helper, _cache = _Helper(), _ResultCache()
    if inherited is not None:
        for file in (inherited.stdin, inherited.stdout, log):
            file.close()
        inherited.returncode = 0  # it is not a child of this process, which cannot wait for it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)
