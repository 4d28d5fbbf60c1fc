"""Python's streams and warnings of one thread, told apart from those of the others."""

import contextlib
import io
import os
import sys
import threading
import warnings


class OwnStreams:
    """While descriptors are redirected, lets other threads print to where they pointed before.

    The stream objects stay the same, as loggers and notebooks keep them; only their `write` is replaced for the time of the block. A terminal behind
    standard error is written to by the block's own thread as well.

    Args:
        copies: Dict of descriptor -> copy of what it pointed to.
    """

    _lock = threading.RLock()

    def __init__(self, copies):
        self.copies, self.owner, self.stack = copies, threading.get_ident(), contextlib.ExitStack()
        self.active = True

    def __enter__(self):
        # What other threads print past a block that has ended is written under the lock, so it is out before the descriptors change again.
        with self._lock:
            for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
                if (descriptor := _descriptor(stream)) in self.copies and "write" not in vars(stream):
                    self._reroute(stream, descriptor)
        return self

    def __exit__(self, *ended):
        with self._lock:  # the copies are closed next
            self.stack.close()
            self.active = False

    def _reroute(self, stream, descriptor):
        copy, write = self.copies[descriptor], stream.write
        terminal = descriptor == 2 and os.isatty(copy)

        def routed(text):
            if threading.get_ident() == self.owner and not terminal:
                return write(text)
            if not isinstance(text, str):
                raise TypeError(f"write() argument must be str, not {type(text).__name__}")
            data = memoryview(text.encode(stream.encoding or "utf-8", errors="backslashreplace"))
            with self._lock:
                if not self.active:  # looked up before the block ended
                    return stream.write(text)
                while data:
                    data = data[os.write(copy, data) :]
            return len(text)

        stream.write = routed
        self.stack.callback(vars(stream).pop, "write", None)
        if terminal:
            stream.isatty = lambda: True
            self.stack.callback(vars(stream).pop, "isatty", None)


def _descriptor(stream):
    # Of the ordinary kind only: a notebook's or a test runner's stream does not write to the descriptor.
    if not isinstance(stream, io.TextIOWrapper):
        return None
    try:
        return stream.fileno()
    except (OSError, ValueError):
        return None


class _OfThread:
    """Matches every warning of one thread: the message's place in a warning filter, which takes whatever has `match`."""

    def __init__(self):
        self.owner, self.active = threading.get_ident(), True

    def match(self, text):
        return self.active and threading.get_ident() == self.owner


class OwnWarnings:
    """Records or ignores this thread's warnings; those of other threads, and what other threads do to the filters, are left alone.

    `warnings.catch_warnings` puts back a whole list, and with it whatever another thread changed meanwhile.

    Args:
        heard: List that is given the text of each warning; None ignores them.
    """

    def __init__(self, heard):
        self.heard = heard

    def __enter__(self):
        self.mark = _OfThread()
        self.item = ("ignore" if self.heard is None else "always", self.mark, Warning, None, 0)
        self.filters = warnings.filters
        self.filters.insert(0, self.item)
        if self.heard is not None:
            self.show = warnings.showwarning
            self.hook = self._hook
            warnings.showwarning = self.hook
        return self

    def __exit__(self, *ended):
        self.mark.active = False
        # Another thread's `catch_warnings` may have made a copy of the list, with this item in it.
        for filters in (self.filters, warnings.filters):
            with contextlib.suppress(ValueError):
                filters.remove(self.item)
        if self.heard is not None and warnings.showwarning is self.hook:
            warnings.showwarning = self.show

    def _hook(self, message, category, filename, lineno, file=None, line=None):
        if self.mark.match(str(message)):
            self.heard.append(f"{category.__name__}: {message}")
        else:
            self.show(message, category, filename, lineno, file, line)
