"""Throughput of several streams: processes that run one file at the same time, each with an interpreter of its own."""

import contextlib
import dataclasses
import json
import os
import select
import subprocess
import sys
import tempfile
import time

import numpy as np

from tfdistill.benchmarking.measuring import Timed
from tfdistill.benchmarking.opening import open_to_time
from tfdistill.benchmarking.timing import Timing, packed, unpacked, whole_run
from tfdistill.errors import BenchmarkError, TfdistillError
from tfdistill.runtime import bootstrap, isolated
from tfdistill.runtime.tensors import sample_inputs
from tfdistill.utils.progress import progress

# From the word to start until all begin, so that the slowest has read it.
_START_SECONDS = 0.1


@dataclasses.dataclass(frozen=True)
class Throughput:
    """What several streams did together.

    Attributes:
        runs_per_s: Runs of all streams in a second, those that ended inside the common time.
        p50_ms: Median time of one run meanwhile.
    """

    runs_per_s: float
    p50_ms: float


def stream_throughput(request, streams, seconds, timeout_seconds):
    """Runs a file in several processes at the same time.

    Args:
        request: Dict of `path`, `target`, `timing` and `shapes`, as for `worker.measure_file`.
        streams: Number of processes.
        seconds: How long they run together.
        timeout_seconds: They are killed after this time.

    Returns:
        A `Throughput`.

    Raises:
        BenchmarkError: if one of them reports an error, ends early, or takes too long.
    """
    deadline = time.monotonic() + timeout_seconds
    with contextlib.ExitStack() as stack, progress(f"benchmarking {streams} streams"):
        children, logs = [], []
        for _ in range(streams):
            logs.append(stack.enter_context(tempfile.TemporaryFile()))
            # In pipes, as each says when it is ready; what it says is small.
            child = isolated.start("tfdistill.benchmarking.streaming", subprocess.PIPE, logs[-1], lifetime_seconds=timeout_seconds + 10)
            children.append(child)
            stack.callback(_end, child)
            _tell(child, request)
        for child, log in zip(children, logs, strict=True):
            _answer(child, log, deadline)
        begin = time.monotonic_ns() + int(_START_SECONDS * 1e9)
        end = begin + int(seconds * 1e9)
        for child in children:
            _tell(child, [begin, end])
        found = [_answer(child, log, deadline) for child, log in zip(children, logs, strict=True)]
    times = [unpacked(one["times"]).seconds for one in found]
    return Throughput(sum(one["inside"] for one in found) / seconds, float(np.median(np.concatenate(times))) * 1e3)


def _tell(child, value):
    try:
        child.stdin.write(json.dumps(value).encode() + b"\n")
        child.stdin.flush()
    except OSError:
        return  # it has ended; its answer is missing, which is said with what it printed


def _answer(child, log, deadline):
    line = b""
    while not line.endswith(b"\n"):
        ready, _, _ = select.select([child.stdout], [], [], max(deadline - time.monotonic(), 0))
        if not ready:
            raise BenchmarkError(
                "A stream was still busy at the time limit and was ended.", fix="raise timeout_seconds, or ask for fewer streams"
            )
        part = os.read(child.stdout.fileno(), 1 << 16)
        if not part:
            child.wait()
            said = isolated.last_lines(log)
            raise BenchmarkError(f"A stream {isolated.describe_exit(child.returncode)}." + (f"\nIt said:\n{said}" if said else ""))
        line += part
    answer = json.loads(line)
    if "error" in answer:
        raise BenchmarkError(f"A stream reports: {answer['error']}")
    return answer


def _end(child):
    if child.poll() is None:
        child.kill()
    child.wait()
    for pipe in (child.stdin, child.stdout):
        with contextlib.suppress(OSError):
            pipe.close()


def main(result_fd):
    """Opens the file of the request, writes `{"ready": true}`, waits for `[begin, end]` in nanoseconds of the monotonic clock, and runs meanwhile."""
    request = json.loads(sys.stdin.buffer.readline())
    try:
        run = _opened(request)
    except TfdistillError as error:
        _write(result_fd, {"error": str(error)})
        return
    _write(result_fd, {"ready": True})
    begin, end = json.loads(sys.stdin.buffer.readline())
    bootstrap.end_with_input()
    try:
        _write(result_fd, _run_between(run, begin, end))
    except TfdistillError as error:
        _write(result_fd, {"error": str(error)})


def _opened(request):
    timing = Timing(**request["timing"])
    model = open_to_time(request["target"], request["path"], request.get("shapes"), timing.cores)
    run = whole_run(model, sample_inputs(model.inputs, 0))
    end, count = time.monotonic() + timing.warmup_seconds, 0
    while count < max(timing.warmup_runs, 1) or time.monotonic() < end:
        run()
        count += 1
    return run


def _run_between(run, begin, end, clock=time.monotonic_ns):
    """Runs from `begin` to `end`; returns the times of the runs, packed, and how many ended inside."""
    time.sleep(max(begin - clock(), 0) / 1e9)
    times, inside, before = [], 0, clock()
    while before < end:
        run()
        after = clock()
        times.append(after - before)
        inside += after <= end
        before = after
    return {"times": packed(Timed(np.array(times) / 1e9, None, 0, False)), "inside": inside}


def _write(descriptor, value):
    data = memoryview(json.dumps(value).encode() + b"\n")
    while data:
        data = data[os.write(descriptor, data) :]
