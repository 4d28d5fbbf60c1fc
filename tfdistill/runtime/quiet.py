"""Keeps what native libraries print out of the user's terminal, and hands it to whoever has to explain a failure."""

import contextlib
import ctypes
import os
import sys
import tempfile
import warnings


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
    """Redirects file descriptors 1 and 2 of the process, and Python's warnings, for the length of the block.

    Native code writes to the descriptors, not to `sys.stderr`, so nothing less catches it. While the block runs, `sys.stderr` keeps
    showing the terminal if it is one, so that a progress bar can be drawn. Other threads' output is captured too: keep the block short.

    Yields:
        A `Captured`, whose text is complete when the block has ended, also when it ended with an error.
    """
    captured = Captured()
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(tempfile.TemporaryFile())
        _flush()
        kept = [(descriptor, os.dup(descriptor)) for descriptor in (1, 2) if _is_open(descriptor)]
        terminal = None
        heard = []
        try:
            for descriptor, copy in kept:
                os.dup2(log.fileno(), descriptor)
                if descriptor == 2 and os.isatty(copy) and _writes_to(sys.stderr, 2):
                    terminal = open(os.dup(copy), "w", buffering=1, encoding="utf-8", errors="replace")  # noqa: SIM115 closed below
            heard = stack.enter_context(warnings.catch_warnings(record=True))
            warnings.simplefilter("always")
            with contextlib.redirect_stderr(terminal) if terminal else contextlib.nullcontext():
                yield captured
        finally:
            if terminal:
                terminal.close()
            _flush()
            for descriptor, copy in kept:
                os.dup2(copy, descriptor)
                os.close(copy)
            log.seek(0)
            captured.text = log.read().decode("utf-8", errors="replace") + "".join(f"{w.category.__name__}: {w.message}\n" for w in heard)


def _flush():
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    # C's own buffers, or what a library printed would come out after the descriptors are back.
    ctypes.CDLL(None).fflush(None)


def _is_open(descriptor):
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _writes_to(stream, descriptor):
    try:
        return stream is not None and stream.fileno() == descriptor
    except (OSError, AttributeError):  # a notebook's or a test runner's stream has no descriptor
        return False
