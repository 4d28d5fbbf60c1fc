"""What native libraries print while a block runs: the reason why something is missing or left out is often there alone."""

import contextlib
import os
import re
import stat

from tfdistill.runtime.capture import captured_output

# Lines that say nothing about a failure: progress, what is printed of every start, and where in its source a library was.
_CHATTER = re.compile(
    r"^(INFO|VERBOSE|DEBUG): |^I\d{4} |^WARNING: (Logging before InitGoogle|All log messages before)|^=== Source Location|^third_party/|^\s*$"
    r"|unknown SDK version"
)
# The level, time and place in the source that a logger begins its lines with.
_PREFIX = re.compile(r"^(?:(?:WARNING|ERROR): (?:\[[^\]]*\] ?)?|[EWF]\d{4} [\d:. ]+ \S+\] )")


class Said:
    """The text of a block.

    Attributes:
        text: All that was printed to standard error, native code included; complete when the block has ended.
    """

    def __init__(self):
        self.text = ""

    def reasons(self, lines=12):
        """Returns the last lines that are more than progress, each once and without the logger's words."""
        said = [_PREFIX.sub("", line) for line in self.text.splitlines() if not _CHATTER.search(line)]
        return "\n".join(list(dict.fromkeys(filter(None, said)))[-lines:])


@contextlib.contextmanager
def listening():
    """Collects what is printed to standard error.

    In an isolated process standard error is a file, which is read afterwards: what a crash interrupts is there as well. Elsewhere it is redirected.

    Yields:
        A `Said`.
    """
    said = Said()
    if _is_file(2):
        begin = os.fstat(2).st_size
        try:
            yield said
        finally:
            said.text = os.pread(2, max(os.fstat(2).st_size - begin, 0), begin).decode("utf-8", errors="replace")
        return
    captured = None
    try:
        with captured_output() as captured:
            yield said
    finally:
        said.text = captured.text if captured else ""


def _is_file(descriptor):
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return False
        os.pread(descriptor, 0, 0)
    except OSError:  # closed, or open for writing only
        return False
    return True
