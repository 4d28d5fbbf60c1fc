"""Separates the Python streams and warnings of one thread from those of the others."""

import contextlib
import io
import os
import sys
import threading
import warnings


class ThreadStreams:
    """While descriptors are redirected, lets other threads print to the original targets.

    The stream objects are not replaced, because loggers and notebooks hold references to them; only their `write` is replaced during the
    block. If standard error is a terminal, this thread writes to the original target too.

    Args:
        copies: Dict of descriptor -> duplicate of its original target.
    """

    _lock = threading.RLock()

    def __init__(self, copies):
        self.copies, self.owner, self.stack = copies, threading.get_ident(), contextlib.ExitStack()
        self.active = True

    def __enter__(self):
        # Other threads write under the lock, so their text is out before the descriptors change again.
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
                if not self.active:  # another thread looked `write` up before the block ended
                    return stream.write(text)
                while data:
                    data = data[os.write(copy, data) :]
            return len(text)

        stream.write = routed
        self.stack.callback(vars(stream).pop, "write", None)
        if terminal:
            stream.isatty = lambda: True
            self.stack.callback(vars(stream).pop, "isatty", None)


class WithoutBars:
    """While another package works in this thread, drops what it writes to `sys.stderr`: the progress bars of tqdm, which `captured_output` shows on a terminal.

    What other threads write is shown, but for the thread with which tqdm draws bars again. A bar that was begun before keeps its stream.
    """

    def __enter__(self):
        self.stream, self.owner = sys.stderr, threading.get_ident()
        sys.stderr = self
        return self

    def __exit__(self, *ended):
        if sys.stderr is self:
            sys.stderr = self.stream

    def write(self, text):
        """Writes a text, or drops it; returns its length."""
        if threading.get_ident() == self.owner or type(threading.current_thread()).__name__ == "TMonitor":
            return len(text)
        return self.stream.write(text)

    def isatty(self):
        """Returns False, so that nothing is drawn."""
        return False

    def __getattr__(self, name):
        return getattr(self.stream, name)


def _descriptor(stream):
    # Ordinary streams only: those of notebooks and test runners do not write to the descriptor.
    if not isinstance(stream, io.TextIOWrapper):
        return None
    try:
        return stream.fileno()
    except (OSError, ValueError):
        return None


class _ThreadPattern:
    """Stands for the message pattern in a warning filter and matches every warning of one thread. The filter only calls its `match`."""

    def __init__(self):
        self.owner, self.active = threading.get_ident(), True

    def match(self, text):
        return self.active and threading.get_ident() == self.owner


class ThreadWarnings:
    """Records or ignores the warnings of this thread, and leaves those of other threads and their changes of the filters alone.

    `warnings.catch_warnings` would restore the whole list of filters and undo the changes of other threads.

    Args:
        recorded: List to append the text of each warning to; None ignores the warnings.
    """

    def __init__(self, recorded):
        self.recorded = recorded

    def __enter__(self):
        self.pattern = _ThreadPattern()
        self.item = ("ignore" if self.recorded is None else "always", self.pattern, Warning, None, 0)
        self.filters = warnings.filters
        self.filters.insert(0, self.item)
        if self.recorded is not None:
            self.show = warnings.showwarning
            self.hook = self._hook
            warnings.showwarning = self.hook
        return self

    def __exit__(self, *ended):
        self.pattern.active = False
        # `catch_warnings` of another thread may have copied the list together with this item.
        for filters in (self.filters, warnings.filters):
            with contextlib.suppress(ValueError):
                filters.remove(self.item)
        if self.recorded is not None and warnings.showwarning is self.hook:
            warnings.showwarning = self.show

    def _hook(self, message, category, filename, lineno, file=None, line=None):
        if self.pattern.match(str(message)):
            self.recorded.append(f"{category.__name__}: {message}")
        else:
            self.show(message, category, filename, lineno, file, line)
