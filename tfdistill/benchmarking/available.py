"""Which targets can be used on this machine, and why the others cannot."""

import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Literal

from tfdistill.benchmarking.targets.base import KINDS, Target, to_spec
from tfdistill.benchmarking.targets.browser import Browser
from tfdistill.benchmarking.targets.cpu import Cpu
from tfdistill.benchmarking.targets.delegate import Delegate
from tfdistill.benchmarking.targets.gpu import Gpu
from tfdistill.benchmarking.targets.micro import Micro
from tfdistill.benchmarking.targets.npu import Npu
from tfdistill.errors import TfdistillError
from tfdistill.records import Record
from tfdistill.runtime import isolated
from tfdistill.runtime.compiled import VENDORS
from tfdistill.runtime.interpreter import ENGINES
from tfdistill.utils import validate
from tfdistill.utils.files import temporary_folder
from tfdistill.utils.progress import progress

Kind = Literal["cpu", "gpu", "npu", "micro", "browser", "delegate"]

# Delegates of devices that are widely used, by the names that their makers give the libraries.
DELEGATES = {
    "Coral Edge TPU": "libedgetpu.so.1",
    "Qualcomm Hexagon": "libhexagon_delegate.so",
    "Arm NN": "libarmnnDelegate.so",
}
_SECONDS = 60.0
_LINES = 6


@dataclasses.dataclass(frozen=True)
class TargetRecord(Record):
    """Whether a target can be used on this machine.

    Attributes:
        name: What it is, for people.
        target: How it is written, such as `"Gpu()"`.
        usable: Whether it ran a file of one addition here; of a delegate, whether it was loaded.
        found: Runtime and version, for a usable one.
        reason: Why it is not usable, in the words of the loader or runtime; None if it is.

    Example:
        >>> record = tfdistill.benchmarking.TargetRecord("Arm NN", "Delegate('libarmnnDelegate.so')", False, None, "no such file")
        >>> record.usable, record.reason
        (False, 'no such file')
    """

    name: str
    target: str
    usable: bool
    found: str | None
    reason: str | None


def available_targets(kinds: Sequence[Kind] | None = None) -> tuple[TargetRecord, ...]:
    """Tries every kind of target on this machine, each in a process of its own.

    Args:
        kinds: Which to try: of `"cpu"`, `"gpu"`, `"npu"`, `"micro"`, `"browser"` and `"delegate"`; None for all.

    Returns:
        A `TargetRecord` of each: of the CPU with every interpreter, the GPU, the NPUs of all vendors, tflite-micro, the browser, and the delegates of devices that
        are widely used. The browser is tried if LiteRT.js has been fetched before: nothing is fetched here. Other delegates are tried by `benchmark(path, Delegate(library))`.

    Raises:
        ConfigurationError: if there is no such kind.

    Example:
        >>> [(record.target, record.usable) for record in tfdistill.benchmarking.available_targets(["micro"])]
        [('Micro()', True)]
    """
    for kind in kinds or ():
        validate.one_of("kinds", kind, KINDS, "available_targets")
    wanted: list[tuple[str, str, Target]] = [
        *(("CPU", "Cpu()" if engine == ENGINES[0] else f"Cpu(engine={engine!r})", Cpu(engine=engine)) for engine in ENGINES),
        ("GPU", "Gpu()", Gpu()),
        *((f"NPU, {vendor}", f"Npu({vendor!r})", Npu(vendor)) for vendor in VENDORS),
        ("tflite-micro", "Micro()", Micro()),
        ("browser", "Browser()", Browser()),
        *((name, f"Delegate({library!r})", Delegate(library)) for name, library in DELEGATES.items()),
    ]
    wanted = [row for row in wanted if kinds is None or row[2].kind in kinds]
    found = []
    with temporary_folder() as folder, progress("trying targets", len(wanted)) as advance:
        for name, written, target in wanted:
            usable, text = _tried(target, folder)
            found.append(TargetRecord(name, written, usable, text if usable else None, None if usable else text))
            advance()
    return tuple(found)


def _tried(target: Target, folder: pathlib.Path) -> tuple[bool, str]:
    if isinstance(target, Browser):
        return _tried_browser(target, folder)
    request = json.dumps({"target": to_spec(target), "folder": str(folder)}).encode() + b"\n"
    ended = isolated.run("tfdistill.benchmarking.available_child", request, _SECONDS)
    if ended.failure:
        return False, "\n".join(filter(None, [f"The process that tried it {ended.failure}.", *ended.log.splitlines()[-_LINES:]]))
    answer = json.loads(ended.output)
    return answer["usable"], answer["text"]


def _tried_browser(target: Browser, folder: pathlib.Path) -> tuple[bool, str]:
    """Tries a browser from this process: the browser is a process of its own anyway."""
    from tfdistill.benchmarking.browser.file import opened
    from tfdistill.runtime import litert_js
    from tfdistill.runtime.small_file import addition
    from tfdistill.runtime.tensors import sample_inputs

    if not litert_js.is_fetched():
        return False, f"{litert_js.CORE.name} {litert_js.CORE.version} is not here yet; the first benchmark in a browser fetches it by npm"
    path = folder / "browser.tflite"
    path.write_bytes(addition())
    try:
        with opened(target.program, path, None, _SECONDS) as file:
            file.run(sample_inputs(file.inputs, 0))
            return True, f"LiteRT.js {litert_js.CORE.version}, {file.product.replace('/', ' ')}"
    except TfdistillError as error:
        return False, error.happened
