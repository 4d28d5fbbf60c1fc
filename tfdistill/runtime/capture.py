"""Captures the output of native libraries: it stays off the terminal, and errors can quote it.

Descriptors 1 and 2, C's `stderr` and Python's warning filters belong to the whole process, not to a thread. Each is changed under a lock
and for a short time, and only the change itself is undone, so that changes of other threads in the meantime are kept.
"""

import contextlib
import ctypes
import os
import sys
import tempfile
import threading
import time

from tfdistill.runtime.capture_streams import ThreadStreams, ThreadWarnings

# Opening a file prints lines with these prefixes. Errors come as exceptions.
_INTERPRETER_LINES = (b"INFO: ", b"WARNING: ", b"VERBOSE: ")
_lock = threading.RLock()


class Captured:
    """The output that a `captured_output` block captured.

    Attributes:
        text: Standard output, standard error and Python warnings together; empty until the block has ended.
    """

    def __init__(self):
        self.text = ""

    def last(self, lines=30):
        """Returns the last lines of the text, where native libraries report why they failed."""
        return "\n".join(self.text.strip().splitlines()[-lines:])


@contextlib.contextmanager
def captured_output():
    """Redirects file descriptors 1 and 2 of the process, and this thread's Python warnings, during the block.

    Native code writes to the descriptors, not to `sys.stderr`, so redirecting Python's streams is not enough. Only one thread at a time can
    be inside; others wait. Blocks can be nested; each captures its own output. Warnings of other threads, and what they print through
    Python's streams, are not captured; what they write to the descriptors directly (native code, `os.write`, subprocesses) is. If
    `sys.stderr` is a terminal, Python's output to it is still shown, so that a progress bar can be drawn.

    Yields:
        A `Captured`. Its text is complete when the block has ended, with or without an error.
    """
    captured = Captured()
    with _lock, contextlib.ExitStack() as stack:
        log = stack.enter_context(tempfile.TemporaryFile())
        recorded = []
        stack.callback(lambda: _read_into(captured, log, recorded))
        copies = {}
        for descriptor in filter(_is_open, (1, 2)):
            copies[descriptor] = _high_copy(descriptor)
            stack.callback(os.close, copies[descriptor])
        # The streams of other threads bypass the descriptors before these change, and until they are restored.
        stack.enter_context(ThreadStreams(copies))
        _finish_writes()
        for descriptor, copy in copies.items():
            stack.callback(os.dup2, copy, descriptor)
            os.dup2(log.fileno(), descriptor)
        stack.callback(_flush)
        stack.enter_context(ThreadWarnings(recorded))
        yield captured


@contextlib.contextmanager
def quiet_interpreter(engine):
    """Hides the lines that an interpreter prints when it opens a file. Errors still come as exceptions.

    Only C's `stderr` is redirected, not descriptor 2, so whatever Python prints in any thread is shown. Other native lines that are written
    to it in the meantime are printed when the block ends. Where C's `stderr` cannot be redirected (Windows, musl), nothing is hidden.

    Args:
        engine: Import name of the interpreter. TensorFlow's deprecation warning is hidden too.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(_redirected_stderr)
        if engine == "tensorflow":
            stack.enter_context(ThreadWarnings(None))
        yield


class _RedirectedStderr:
    """Points C's `stderr` to a file while at least one thread is inside."""

    def __init__(self):
        self.lock, self.inside, self.file = threading.Lock(), 0, None

    def __enter__(self):
        with self.lock:
            self.inside += 1
            if self.inside == 1 and self._ready():
                self.kept, self.pointer.value = self.pointer.value, self.file

    def __exit__(self, *ended):
        with self.lock:
            self.inside -= 1
            if self.inside == 0 and self.file:
                self.pointer.value = self.kept
                self._print_others()

    def _ready(self):
        if self.file is None:
            self.file = 0
            with contextlib.suppress(OSError, ValueError, AttributeError, TypeError):
                libc = ctypes.CDLL(None)
                libc.fdopen.restype, libc.fdopen.argtypes = ctypes.c_void_p, [ctypes.c_int, ctypes.c_char_p]
                for name in ("fflush", "fileno", "rewind"):
                    getattr(libc, name).argtypes = [ctypes.c_void_p]
                self.pointer = ctypes.c_void_p.in_dll(libc, "__stderrp" if sys.platform == "darwin" else "stderr")
                # On musl the pointer is in read-only memory.
                if _is_writable(ctypes.addressof(self.pointer)):
                    with tempfile.TemporaryFile() as log:
                        self.libc, self.file = libc, libc.fdopen(_high_copy(log.fileno()), b"w+") or 0
        return bool(self.file)

    def _print_others(self):
        self.libc.fflush(self.file)
        descriptor = self.libc.fileno(self.file)
        size = os.fstat(descriptor).st_size
        if size:
            lines = os.pread(descriptor, size, 0).splitlines(keepends=True)
            self.libc.rewind(self.file)
            os.ftruncate(descriptor, 0)
            others = b"".join(line for line in lines if not line.startswith(_INTERPRETER_LINES))
            if others and _is_open(2):
                os.write(2, others)


_redirected_stderr = _RedirectedStderr()


def _restore_after_fork():
    # The thread that would have restored it does not exist in the fork.
    global _redirected_stderr
    if _redirected_stderr.inside and _redirected_stderr.file:
        _redirected_stderr.pointer.value = _redirected_stderr.kept
    _redirected_stderr = _RedirectedStderr()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_restore_after_fork)


def _is_writable(address):
    if sys.platform == "darwin":
        return True
    with open("/proc/self/maps", encoding="ascii", errors="replace") as maps:
        for line in maps:
            span, rights = line.split()[:2]
            low, high = (int(end, 16) for end in span.split("-"))
            if low <= address < high:
                return "w" in rights
    return False


def _read_into(captured, log, recorded):
    log.seek(0)
    captured.text = log.read().decode("utf-8", errors="replace") + "".join(f"{w}\n" for w in recorded)


def _high_copy(descriptor):
    # Above 2: in the place of a closed standard descriptor native code would write to the copy.
    copies = [os.dup(descriptor)]
    while copies[-1] < 3:
        copies.append(os.dup(descriptor))
    for low in copies[:-1]:
        os.close(low)
    return copies[-1]


def _flush():
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # closed, None, or no file at all
            stream.flush()
    # C's buffers too, or the output of a library would appear after the descriptors are restored.
    with contextlib.suppress(OSError, TypeError, AttributeError):
        ctypes.CDLL(None).fflush(None)


def _finish_writes():
    """Flushes the streams until other threads have ended the writes that they began before their streams were replaced.

    Such a thread may wait for the lock of a stream's buffer: once to write into it, and once to flush it. Each flush here takes that lock too,
    and what it finds in the buffer goes where it belongs.
    """
    for _ in range(2 * threading.active_count()):
        _flush()
        time.sleep(0)
    _flush()


def _is_open(descriptor):
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True
