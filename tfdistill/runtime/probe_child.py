"""The process that tries files for `tfdistill.runtime.probe`: imports NumPy and the interpreter only."""

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
# How often an idle process looks whether its parent is there: another fork of the parent may hold the pipe open.
_LOOK_SECONDS = 5.0
_MOST_SAID_BYTES = 1 << 20
_SHARE_OF_MEMORY = 0.75


def main(answers):
    """Answers requests from standard input until it ends: forks for each where it can, else does the first one itself and ends.

    Args:
        answers: Descriptor to write to.
    """
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # threads do not survive a fork
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's
    parent = os.getppid() if hasattr(os, "fork") else None
    while (asked := _read_request(parent)) is not None:
        request, content = asked
        if not request["fork"]:
            bootstrap.end_with_input()
            _write(answers, json.dumps(_done(request, content)).encode())
            return
        _warm_up(request)
        _write(answers, json.dumps(_in_fork(request, content)).encode() + b"\n")
        del content, asked


def _read_request(parent):
    """Returns (request, content), or None when there are no more."""
    if parent is not None:
        while not select.select([0], [], [], _LOOK_SECONDS)[0]:
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
    # Whatever is wrong with the import is said by the job, which needs it again.
    with contextlib.suppress(Exception):
        module = importlib.import_module(request["job"].partition(":")[0])
        getattr(module, "warm_up", lambda settings: None)(request["settings"])


def _done(request, content):
    module, _, name = request["job"].partition(":")
    try:
        return {"value": getattr(importlib.import_module(module), name)(content, request["settings"])}
    except TfdistillError as error:
        return {"kind": type(error).__name__, "error": [error.happened, error.expected, error.fix]}
    except Exception as error:  # whatever a damaged file makes of its reader
        return {"kind": type(error).__name__, "error": [str(error) or type(error).__name__]}


def _in_fork(request, content):
    with tempfile.TemporaryFile() as noise:
        reader, writer = os.pipe()
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            try:
                bootstrap.die_with_parent(parent)
                os.close(reader)
                for descriptor in (1, 2):
                    os.dup2(noise.fileno(), descriptor)
                _limit(request)
                _write(writer, json.dumps(_done(request, content)).encode())
            finally:
                os._exit(0)
        os.close(writer)
        answer, late = _wait(reader, pid, request["seconds"])
        os.close(reader)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        said = isolated.last_lines(noise)
    if late:
        return {"late": True, "said": said}
    try:
        return {**json.loads(answer), "said": said}
    except ValueError:
        return {"death": isolated.death(status) if status else "ended without an answer", "said": said}


def _limit(request):
    """Sets what the kernel lets a fork have: time, memory, and lines to print."""
    import resource

    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, request["seconds"] + 5)  # if the helper is gone
    limits = {resource.RLIMIT_FSIZE: _MOST_SAID_BYTES}
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
    """Collects a fork's answer; ends the fork at the time limit, and everything when the parent is gone."""
    deadline, parts, watched = time.monotonic() + seconds, [], [reader, 0]
    while True:
        left = deadline - time.monotonic()
        ready = select.select(watched, [], [], max(left, 0))[0]
        if 0 in ready:
            # The parent asks nothing before it has its answer: its end of the pipe is closed.
            os.kill(pid, signal.SIGKILL)
            os._exit(0)
        if not ready:
            os.kill(pid, signal.SIGKILL)
            return b"", True
        part = os.read(reader, 1 << 16)
        if not part:
            return b"".join(parts), False
        parts.append(part)
