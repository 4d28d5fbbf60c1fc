"""Runs a measurement in a child process, so that its crash or hang is an exception in this process."""

import json

from tfdistill.errors import BenchmarkError, DelegationError
from tfdistill.runtime import isolated
from tfdistill.utils.progress import seconds_progress


class CrashError(BenchmarkError):
    """A signal ended the child before it had a result."""


def run_child(
    request, timeout_seconds, module="tfdistill.benchmarking.worker", description="benchmarking", expected_seconds=None, paths=()
):
    """Runs `module.main(result_fd)` in an isolated process, with `request` as a line of JSON on its standard input.

    Args:
        request: A JSON value.
        timeout_seconds: The child is killed after this time.
        module: The module to run. It writes lines of JSON to the descriptor `result_fd`: `{"record": ...}` or `{"error": "..."}`. The last
            complete line counts, so a child can write a result and replace it later.
        description: Text of the progress bar.
        expected_seconds: Longest duration without a failure, for the progress bar.
        paths: Further folders that the child may import from.

    Returns:
        The value of `record`.

    Raises:
        DelegationError: if the child reports one.
        BenchmarkError: if the child reports another error, crashes (a `CrashError`; the message names the signal), hangs, or writes no result; with its
            printed text.
    """
    with seconds_progress(description, expected_seconds) as show:
        ended = isolated.run(module, json.dumps(request).encode() + b"\n", timeout_seconds, paths, show)
    found = _last_result(ended.output)
    if found is None:
        log = f"\nIt said:\n{ended.log}" if ended.log else ""
        if ended.code is None:
            raise BenchmarkError(
                f"The measuring process was still busy after {timeout_seconds:g} s and was ended.{log}",
                fix="raise timeout_seconds, or lower max_seconds of the timing",
            )
        if ended.failure:
            kind = CrashError if ended.code < 0 else BenchmarkError
            raise kind(f"The measuring process {ended.failure}.{log}", "a process that ends by itself with a result")
        raise BenchmarkError(f"The measuring process ended without an answer.{log}")
    if found.get("kind") == DelegationError.__name__:
        raise DelegationError(*found["parts"])
    if "error" in found:
        raise BenchmarkError(f"The measuring process reports: {found['error']}")
    return found["record"]


def _last_result(text):
    for line in reversed(text.splitlines()):
        try:
            found = json.loads(line)
        except ValueError:
            continue  # an incomplete line
        if isinstance(found, dict) and ("record" in found or "error" in found):
            return found
    return None
