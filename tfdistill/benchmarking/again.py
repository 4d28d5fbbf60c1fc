"""Further processes of a benchmark: each opens the file anew and times it, so that the interval holds what differs from process to process."""

import dataclasses
import json
import math
import os
import sys
import time

from tfdistill.benchmarking.isolation import run_child
from tfdistill.benchmarking.opening import open_to_time
from tfdistill.benchmarking.timing import Timing, latency_fields, packed, time_first, time_runs, unpacked, whole_run
from tfdistill.errors import TfdistillError
from tfdistill.runtime import bootstrap
from tfdistill.runtime.tensors import sample_inputs
from tfdistill.utils.progress import progress

# Warm-up of a further process, as a share of that of the first: the file is in the page cache by then.
_WARMUP_SHARE = 1 / 3
# Room for the estimate of how long is long enough.
_MARGIN = 1.2


def measured_again(request, found, timeout_seconds):
    """Completes a record with the times of further processes.

    The processes share the least duration first. If the interval of the median is too wide then, as many processes follow that run as long as the width of that interval
    says, within the limit, and the times are theirs alone: the first ones have only set the length (as in the two-stage procedure of Stein, Ann. Math. Stat.
    16, 1945), so the measurement does not end at an interval that is narrow by chance.

    Args:
        request: That of the first process; see `worker.measure_file`.
        found: The fields of the record that the first process wrote; its item `times` is its `Timed`, packed.
        timeout_seconds: Time limit of each process.

    Returns:
        The fields of the record.
    """
    found = dict(found)
    first = found.pop("times", None)
    if first is None:
        return found
    timing, several = Timing(**request["timing"]), [unpacked(first)]
    if found["processes"] == 1:  # it has measured alone
        return found
    inits = [found["init_ms"]]

    def follow(count, share):
        share = dataclasses.replace(share, warmup_seconds=timing.warmup_seconds * _WARMUP_SHARE, warmup_runs=min(timing.warmup_runs, 1))
        for _ in range(count):
            _pause(timing.pause_seconds)
            one = run_child(
                {**request, "timing": dataclasses.asdict(share)},
                timeout_seconds,
                "tfdistill.benchmarking.again",
                f"benchmarking, process {len(inits) + 1}",
            )
            inits.append(one["init_ms"])
            yield unpacked(one["times"])

    several += follow(timing.processes - 1, timing.share())
    fields = latency_fields(several, timing, found["batch"])
    spent = sum(float(timed.seconds.sum()) for timed in several)
    longer = _needed(fields, timing, spent)
    if not fields["converged"] and longer:
        share = dataclasses.replace(timing.share(), min_seconds=longer / timing.processes, max_seconds=longer / timing.processes)
        several = list(follow(timing.processes, share))
        fields = {**latency_fields(several, timing, found["batch"]), "first_inference_ms": fields["first_inference_ms"]}
    return {**found, **fields, "init_ms": sorted(inits)[len(inits) // 2]}


def _pause(seconds):
    with progress("waiting before the next process (seconds)", math.ceil(seconds)) as advance:
        for second in range(math.ceil(seconds)):
            time.sleep(min(1.0, seconds - second))
            advance()


def _needed(fields, timing, spent):
    """Returns how many seconds are needed for the precision, within the limit; None if what is left is no longer than what was spent."""
    left = timing.max_seconds - spent
    if left <= spent:
        return None
    if fields["p50_low_ms"] is None:
        return left
    half = max(fields["p50_ms"] - fields["p50_low_ms"], fields["p50_high_ms"] - fields["p50_ms"])
    ratio = half / (timing.precision * fields["p50_ms"])
    return min(left, max(2 * spent, _MARGIN * spent * ratio**2))


def time_file(request):
    """Opens the file of a request and times it, without copies of inputs and outputs for `invoke_only`; returns `times`, a packed `Timed`, and `init_ms`."""
    timing = Timing(**request["timing"])
    model = open_to_time(request["target"], request["path"], request.get("shapes"), timing.cores)
    inputs = sample_inputs(model.inputs, 0)
    run = whole_run(model, inputs)
    if request.get("invoke_only"):
        model.set_inputs(inputs)
        run = model.invoke
    _, first_seconds = time_first(run)
    timed = dataclasses.replace(time_runs(run, timing), first_seconds=first_seconds)
    return {"times": packed(timed), "init_ms": model.init_seconds * 1e3}


def main(result_fd):
    """Writes `{"record": ...}` of the request on standard input, or `{"error": "..."}`."""
    request = json.loads(sys.stdin.buffer.readline())
    bootstrap.end_with_input()
    try:
        answer = {"record": time_file(request)}
    except TfdistillError as error:
        answer = {"error": str(error)}
    with os.fdopen(result_fd, "w", encoding="utf-8") as result:
        result.write(json.dumps(answer) + "\n")
