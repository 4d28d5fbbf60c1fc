"""Runs a measurement in a process of its own: a crash, an abort or a hang in there is an error here."""

import json

from tfdistill.errors import BenchmarkError
from tfdistill.runtime import isolated
from tfdistill.utils.progress import progress


def run_child(order, timeout_seconds, module="tfdistill.benchmarking.worker", description="benchmarking", expected_seconds=None, paths=()):
    """Runs `module.main(answers)` in an isolated process, with `order` as JSON on its standard input.

    Args:
        order: What JSON can hold.
        timeout_seconds: The child is killed after this long.
        module: The module to run; it writes its answer to the descriptor `answers` as lines of JSON, `{"record": ...}` or `{"error": "..."}`. The last whole line
            counts: a child can give its answer, and a better one later if it lives.
        description: What the progress bar says.
        expected_seconds: How long it takes at most if all goes well, for the progress bar.
        paths: Further folders that the child may import from.

    Returns:
        The answer's `record`, as JSON gives it.

    Raises:
        BenchmarkError: if the child reports an error, crashes (with the signal's name), hangs, or answers nothing; with what it wrote to
            standard error.
    """
    with progress(f"{description} (seconds)", expected_seconds and round(expected_seconds)) as advance:
        shown = 0

        def show(elapsed):
            nonlocal shown
            if elapsed >= shown + 1:
                shown += 1
                advance()

        ended = isolated.run(module, json.dumps(order).encode() + b"\n", timeout_seconds, paths, show)
    found = _last_answer(ended.answer)
    if found is None:
        words = f"\nIt said:\n{ended.said}" if ended.said else ""
        if ended.code is None:
            raise BenchmarkError(
                f"The measuring process was still busy after {timeout_seconds:g} s and was ended.{words}",
                fix="raise timeout_seconds, or lower max_seconds of the timing",
            )
        if ended.death:
            raise BenchmarkError(f"The measuring process {ended.death}.{words}", "a process that ends by itself and answers")
        raise BenchmarkError(f"The measuring process ended without an answer.{words}")
    if "error" in found:
        raise BenchmarkError(f"The measuring process reports: {found['error']}")
    return found["record"]


def _last_answer(text):
    for line in reversed(text.splitlines()):
        try:
            found = json.loads(line)
        except ValueError:
            continue  # cut off, or a print of somebody else's
        if isinstance(found, dict) and ("record" in found or "error" in found):
            return found
    return None
