"""The progress bar of the library. It is drawn on terminals only, and only for work that takes over two seconds."""

import contextlib
import sys
import threading
import time

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

PATIENCE_SECONDS = 2.0


@contextlib.contextmanager
def progress(description, total=None):
    """Shows a progress bar during the block.

    Args:
        description: Text of the bar, a few words.
        total: Number of steps; None if unknown. Then the bar need not be moved: it shows that work goes on.

    Yields:
        Function `advance(n=1)` that moves the bar by `n` steps.
    """
    # On standard error, so that standard output can be read by other programs.
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=_console(),
        transient=True,
        disable=not sys.stderr.isatty(),
    )
    task = bar.add_task(description, total=total)
    began = time.monotonic()
    waiting = threading.Timer(PATIENCE_SECONDS, bar.start)
    waiting.daemon = True

    def advance(n=1):
        bar.update(task, advance=n)
        if not bar.live.is_started and time.monotonic() - began > PATIENCE_SECONDS:
            bar.start()

    if total is None and not bar.disable:
        waiting.start()
    try:
        yield advance
    finally:
        waiting.cancel()
        if waiting.is_alive():
            waiting.join()
        if bar.live.is_started:
            bar.stop()


@contextlib.contextmanager
def seconds_progress(description, expected=None):
    """Shows a progress bar of seconds during the block.

    Args:
        description: Text of the bar, a few words.
        expected: Longest duration, in seconds; None if unknown.

    Yields:
        Function of the seconds that have passed, which moves the bar once for each of them. It may be called at any times.
    """
    with progress(f"{description} (seconds)", expected and round(expected)) as advance:
        shown = 0

        def show(elapsed):
            nonlocal shown
            if elapsed >= shown + 1:
                shown += 1
                advance()

        yield show


def track(items, description, total=None):
    """Yields the `items` and shows a progress bar."""
    if total is None and hasattr(items, "__len__"):
        total = len(items)
    with progress(description, total) as advance:
        for item in items:
            yield item
            advance()


def _console():
    from rich.console import Console

    return Console(file=sys.stderr)
