"""The progress bar: drawn on terminals, and only for work that takes a while."""

import contextlib
import io
import sys
import time

import pytest

from tfdistill.utils import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("total", "seconds", "stream", "drawn"),
    [
        (None, 0.0, Terminal, False),
        (None, 0.3, Terminal, True),
        (None, 0.3, io.StringIO, False),
        (5, 0.3, Terminal, True),
    ],
)
def test_a_bar_is_drawn_for_long_work_on_a_terminal(monkeypatch, total, seconds, stream, drawn):
    monkeypatch.setattr(progress, "PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr(sys, "stderr", stream())
    with progress.progress("working", total) as advance:
        time.sleep(seconds)
        if total:
            advance()
            advance()
    assert ("working" in sys.stderr.getvalue()) is drawn


def test_a_bar_of_seconds_moves_once_for_each(monkeypatch):
    moves, bars = [], []
    monkeypatch.setattr(progress, "progress", lambda *bar: bars.append(bar) or contextlib.nullcontext(lambda: moves.append(1)))
    with progress.seconds_progress("measuring", 4.6) as show:
        for elapsed in (0.1, 0.9, 1.0, 1.4, 2.2, 2.3):
            show(elapsed)
    assert bars == [("measuring (seconds)", 5)]
    assert len(moves) == 2
