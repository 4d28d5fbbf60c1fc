"""`tfdistill.benchmarking`: one file, one target, one record."""

import dataclasses
import pathlib

from tfdistill.benchmarking.isolation import run_child
from tfdistill.benchmarking.record import BenchmarkRecord
from tfdistill.benchmarking.targets.base import to_spec
from tfdistill.benchmarking.targets.cpu import Cpu
from tfdistill.benchmarking.timing import Timing
from tfdistill.errors import ConfigurationError
from tfdistill.host import fingerprint
from tfdistill.runtime.interpreter import checked_shape

# Besides the timed runs the child starts, opens the file twice and warms up; a large model on a small board takes its time.
_OVERHEAD_SECONDS = 120.0


def benchmark(path, target=None, *, timing=None, variant=None, timeout_seconds=None, shapes=None):
    """Measures latency and memory of a .tflite file in a process of its own.

    Warms up, then runs the file one batch at a time until the median is known as well as `timing` asks (to 2 % by default) or its time
    limit. A run is copying the inputs in, invoking, and reading the outputs back into host memory.

    Args:
        path: The file.
        target: Where to run it; None is `Cpu(threads=1)`.
        timing: A `Timing`; None is the default one.
        variant: What the record calls the file, for example `"int8"`.
        timeout_seconds: The process is ended after this long; None is twice the time limit and two minutes.
        shapes: Dict of input name -> full shape, batch included, to run these inputs at. Needed for inputs with an axis of any size besides the
            batch; a free batch alone is run at the file's own, which is 1. The record holds the shapes that ran.

    Returns:
        A `BenchmarkRecord`; `save(path)` writes it as JSON.

    Raises:
        ConfigurationError: for a missing file or impossible settings.
        BenchmarkError: if the file cannot be opened or run there, has inputs without a fixed size that `shapes` does not name, crashes the process,
            or takes too long.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise ConfigurationError(f"There is no file '{path}' to benchmark.", "a .tflite file", "export_tflite writes one")
    target = Cpu() if target is None else target
    timing = Timing() if timing is None else timing
    if not isinstance(timing, Timing):
        raise ConfigurationError(f"timing={timing!r} is a {type(timing).__name__}.", "a tfdistill.benchmarking.Timing")
    if timeout_seconds is None:
        timeout_seconds = 2 * (timing.max_seconds + timing.warmup_seconds) + _OVERHEAD_SECONDS
    if timeout_seconds <= 0:
        raise ConfigurationError(f"timeout_seconds={timeout_seconds} is impossible.", "a number above 0")
    if shapes is not None:
        shapes = {name: checked_shape(name, shape) for name, shape in shapes.items()}
    order = {
        "path": str(path.absolute()),
        "target": to_spec(target),
        "timing": dataclasses.asdict(timing),
        "variant": variant,
        "shapes": shapes,
        "host": fingerprint().to_dict(),
    }
    found = run_child(order, timeout_seconds, expected_seconds=timing.max_seconds + timing.warmup_seconds)
    return BenchmarkRecord.from_dict({**found, "path": str(path)})
