"""Reads what a .tflite file says of itself, from wherever it comes."""

import dataclasses
import json
from typing import Any

import numpy as np

from tfdistill.convert.census import count_content, read_error
from tfdistill.errors import ExportError
from tfdistill.records import Record
from tfdistill.runtime.interpreter import ModelFile, read_file
from tfdistill.runtime.probe import probe
from tfdistill.runtime.schema import schema
from tfdistill.tflite.metadata.archive import Appended
from tfdistill.tflite.metadata.settings import MOST_PROVENANCE_BYTES, TEXTS, FileMetadata, Normalization
from tfdistill.tflite.metadata.tables import AXIS_LABELS, GRAYSCALE, IMAGE, NORMALIZATION, RGB, unpack_tables
from tfdistill.utils.types import PathLike

# Names of the entries in the list of metadata of a .tflite file.
DESCRIPTION, PROVENANCE = b"TFLITE_METADATA", b"TFDISTILL_PROVENANCE"
COLORS = {1: GRAYSCALE, 3: RGB}  # channels -> number of the color space
_COLOR_NAMES = {RGB: "rgb", GRAYSCALE: "gray"}


@dataclasses.dataclass(frozen=True)
class InputDescription(Record):
    """What a .tflite file says of one of its inputs.

    Attributes:
        mean: Mean of the normalization (x - mean) / std: one number, or one for each channel; empty if there is none.
        std: Likewise.
        image: `rgb` or `gray` for an image, `image` where its colors are not said; None if it is none.

    Example:
        >>> about = tfdistill.tflite.FileMetadata(normalization=tfdistill.tflite.Normalization(0, 255))
        >>> record = tfdistill.export_tflite(student, "pixels.tflite", metadata=about)
        >>> image = tfdistill.read_metadata("pixels.tflite").inputs["image"]
        >>> image.mean, image.std, image.image
        ((0.0,), (255.0,), 'gray')
    """

    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    image: str | None = None


@dataclasses.dataclass(frozen=True)
class FileDescription(Record):
    """What a .tflite file says of itself, as `read_metadata` finds it. Whether it is true cannot be read from the file.

    Attributes:
        name: Name of the model; empty if it is not said, as all texts here.
        description: What it is for.
        version: Its version.
        author: Who made it.
        license: Under which terms it may be used.
        labels: Name of each output that has labels -> its labels, in the order of the last axis.
        inputs: Name of each input of which something is said -> its `InputDescription`.
        files: Names of all files that are appended to it, such as `labels.txt`.
        provenance: How it was made, as a dict of JSON values. Under `"export"` stands what `export_tflite` did and measured.

    Example:
        >>> about = tfdistill.tflite.FileMetadata(author="Ada", provenance={"data": "digits"})
        >>> record = tfdistill.export_tflite(student, "digits.tflite", metadata=about, verify_on=x)
        >>> found = tfdistill.read_metadata("digits.tflite")
        >>> found.author, found.provenance["data"], found.provenance["export"]["variant"]
        ('Ada', 'digits', 'float32')
    """

    name: str = ""
    description: str = ""
    version: str = ""
    author: str = ""
    license: str = ""
    labels: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    inputs: dict[str, InputDescription] = dataclasses.field(default_factory=dict)
    files: tuple[str, ...] = ()
    provenance: dict[str, Any] = dataclasses.field(default_factory=dict)

    def to_metadata(self) -> FileMetadata:
        """Returns the same as settings, which can be changed by `dataclasses.replace` and written again.

        Files that are no labels, and images without a normalization, are left out: `FileMetadata` has no field for them.

        Returns:
            A `FileMetadata`.

        Raises:
            ConfigurationError: if a value is none that `FileMetadata` takes, as another program wrote it.
        """
        normalized = {
            name: Normalization(found.mean, found.std, "image" if found.image else "features")
            for name, found in self.inputs.items()
            if found.mean
        }
        return FileMetadata(
            **{name: getattr(self, name) for name in TEXTS}, labels=self.labels, normalization=normalized, provenance=self.provenance
        )

    def summary(self) -> dict:
        """Returns the fields of the first table, with the number of labels in place of the labels."""
        return {**super().summary(), "labels": {name: len(labels) for name, labels in self.labels.items()}}

    def line(self) -> str:
        """Returns name, author, license, labels and normalization in one line."""
        parts = [f"'{self.name}'" if self.name else "", self.version, f"by {self.author}" if self.author else "", self.license]
        parts += [f"{len(labels)} labels of '{name}'" for name, labels in self.labels.items()]
        for name, found in self.inputs.items():
            if found.mean:
                parts.append(f"'{name}' = ({found.image or 'value'} - {_shown(found.mean)}) / {_shown(found.std)}")
        parts.append("provenance" if self.provenance else "")
        return ", ".join(part for part in parts if part) or "no texts, labels or normalization"


def _shown(numbers):
    return f"{numbers[0]:g}" if len(numbers) == 1 else f"[{', '.join(f'{number:g}' for number in numbers)}]"


def read_metadata(path: PathLike | ModelFile) -> FileDescription | None:
    """Reads what a .tflite file says of itself: labels, normalization, author, license, and how it was made.

    The file is not run, and it is parsed in another process, because a damaged file can make its parser loop or use up the memory. It may come from any program.

    Args:
        path: The file, or a `tfdistill.runtime.interpreter.ModelFile`.

    Returns:
        A `FileDescription`, or None if the file says nothing.

    Raises:
        ConfigurationError: if there is no such file.
        ExportError: if it is not a complete .tflite file, or what it says of itself is damaged.

    Example:
        >>> tfdistill.read_metadata("student.tflite") is None  # `export_tflite` writes what metadata= says
        True
    """
    file = read_file(path)
    found = probe(file, "tfdistill.tflite.metadata.read:read_content", None, read_error(file))
    return None if found is None else FileDescription.from_dict(found, file.path)


def read_content(content, settings):
    """Reads a file; the part of `read_metadata` that runs in another process.

    Args:
        content: The file as bytes.
        settings: Not used.

    Returns:
        Dict of the fields of `FileDescription` as JSON values; None if the file says nothing of itself.

    Raises:
        ExportError: if the file or its description is damaged.
    """
    counted = count_content(content, None)
    classes = schema()
    return described_in(content, classes.ModelT.InitFromObj(classes.Model.GetRootAs(content, 0)), counted)


def warm_up(settings):
    """Imports what `read_content` needs, before the helper forks."""
    schema()


def described_in(content, model, counted):
    """Reads the description of a parsed file.

    Args:
        content: The file as bytes.
        model: `ModelT` of the schema.
        counted: What `count_content` returned.

    Returns:
        As `read_content`.

    Raises:
        ExportError: if the description is damaged.
    """
    data = {entry.name: model.buffers[entry.buffer].data for entry in model.metadata or []}
    tables, provenance = (bytes(bytearray(found)) if (found := data.get(name)) is not None else b"" for name in (DESCRIPTION, PROVENANCE))
    appended = Appended(content)
    found = {"files": list(appended.names)} if tables else {}
    if tables:
        found |= _from_tables(unpack_tables(tables), appended, counted, len(content))
    if provenance:
        found["provenance"] = _provenance(provenance)
    return found or None


def _from_tables(tables, appended, counted, most_bytes):
    found = {name: tables[name] for name in TEXTS if name in tables}
    graph = next(iter(tables.get("subgraph_metadata", [])), {})
    labels, left = {}, most_bytes
    for name, tensor in _named(counted["outputs"], graph.get("output_tensor_metadata", [])):
        file = next((each.get("name", "") for each in tensor.get("associated_files", []) if each.get("type") == AXIS_LABELS), None)
        if file is not None:
            content = appended.read(file)
            left -= len(content)  # many outputs may name one long file
            if left < 0:
                raise ExportError("It is damaged: the labels of its outputs are longer than the file.")
            labels[name] = _lines(file, content)
    inputs = {
        name: about for name, tensor in _named(counted["inputs"], graph.get("input_tensor_metadata", [])) if (about := _about(tensor))
    }
    return {**found, "labels": labels, "inputs": inputs}


def _named(tensors, tables):
    """Lists (name, table) of each tensor of the file that has a table. They go by position: the names in the tables are for people."""
    return list(zip(keys_of([tensor["name"] for tensor in tensors]), tables, strict=False))


def keys_of(names):
    """Returns names by which tensors can be told apart: a file without a signature may have two of one name."""
    return [f"{name}:{index}" if names.count(name) > 1 else name for index, name in enumerate(names)]


def _about(tensor):
    found = {}
    for unit in tensor.get("process_units", []):
        if unit.get("options_type") == NORMALIZATION and "options" in unit:
            found = {name: [_shortest(number) for number in unit["options"].get(name, [])] for name in ("mean", "std")}
    content = tensor.get("content", {})
    if content.get("content_properties_type") == IMAGE:
        found["image"] = _COLOR_NAMES.get(content.get("content_properties", {}).get("color_space", 0), "image")
    return found


def _shortest(number):
    """Returns the shortest decimal number that is stored as this float32: 0.1, not 0.10000000149."""
    return float(str(np.float32(number)))


def _lines(name, content):
    try:
        lines = content.decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise ExportError(f"It is damaged: its associated file '{name}' is not UTF-8 text: {error}.") from error
    return [line.removesuffix("\r") for line in (lines[:-1] if not lines[-1] else lines)]


def _provenance(content):
    if len(content) > MOST_PROVENANCE_BYTES:
        raise ExportError(f"It holds a provenance of {len(content):,} bytes.", f"at most {MOST_PROVENANCE_BYTES:,} bytes")
    try:
        found = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ExportError(f"It is damaged: its provenance is not JSON: {error}.") from error
    if not isinstance(found, dict):
        raise ExportError(f"It is damaged: its provenance is a {type(found).__name__} of JSON.", "a dict")
    return found
