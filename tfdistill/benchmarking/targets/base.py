"""Benchmark targets and their JSON form.

A target is a frozen dataclass with a `kind` and these members:

- `describe()` returns a description for people.
- `open(path, shapes)` is called in the measuring process. It returns an opened model with `inputs`, `outputs`, `set_inputs`, `invoke`, `read_outputs`,
  `delegation`, `engine` and `init_seconds`.
- `accelerator` says whether a run counts only if the runtime proves that something else than the CPU did the work; `allow_partial` whether a part is enough.
- `is_timed` says whether its times mean anything.
- `import_runtime()` imports the runtime, before memory is measured, and returns its name and version.

The fields must be numbers, strings, booleans and dicts of them, because the target is sent to the measuring process as JSON.

A target whose class has `remote = True` is another device, or a program that opens files itself, as a browser does. It has a method `measure(request)` in place of `open`, which returns the fields of the record that the
device knows.
"""

import dataclasses

from tfdistill.benchmarking.targets.adb import Adb
from tfdistill.benchmarking.targets.browser import Browser
from tfdistill.benchmarking.targets.cpu import Cpu
from tfdistill.benchmarking.targets.delegate import Delegate
from tfdistill.benchmarking.targets.gpu import Gpu
from tfdistill.benchmarking.targets.micro import Micro
from tfdistill.benchmarking.targets.npu import Npu
from tfdistill.benchmarking.targets.ssh import Ssh
from tfdistill.errors import ConfigurationError

KINDS = {target.kind: target for target in (Cpu, Gpu, Npu, Delegate, Micro, Browser, Ssh, Adb)}
Target = Cpu | Gpu | Npu | Delegate | Micro | Browser | Ssh | Adb


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


def completed(spec):
    """Returns what `to_spec` gave, with the defaults of the settings that were added since then."""
    known = dataclasses.fields(KINDS[spec["kind"]]) if spec.get("kind") in KINDS else ()
    return {field.name: field.default for field in known if field.default is not dataclasses.MISSING} | spec
