"""Measures a file in a browser."""

import collections
import dataclasses
import hashlib
import math
import os
import pathlib
import statistics

from tfdistill.benchmarking.browser.file import opened
from tfdistill.benchmarking.timing import Timing, latency_fields, time_runs
from tfdistill.host import fingerprint
from tfdistill.runtime import litert_js
from tfdistill.runtime.tensors import sample_inputs
from tfdistill.utils.machine import clock_mhz, temperature_c
from tfdistill.utils.progress import seconds_progress

# A run is as long as this many steps of the page's clock, or several are timed together.
_LEAST_STEPS = 100
# How long it is tried how many, and how long the page runs before this process looks at the times.
_TRIAL_SECONDS, _BLOCK_SECONDS, _MOST_IN_A_BLOCK = 0.25, 0.1, 10_000


def measured(program, request):
    """Measures a file in a browser.

    Args:
        program: The browser, as `opened` takes it.
        request: Dict of `path`, `timing`, `shapes` and `timeout_seconds`.

    Returns:
        Dict of the fields of the record, and `arrays`: dict of `given`, `first` and `last`, each a dict of name -> array.
    """
    content, timing = pathlib.Path(request["path"]).read_bytes(), Timing(**request["timing"])
    load, clock, warmth = os.getloadavg()[0] if hasattr(os, "getloadavg") else None, clock_mhz(), temperature_c()
    with (
        seconds_progress("benchmarking in the browser", timing.max_seconds + timing.warmup_seconds) as show,
        opened(program, request["path"], request["shapes"], request["timeout_seconds"], show) as file,
    ):
        arrays = sample_inputs(file.inputs, 0)
        file.prepare(arrays)
        (first_seconds,) = file.time(1)
        group, seconds, tried = settled_group(file, first_seconds)
        timed = timed_by(Blocks(file, group, seconds), group, timing)
        timed = dataclasses.replace(timed, first_seconds=first_seconds)
        fields = latency_fields([timed], timing, file.batch_size)
        host = fingerprint()
        browser, _, version = file.product.partition("/")
        packages = {**host.packages, litert_js.CORE.name: litert_js.CORE.version, browser: version}
        return {
            **fields,
            "runs": fields["runs"] * group,
            "warmup_runs": fields["warmup_runs"] * group + 1 + tried,
            "runs_per_time": group,
            "sha256": hashlib.sha256(content).hexdigest(),
            "size_bytes": len(content),
            "engine": f"LiteRT.js {litert_js.CORE.version} in {browser} {version}",
            "input_shapes": {name: list(info.shape) for name, info in file.inputs.items()},
            "batch": file.batch_size,
            "init_ms": file.init_seconds * 1e3,
            "arena_bytes": None,
            "baseline_rss_bytes": None,
            "peak_rss_bytes": None,
            "load_average": load,
            "clock_mhz_before": clock,
            "clock_mhz_after": clock_mhz(),
            "temperature_c_before": warmth,
            "temperature_c_after": temperature_c(),
            "host": dataclasses.replace(host, packages=packages).to_dict(),
            "arrays": {"given": arrays, **file.results()},
        }


class Blocks:
    """Runs of a file in a page, a block of them at a time, which are looked at one by one: a function `run` and the clock that it moves.

    Args:
        file: The `BrowserFile`, or anything with its method `time`.
        group: Number of runs in each time.
        seconds: An estimate of one time.

    Attributes:
        elapsed: Nanoseconds that all times looked at so far took.
        made: Number of times that the page took.
        last: Mean of the times of the last block, in seconds.
        median: Their median.
    """

    def __init__(self, file, group, seconds):
        self._file, self._group, self._waiting = file, group, collections.deque()
        self.elapsed, self.made, self.last, self.median = 0, 0, seconds, seconds

    def run(self):
        """Moves the clock by the next time."""
        if not self._waiting:
            count = min(max(int(_BLOCK_SECONDS / max(self.last * self._group, 1e-6)), 1), _MOST_IN_A_BLOCK)
            seconds = self._file.time(count, self._group)
            self.made += count
            self.last, self.median = statistics.mean(seconds), statistics.median(seconds)
            self._waiting.extend(round(one * 1e9) for one in seconds)
        self.elapsed += self._waiting.popleft()

    def clock(self):
        """Returns `elapsed`."""
        return self.elapsed


def settled_group(file, seconds):
    """Finds how many runs to time together. The first runs are slow, as the browser has not compiled its code to the end, so the last block that is tried counts.

    Args:
        file: The `BrowserFile`.
        seconds: Time of its first run.

    Returns:
        (runs in a group, seconds of one, number of runs that it took).
    """
    group, runs, spent = 1, 0, 0.0
    while spent < _TRIAL_SECONDS:
        block = Blocks(file, group, seconds)
        block.run()
        runs, spent, seconds = runs + block.made * group, spent + block.made * group * block.last, block.last
        group = group_size(block.median, file.clock_step_seconds, group)
    return group, seconds, runs


def group_size(seconds, step_seconds, group):
    """Returns how many runs are timed together, so that a step of the clock is a small part of their time.

    Args:
        seconds: Median time of a run, as that clock shows it.
        step_seconds: The step of the clock.
        group: Number of runs in the times that this is the median of: a shorter time than a step over a group of them does not show.
    """
    return max(math.ceil(_LEAST_STEPS * step_seconds / max(seconds, step_seconds / group)), 1)


def timed_by(blocks, group, timing):
    """Times runs as a `Timing` says; returns the `Timed`, whose times are means of `group` runs.

    The clock is that of the blocks: pauses between them count for nothing. It moves by the mean of a group, so all durations are a group's part of those asked for.
    """
    shorter = {name: getattr(timing, name) / group for name in ("warmup_seconds", "min_seconds", "max_seconds")}
    share = dataclasses.replace(timing, **shorter, warmup_runs=math.ceil(timing.warmup_runs / group))
    return time_runs(blocks.run, share, clock=blocks.clock)
