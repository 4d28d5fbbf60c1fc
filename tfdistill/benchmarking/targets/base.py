"""Benchmark targets and their JSON form.

A target is a frozen dataclass with a `kind`, a method `describe()`, and a method `open(path, shapes)`. `open` is called in the measuring
process and returns an opened model with `inputs`, `set_inputs`, `invoke`, `read_outputs`, `engine` and `init_seconds`. The fields must be
numbers, strings and booleans, because the target is sent to that process as JSON.

A target whose class has `remote = True` is another device. It has a method `measure(request)` in place of `open`, which returns the fields of the record that the
device knows.
"""

import dataclasses

from tfdistill.benchmarking.targets.adb import Adb
from tfdistill.benchmarking.targets.cpu import Cpu
from tfdistill.benchmarking.targets.ssh import Ssh
from tfdistill.errors import ConfigurationError

KINDS = {target.kind: target for target in (Cpu, Ssh, Adb)}


def to_spec(target):
    """Returns the target as a dict for JSON.

    Raises:
        ConfigurationError: if it is not a target.
    """
    if type(target) not in KINDS.values():
        raise ConfigurationError(
            f"target={target!r} is a {type(target).__name__}.",
            f"one of {', '.join(kind.__name__ for kind in KINDS.values())}",
            "tfdistill.benchmarking.Cpu()",
        )
    return {"kind": target.kind, **dataclasses.asdict(target)}


def from_spec(spec):
    """Returns the target that `to_spec` described."""
    settings = dict(spec)
    return KINDS[settings.pop("kind")](**settings)
