"""Makes the folder that puts a .tflite file on a device."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from tfdistill.errors import ConfigurationError, ExportError, RuntimeUnavailableError
from tfdistill.host import HostFingerprint, fingerprint
from tfdistill.kits.description import DESCRIPTION, LABELS, MODEL, describe, holds_pixels, layout_of, looks_like_image, real_range
from tfdistill.kits.devices import Device, device_module
from tfdistill.kits.folders import require_place, write_kit
from tfdistill.kits.refusals import general_refusals
from tfdistill.kits.vectors import LiteRT, made_vectors, tolerances
from tfdistill.records import Record
from tfdistill.runtime.interpreter import ModelFile, read_file
from tfdistill.tflite.inspection.inspect import inspect
from tfdistill.tflite.metadata.settings import Normalization
from tfdistill.utils import validate
from tfdistill.utils.shipped import shipped_files
from tfdistill.utils.types import PathLike
from tfdistill.version import __version__


@dataclasses.dataclass(frozen=True)
class KitRecord(Record):
    """A kit that `kit` made.

    Attributes:
        device: Name of the device.
        path: The folder.
        files: Its files, by their paths in the folder.
        size_bytes: Size of all of them.
        model_bytes: Size of the .tflite file.
        sha256: SHA-256 of the .tflite file, in hexadecimal digits.
        variant: Variant of the file.
        labels: Number of labels; 0 if there are none.
        vectors: Number of test vectors.
        tolerance: Name of each output -> how far the device may be from the vectors, `0 steps` or `1e-05`.
        kernels: Kernels that gave the outputs of the vectors.
        arena_bytes: Memory that tflite-micro needs for the file; None for another device.
        notes: What to know beforehand; each a text.
        host: Machine and package versions with which the vectors were made.

    Example:
        >>> record = tfdistill.kit("student.tflite", "microcontroller", "board")
        >>> record.vectors, "model.json" in record.files
        (3, True)
    """

    device: str
    path: str
    files: tuple[str, ...]
    size_bytes: int
    model_bytes: int
    sha256: str
    variant: str
    labels: int
    vectors: int
    tolerance: dict[str, str]
    kernels: str
    arena_bytes: int | None
    notes: tuple[str, ...]
    host: HostFingerprint

    def summary(self) -> dict:
        """Returns the fields of the table, with the number of files in place of their names."""
        return {**super().summary(), "files": len(self.files)}


def kit(
    path: PathLike | ModelFile,
    device: Device,
    out: PathLike,
    *,
    labels: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
    normalization: Normalization | Mapping[str, Normalization] | None = None,
    states: Mapping[str, str] | None = None,
    samples: Any = None,
    overwrite: bool = False,
    arena_bytes: int | None = None,
    flash_bytes: int | None = None,
) -> KitRecord:
    """Makes a folder that puts a .tflite file on a device: what runs there, the file, its labels, `model.json`, and three test vectors.

    The vectors are inputs with the outputs that the file gave here; the kit compares them on the device. `model.json` has what firmware needs to feed the file
    right. What the file says of itself (labels, normalization) is read first. The folder is written completely or not at all.

    Args:
        path: The file, or a `tfdistill.runtime.interpreter.ModelFile`. It may come from any converter.
        device: `"raspberry_pi"`, `"android"`, `"web"` or `"microcontroller"`.
        out: The folder to write: a new or an empty one.
        labels: Names of the classes in the order of the last axis of the output, for a file that does not say them; a dict of output name -> labels for a file
            with several outputs.
        normalization: `tfdistill.tflite.Normalization` of the input, for a file that does not say it; a dict of input name -> normalization for several.
            Without one, an image's pixels are taken as they are, 0 to 255.
        states: Name of each input that is a state -> name of the output whose value it gets in the next run; None for what the file says.
        samples: Array (samples, ...) of real values, or a dict of input name -> array, whose first samples become the test vectors; None for made-up ones.
            Three are needed, of a file with states twelve.
        overwrite: Whether to replace a kit that is there. Only what `kit` wrote is replaced: a folder with other or changed files stays.
        arena_bytes: Memory that a microcontroller has for the tensors; a file that needs more is refused. None if it is not known.
        flash_bytes: Memory that a microcontroller has for the file; likewise.

    Returns:
        A `KitRecord`.

    Raises:
        ConfigurationError: if there is no such file or device, an argument does not fit the file, or the folder would lose something.
        ExportError: if it is not a complete .tflite file, or the device cannot run it; with what would do.
        DataError: if samples do not fit the file.
        MissingPackageError: for a microcontroller, if the package tflite-micro is not installed.
        RuntimeUnavailableError: if the file does not run here, or what the device needs cannot be fetched.

    Example:
        >>> record = tfdistill.kit("student.tflite", "microcontroller", "kits/board", arena_bytes=64_000)
        >>> record.arena_bytes < 64_000, "main.cc" in record.files
        (True, True)
    """
    module = device_module(device)
    place = require_place(out, overwrite)
    limits = {"arena_bytes": arena_bytes, "flash_bytes": flash_bytes}
    for name, limit in limits.items():
        if limit is not None:
            validate.whole_number(name, limit, 1)
            _require_microcontroller(name, device)
    file = read_file(path)
    report = inspect(file)
    layout = layout_of(file)
    _require_runs(general_refusals(report, layout), file, device)
    described = describe(file, report, layout, labels=labels, normalization=normalization, states=states, limits=limits)
    _require_runs(module.refusals(described, report), file, device)
    runner = getattr(module, "Runner", LiteRT)(file, described)
    largest = made_vectors(described, samples, runner.run, _builtin_runner(module, file, described))
    described["tolerance"] = tolerances(described, report, largest, runner.least_steps)
    described["made_with"]["kernels"] = runner.kernels
    files = {
        **shipped_files(device),
        MODEL: file.content,
        **described.vectors,
        **({LABELS: "".join(f"{label}\n" for label in described["labels"]).encode()} if described["labels"] else {}),
        **module.made_files(described),
        DESCRIPTION: (json.dumps(described, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode(),
    }
    write_kit(files, place, device, __version__)
    return KitRecord(
        device=device,
        path=str(pathlib.Path(out)),
        files=tuple(sorted(files)),
        size_bytes=sum(map(len, files.values())),
        model_bytes=len(file.content),
        sha256=file.sha256,
        variant=described["variant"],
        labels=len(described["labels"] or ()),
        vectors=len(described["vectors"]),
        tolerance={name: f"{how['steps']} steps" if "steps" in how else f"{how['abs']:g}" for name, how in described["tolerance"].items()},
        kernels=runner.kernels,
        arena_bytes=described["arena_bytes"],
        notes=tuple(_notes(described, samples) + list(getattr(module, "notes", lambda *_: [])(described, report))),
        host=fingerprint(),
    )


def _builtin_runner(module, file, described):
    """Returns what runs the file with LiteRT's own kernels, for devices whose older runtimes have no others; None where it is not needed, or they do not run it."""
    if not getattr(module, "OLD_RUNTIMES", False):
        return None
    try:
        return LiteRT(file, described, "builtin").run
    except RuntimeUnavailableError:
        return None


def _require_runs(refused, file, device):
    if refused:
        texts = [each if isinstance(each, tuple) else (each, "") for each in refused]
        raise ExportError(
            f"'{file.path}' does not run on this device ({device}): {'; '.join(what.rstrip('.') for what, _ in texts)}.",
            "a file that its runtime takes",
            "; or ".join(dict.fromkeys(fix for _, fix in texts if fix)) or None,
        )


def _require_microcontroller(name, device):
    if device != "microcontroller":
        raise ConfigurationError(f"{name} is given for {device}.", "device='microcontroller'", f"leave {name}= out")


def _notes(described, samples):
    found = []
    for tensor in described["inputs"]:
        if looks_like_image(tensor["shape"], tensor["dtype"]) and tensor["normalization"] is None and not holds_pixels(tensor):
            found.append(
                f"Input '{tensor['name']}' has the shape of an image, but holds values up to {real_range(tensor)[1]:.3g}: for pixels, 0 to 255, "
                "normalization= says how they become those."
            )
        unscaled = tensor["scale"] is None and tensor["dtype"] not in ("float32", "float16")
        if samples is None and tensor["kind"] == "tensor" and unscaled:
            found.append(f"The vectors have zeros for '{tensor['name']}', which may be indices: samples= makes them of real data.")
    return found
