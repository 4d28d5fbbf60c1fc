"""Keeps what native libraries print out of the user's terminal, and hands it to whoever has to explain a failure.

Three things are the whole process's, not a thread's: descriptors 1 and 2, C's `stderr`, and Python's warning filters. Each is changed for as short a
time as can be, under a lock, and what is put back is exactly what was changed, so that other threads lose nothing that they changed meanwhile.
"""

import contextlib
import ctypes
import os
import sys
import tempfile
import threading

from tfdistill.runtime.capture_streams import OwnStreams, OwnWarnings

# Opening a file prints one of these. They say nothing that an error would not.
_INTERPRETER_LINES = (b"INFO: ", b"WARNING: ", b"VERBOSE: ")
_lock = threading.RLock()


class Captured:
    """What was printed while `captured_output` was in force.

    Attributes:
        text: Standard output, standard error and Python warnings together; empty until the block has ended.
    """

    def __init__(self):
        self.text = ""

    def last(self, lines=30):
        """Returns the last lines of the text: where a native library says why it failed."""
        return "\n".join(self.text.strip().splitlines()[-lines:])


@contextlib.contextmanager
def captured_output():
    """Redirects file descriptors 1 and 2 of the process, and this thread's Python warnings, for the length of the block.

    Native code writes to the descriptors, not to `sys.stderr`, so nothing less catches it. One thread at a time can be inside; others wait, and a
    block inside a block captures for itself. What other threads print through Python's streams, and their warnings, go where they always go; only what
    they write to the descriptors past Python (native code, `os.write`, programs they start) is captured too. Where `sys.stderr` is a terminal it keeps showing,
    so that a progress bar can be drawn.

    Yields:
        A `Captured`, whose text is complete when the block has ended, also when it ended with an error.
    """
    captured = Captured()
    with _lock, contextlib.ExitStack() as stack:
        log = stack.enter_context(tempfile.TemporaryFile())
        heard = []
        stack.callback(lambda: _read_into(captured, log, heard))
        copies = {}
        for descriptor in filter(_is_open, (1, 2)):
            copies[descriptor] = _high_copy(descriptor)
            stack.callback(os.close, copies[descriptor])
        # Other threads are led around the descriptors before these change, and until they are back.
        stack.enter_context(OwnStreams(copies))
        _flush()
        for descriptor, copy in copies.items():
            stack.callback(os.dup2, copy, descriptor)
            os.dup2(log.fileno(), descriptor)
        stack.callback(_flush)
        stack.enter_context(OwnWarnings(heard))
        yield captured


@contextlib.contextmanager
def quiet_interpreter(engine):
    """Keeps the lines that an interpreter prints when it opens a file off the terminal; errors come as exceptions all the same.

    Only C's own `stderr` is turned aside, not descriptor 2, so whatever Python prints in any thread is shown. Other native lines that happen to be
    printed there meanwhile are printed again at the end. Where C's `stderr` cannot be turned aside (Windows, musl), the lines are shown.

    Args:
        engine: Import name of the interpreter; TensorFlow's also warns that it is about to be replaced.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(_turned_aside)
        if engine == "tensorflow":
            stack.enter_context(OwnWarnings(None))
        yield


class _TurnedAside:
    """C's `stderr` points to a file while at least one thread is inside."""

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
                # musl's pointer lies in memory that cannot be written.
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


_turned_aside = _TurnedAside()


def _put_back_in_a_fork():
    # The thread that would have put it back is not there.
    global _turned_aside
    if _turned_aside.inside and _turned_aside.file:
        _turned_aside.pointer.value = _turned_aside.kept
    _turned_aside = _TurnedAside()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_put_back_in_a_fork)


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


def _read_into(captured, log, heard):
    log.seek(0)
    captured.text = log.read().decode("utf-8", errors="replace") + "".join(f"{w}\n" for w in heard)


def _high_copy(descriptor):
    # Not in the place of a closed standard descriptor, where native code would write to it.
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
    # C's own buffers, or what a library printed would come out after the descriptors are back.
    with contextlib.suppress(OSError, TypeError, AttributeError):
        ctypes.CDLL(None).fflush(None)


def _is_open(descriptor):
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True
