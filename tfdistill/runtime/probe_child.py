"""The process that tries files for `tfdistill.runtime.probe`. It imports only NumPy and the interpreter."""

import contextlib
import importlib
import json
import os
import select
import signal
import struct
import sys
import tempfile
import time

from tfdistill.errors import TfdistillError
from tfdistill.runtime import bootstrap, isolated

HEADER = struct.Struct("<I")
# Interval at which an idle process checks that its parent lives: another fork of the parent may keep the pipe open.
_CHECK_SECONDS = 5.0
_MAX_LOG_BYTES = 1 << 20
_SHARE_OF_MEMORY = 0.75


def main(result_fd):
    """Runs the requests from standard input until it closes, each in a fork. Without forks, runs the first request and returns.

    Args:
        result_fd: Descriptor to write the results to.
    """
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # threads do not survive a fork
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is handled by the parent
    parent = os.getppid() if hasattr(os, "fork") else None
    while (received := _read_request(parent)) is not None:
        request, content = received
        if not request["fork"]:
            bootstrap.end_with_input()
            _write(result_fd, json.dumps(_run_job(request, content)).encode())
            return
        _warm_up(request)
        _write(result_fd, json.dumps(_run_in_fork(request, content)).encode() + b"\n")
        del content, received


def _read_request(parent):
    """Returns (request, content); None if there are no more requests."""
    if parent is not None:
        while not select.select([0], [], [], _CHECK_SECONDS)[0]:
            if os.getppid() != parent:
                return None
    head = _read(HEADER.size)
    if len(head) < HEADER.size:
        return None
    request = json.loads(_read(HEADER.unpack(head)[0]))
    content = _read(request["size"])
    return (request, content) if len(content) == request["size"] else None


def _read(size):
    parts, left = [], size
    while left and (part := os.read(0, min(left, 1 << 20))):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _write(descriptor, data):
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _warm_up(request):
    # An error of the import is reported by the job, which imports the same.
    with contextlib.suppress(Exception):
        module = importlib.import_module(request["job"].partition(":")[0])
        getattr(module, "warm_up", lambda settings: None)(request["settings"])


def _run_job(request, content):
    module, _, name = request["job"].partition(":")
    try:
        return {"value": getattr(importlib.import_module(module), name)(content, request["settings"])}
    except TfdistillError as error:
        return {"kind": type(error).__name__, "error": [error.happened, error.expected, error.fix]}
    except Exception as error:  # a damaged file can raise anything
        return {"kind": type(error).__name__, "error": [str(error) or type(error).__name__]}


def _run_in_fork(request, content):
    with tempfile.TemporaryFile() as log_file:
        reader, writer = os.pipe()
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            try:
                bootstrap.die_with_parent(parent)
                os.close(reader)
                for descriptor in (1, 2):
                    os.dup2(log_file.fileno(), descriptor)
                _limit(request)
                _write(writer, json.dumps(_run_job(request, content)).encode())
            finally:
                os._exit(0)
        os.close(writer)
        result, timed_out = _wait(reader, pid, request["seconds"])
        os.close(reader)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        log = isolated.last_lines(log_file)
    if timed_out:
        return {"timed_out": True, "log": log}
    try:
        return {**json.loads(result), "log": log}
    except ValueError:
        return {"failure": isolated.describe_exit(status) if status else "ended without a result", "log": log}


def _limit(request):
    """Limits the time, the memory and the printed bytes of a fork."""
    import resource

    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, request["seconds"] + 5)  # in case the helper has ended
    limits = {resource.RLIMIT_FSIZE: _MAX_LOG_BYTES}
    if sys.platform == "linux":
        limits[resource.RLIMIT_AS] = _mapped_bytes() + int(_SHARE_OF_MEMORY * _available_bytes())
    for limit, value in limits.items():
        hard = resource.getrlimit(limit)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(limit, (value, value))


def _mapped_bytes():
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def _available_bytes():
    with open("/proc/meminfo", encoding="ascii") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def _wait(reader, pid, seconds):
    """Returns (result of a fork, whether it timed out). Kills the fork at the time limit; ends this process too if the parent has ended."""
    deadline, parts, watched = time.monotonic() + seconds, [], [reader, 0]
    while True:
        left = deadline - time.monotonic()
        ready = select.select(watched, [], [], max(left, 0))[0]
        if 0 in ready:
            # The parent sends no request while it waits for a result, so its end of the pipe is closed.
            os.kill(pid, signal.SIGKILL)
            os._exit(0)
        if not ready:
            os.kill(pid, signal.SIGKILL)
            return b"", True
        part = os.read(reader, 1 << 16)
        if not part:
            return b"".join(parts), False
        parts.append(part)
